//! A backend that does what a test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use prost::Message;
use proto_wire::pb;
use proto_wire::rpc::header::{Header, Kind, next_header};
use proto_wire::services;

use super::PATIENCE;

pub struct Backend {
    pub addr: SocketAddr,
    connections: Receiver<TcpStream>,
}

/// One connection of the shard.
pub struct Connection {
    pub stream: TcpStream,
    held: Vec<u8>,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (sender, connections): (Sender<TcpStream>, _) = channel();
        // Ends when the test has dropped the receiver and one more connection comes, or with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { addr, connections }
    }

    pub fn accept(&self) -> Connection {
        let stream = self.connections.recv_timeout(PATIENCE).expect("the shard connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Connection { stream, held: Vec::new() }
    }
}

impl Connection {
    pub fn send(&mut self, header: &Header, body: &[u8]) {
        let mut out = Vec::new();
        header.put(body, &mut out);
        self.stream.write_all(&out).expect("the shard reads");
    }

    /// The next frame.
    pub fn frame(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Some((header, start)) = next_header(&self.held).expect("the shard speaks the protocol") {
                let end = start + header.body_bytes as usize;
                let body = self.held[start..end].to_vec();
                self.held.drain(..end);
                return (header, body);
            }
            let mut more = [0; 65536];
            let n = self.stream.read(&mut more).expect("the shard writes");
            assert!(n > 0, "the shard closed");
            self.held.extend_from_slice(&more[..n]);
        }
    }

    /// The next report, acknowledged with `reply`.
    pub fn report(&mut self, reply: &pb::ReportReply) -> pb::ReportRequest {
        loop {
            let (header, body) = self.frame();
            if header.kind == Kind::Call && header.method == services::presence::REPORT.id {
                self.send(
                    &Header { kind: Kind::Reply, call_id: header.call_id, ..Header::default() },
                    &reply.encode_to_vec(),
                );
                return pb::ReportRequest::decode(&body[..]).expect("a report");
            }
        }
    }

    /// The next call that is no report; reports are acknowledged meanwhile.
    pub fn call(&mut self) -> (Header, Vec<u8>) {
        loop {
            let (header, body) = self.frame();
            if header.method != services::presence::REPORT.id {
                return (header, body);
            }
            let reply = pb::ReportReply { backend: 1, ..Default::default() };
            let answer = Header { kind: Kind::Reply, call_id: header.call_id, ..Header::default() };
            self.send(&answer, &reply.encode_to_vec());
        }
    }

    pub fn answer(&mut self, call: &Header, body: &[u8]) {
        self.send(&Header { kind: Kind::Reply, call_id: call.call_id, ..Header::default() }, body);
    }

    /// Tells news and gives the indices that the shard calls stale.
    pub fn notify(&mut self, request: &pb::NotifyRequest) -> Vec<u32> {
        let header = Header {
            kind: Kind::Call,
            method: services::gateway::NOTIFY.id,
            call_id: 5,
            ..Header::default()
        };
        self.send(&header, &request.encode_to_vec());
        loop {
            let (header, body) = self.call();
            if header.kind == Kind::Reply {
                return pb::NotifyReply::decode(&body[..]).expect("a reply").stale;
            }
        }
    }
}
