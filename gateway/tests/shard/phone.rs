//! A phone as a blocking socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use prost::Message;
use proto_wire::frame::{self, Beat, Call, Reply, next_frame};
use proto_wire::names::Cursor;
use proto_wire::pb;

use super::PATIENCE;

pub struct Phone {
    pub stream: TcpStream,
    held: Vec<u8>,
}

/// What ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With the code of its CLOSE frame.
    Close(u32),
    Silent,
}

pub fn hello(token: &str, device: u64, counter: u32, applied: Cursor) -> Vec<u8> {
    let mut out = Vec::new();
    let hello = pb::Hello {
        version_major: 1,
        token: token.to_owned().into(),
        device,
        counter,
        applied: Some(pb::Cursor { log_epoch: applied.log_epoch, number: applied.number }),
        ..Default::default()
    };
    frame::put_message(&mut out, frame::kind::HELLO, &hello);
    out
}

impl Phone {
    pub fn connect(listen: SocketAddr) -> Self {
        let stream = TcpStream::connect(listen).expect("the shard accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, held: Vec::new() }
    }

    /// Connects and is welcomed.
    pub fn welcomed(listen: SocketAddr, token: &str) -> Self {
        let mut phone = Self::connect(listen);
        phone.send(&hello(token, 9, 1, Cursor::default()));
        let (kind, body) = phone.frame().expect("an answer");
        assert_eq!(kind, frame::kind::WELCOME, "{:?}", pb::Close::decode(&body[..]));
        phone
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the shard takes it");
    }

    pub fn call(&mut self, id: u32, method: u16, body: &[u8]) {
        let mut out = Vec::new();
        Call { id, method, attempt: 0, deadline_ms: 0, applied: Some(Cursor::new(1, 4)), body }.put(&mut out);
        self.send(&out);
    }

    /// The next frame; none at the end of the connection.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut input = &self.held[..];
            if let Some(frame) = next_frame(&mut input, 1 << 16).expect("the shard speaks the protocol") {
                let frame = (frame.kind, frame.body.to_vec());
                self.held = input.to_vec();
                return Some(frame);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(n) => self.held.extend_from_slice(&more[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came from the shard: {error}"),
            }
        }
    }

    pub fn reply(&mut self) -> (u32, u16, Vec<u8>) {
        let (kind, body) = self.frame().expect("a reply");
        assert_eq!(kind, frame::kind::REPLY);
        let reply = Reply::parse(&body).expect("a reply");
        (reply.id, reply.status.0, reply.body.to_vec())
    }

    /// A beat is answered: the connection lives, and all that was sent before is done.
    pub fn beats(&mut self) {
        self.send(&Beat::EMPTY);
        assert_eq!(self.frame(), Some((frame::kind::BEAT, Vec::new())));
    }

    /// Reads until the connection ends.
    pub fn end(mut self) -> End {
        let mut end = End::Silent;
        while let Some((kind, body)) = self.frame() {
            if kind == frame::kind::CLOSE {
                end = End::Close(pb::Close::decode(&body[..]).expect("a close").code);
            }
        }
        end
    }
}
