//! A caller that blocks: proto-wire's machines over a plain socket.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use proto_wire::names::{Cursor, Route};
use proto_wire::pb;
use proto_wire::rpc::callee::{Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, Identity, Kind, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::services::{gateway, presence};
use proto_wire::status::Code;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Reply {
    pub code: Code,
    pub body: Bytes,
    pub cursor: Option<Cursor>,
    pub retry_after_ms: Option<u32>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("the body of a refusal is text")
    }

    pub fn decode<M: Message + Default>(self) -> M {
        assert_eq!(self.code, Code::Ok, "{}", String::from_utf8_lossy(&self.body));
        M::decode(self.body).expect("a reply of the method's type")
    }
}

/// One connection to a backend, as a gateway's shard has it.
pub struct Client {
    stream: TcpStream,
    caller: Caller<u64>,
    callee: Callee,
    out: Vec<u8>,
    input: Vec<u8>,
    start: Instant,
    made: u64,
    replies: HashMap<u64, Reply>,
    pub news: VecDeque<pb::NotifyRequest>,
    pub is_told_to_go: bool,
}

/// On whose behalf a call is made.
pub fn phone(user: u64) -> Option<Identity> {
    Some(Identity { user, device: user + 1, route: Route::default() })
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the backend listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut caller = Caller::new(CallerConfig::default(), 7);
        let mut out = Vec::new();
        caller.start(0);
        caller.handle_connected(0, &mut out);
        Self {
            stream,
            caller,
            callee: Callee::new(CalleeConfig::default()),
            out,
            input: Vec::new(),
            start: Instant::now(),
            made: 0,
            replies: HashMap::new(),
            news: VecDeque::new(),
            is_told_to_go: false,
        }
    }

    /// Begins a call; `wait` takes what it gives.
    pub fn begin(&mut self, method: &Method, identity: Option<Identity>, request: &impl Message) -> u64 {
        self.begin_raw(method.id, identity, &request.encode_to_vec())
    }

    pub fn begin_raw(&mut self, method: u16, identity: Option<Identity>, body: &[u8]) -> u64 {
        self.made += 1;
        let request = Request { method, deadline_ms: 15_000, identity, body, ..Request::default() };
        let now_ms = self.start.elapsed().as_millis() as u64;
        self.caller.call(&request, self.made, now_ms, &mut self.out).map_err(|(_, code)| code).expect("room");
        self.made
    }

    pub fn wait(&mut self, call: u64) -> Reply {
        loop {
            if let Some(reply) = self.replies.remove(&call) {
                return reply;
            }
            assert!(self.turn(), "the backend closed the connection");
        }
    }

    pub fn call(&mut self, method: &Method, identity: Option<Identity>, request: &impl Message) -> Reply {
        let call = self.begin(method, identity, request);
        self.wait(call)
    }

    /// Announces phones as online on this connection, as shard 3 of gateway 5.
    pub fn report(&mut self, users: &[u64]) -> pb::ReportReply {
        let online = users.iter().zip(1..).map(|(&user, slot)| pb::Online {
            user,
            device: user + 1,
            slot,
            generation: 1,
            counter: 1,
            log_epoch: 1,
            applied: 0,
        });
        let request = pb::ReportRequest {
            gateway: 5,
            shard: 3,
            online: online.collect(),
            ..pb::ReportRequest::default()
        };
        self.call(&presence::REPORT, None, &request).decode()
    }

    /// The next batch of news that the backend tells.
    pub fn next_news(&mut self) -> pb::NotifyRequest {
        loop {
            if let Some(news) = self.news.pop_front() {
                return news;
            }
            assert!(self.turn(), "the backend closed the connection");
        }
    }

    /// Writes what is to be written, reads what comes. False: the backend has closed.
    pub fn turn(&mut self) -> bool {
        self.stream.write_all(&self.out).expect("the backend reads");
        self.out.clear();
        let mut bytes = [0; 16 * 1024];
        let read = self.stream.read(&mut bytes).expect("something comes in time");
        self.input.extend_from_slice(&bytes[..read]);
        while let Some((header, header_bytes)) = next_header(&self.input).expect("well-formed frames") {
            let length = header_bytes + header.body_bytes as usize;
            let body = Bytes::copy_from_slice(&self.input[header_bytes..length]);
            self.input.drain(..length);
            self.take(&header, body);
        }
        read > 0
    }

    fn take(&mut self, header: &Header, body: Bytes) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        match header.kind {
            Kind::Call => {
                assert_eq!(header.method, gateway::NOTIFY.id);
                let call =
                    self.callee.handle_call(header, now_ms, &mut self.out).expect("fine").expect("admitted");
                self.news.push_back(pb::NotifyRequest::decode(body).expect("news"));
                let reply = pb::NotifyReply::default().encode_to_vec();
                self.callee.reply(&call, &Outcome::OK, &reply, &mut self.out);
            }
            Kind::Cancel | Kind::Ping => {
                self.callee.handle_control(header, &mut self.out).expect("fine");
            }
            Kind::Reply => {
                let call = self.caller.handle_reply(header, now_ms, &mut self.out).expect("fine");
                let reply = Reply {
                    code: header.code(),
                    body,
                    cursor: header.cursor,
                    retry_after_ms: header.retry_after_ms,
                };
                assert!(self.replies.insert(call.expect("a call of ours"), reply).is_none());
            }
            Kind::Credit | Kind::Pong | Kind::GoAway => {
                self.is_told_to_go |= header.kind == Kind::GoAway;
                self.caller.handle_control(header, now_ms, &mut self.out).expect("fine");
            }
        }
    }
}

/// A connection without a machine, for what no machine would send.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it reads");
    }

    pub fn call(&mut self, call_id: u64, method: u16, deadline_ms: u32, body: &[u8]) {
        let mut frame = Vec::new();
        Header { kind: Kind::Call, call_id, method, deadline_ms, ..Header::default() }.put(body, &mut frame);
        self.send(&frame);
    }

    pub fn control(&mut self, kind: Kind, call_id: u64) {
        let mut frame = Vec::new();
        Header { kind, call_id, ..Header::default() }.put(&[], &mut frame);
        self.send(&frame);
    }

    /// The next frame of a kind; others are passed over.
    pub fn next(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        loop {
            let (header, body) = self.frame();
            if header.kind == kind {
                return (header, body);
            }
        }
    }

    fn frame(&mut self) -> (Header, Vec<u8>) {
        let mut bytes = vec![0; 8];
        self.0.read_exact(&mut bytes).expect("a frame comes");
        let header_bytes = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        bytes.resize(header_bytes, 0);
        self.0.read_exact(&mut bytes[8..]).expect("a whole header comes");
        let length = header_bytes + u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
        bytes.resize(length, 0);
        self.0.read_exact(&mut bytes[header_bytes..]).expect("a whole body comes");
        let (header, _) = next_header(&bytes).expect("well-formed").expect("whole");
        (header, bytes[header_bytes..].to_vec())
    }

    /// Waits for the end of the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}
