//! The server over real sockets: calls that end at once beside calls that wait.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use proto_wire::rpc::header::{Header, Kind, next_header};
use proto_wire::rpc::method::{Access, Method};
use proto_wire::status::{Code, Status};

use super::{Call, Server, Service};
use crate::clock::Clock;
use crate::rt::{self, Executor, Listener, Waker};
use crate::stats::Stats;

const fn method(id: u16, name: &'static str) -> Method {
    let (deadline_ms, access) = (60_000, Access::Internal);
    Method { id, service: "Test", name, deadline_ms, priority: 0, idempotent: false, access, one_way: false }
}

static AT_ONCE: Method = method(1, "AtOnce");
static LATER: Method = method(2, "Later");
static PANICS: Method = method(3, "Panics");
static NEVER: Method = method(4, "Never");

struct Handlers;

impl Service for Handlers {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        match method {
            1 => Ok(body),
            2 => {
                rt::sleep_ms(20).await;
                Ok(body)
            }
            3 => panic!("planted"),
            _ => {
                call.while_wanted(std::future::pending::<()>()).await;
                Err(Status::new(Code::Internal, "nobody hears this"))
            }
        }
    }
}

/// A server that runs as long as this, and a connection to it.
struct Stand {
    stream: TcpStream,
    input: Vec<u8>,
    stats: Arc<Stats>,
    end: Option<(Waker, Listener, Executor<()>)>,
}

impl Stand {
    fn new() -> Self {
        let mut listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let accepted = listener.start().expect("listens");
        let stats = Arc::new(Stats::of(&[&AT_ONCE, &LATER, &PANICS, &NEVER]));
        let (stop, counted) = (Waker::default(), stats.clone());
        let until = stop.clone();
        let executor = Executor::start("server", None, move || async move {
            let server = Server::new(Handlers, counted, Clock::start());
            server.serve(accepted, &until).await;
            server.close(1_000).await;
        });
        let stream = TcpStream::connect(listener.addr()).expect("accepted");
        let end = Some((stop, listener, executor.expect("an executor")));
        Self { stream, input: Vec::new(), stats, end }
    }

    fn call(call_id: u64, method: &Method, deadline_ms: u32, body: &[u8], out: &mut Vec<u8>) {
        Header { call_id, method: method.id, deadline_ms, ..Header::default() }.put(body, out);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("taken");
    }

    /// The next reply; none: the server has closed the connection.
    fn reply(&mut self) -> Option<(u64, Code, Vec<u8>)> {
        loop {
            if let Some((header, at)) = next_header(&self.input).expect("well formed") {
                let end = at + header.body_bytes as usize;
                let body = self.input[at..end].to_vec();
                self.input.drain(..end);
                if header.kind == Kind::Reply {
                    return Some((header.call_id, header.code(), body));
                }
                continue;
            }
            let mut more = [0; 64 * 1024];
            match self.stream.read(&mut more).expect("no reset") {
                0 => return None,
                read => self.input.extend_from_slice(&more[..read]),
            }
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some((stop, listener, executor)) = self.end.take() {
            stop.raise();
            listener.close();
            executor.join().expect("no panic");
        }
    }
}

#[test]
fn a_call_that_ends_at_once_passes_one_that_waits() {
    let mut stand = Stand::new();
    let mut out = Vec::new();
    Stand::call(1, &LATER, 0, b"later", &mut out);
    Stand::call(2, &AT_ONCE, 0, b"now", &mut out);
    stand.send(&out);
    assert_eq!(stand.reply(), Some((2, Code::Ok, b"now".to_vec())));
    assert_eq!(stand.reply(), Some((1, Code::Ok, b"later".to_vec())));
    let later = stand.stats.method(LATER.id);
    assert_eq!((later.calls(), later.in_bytes.value(), later.out_bytes.value()), (1, 5, 5));
    assert!(later.service.sum_us.value() >= 20_000);
    assert_eq!(stand.stats.method(AT_ONCE.id).calls(), 1);
}

#[test]
fn bodies_that_handlers_keep_outlive_many_reads() {
    let mut stand = Stand::new();
    const SIZES: [usize; 8] = [10, 3_000, 20_000, 70_000, 300_000, 1_000_000, 1, 0];
    let body = |at: usize| vec![at as u8; SIZES[at % SIZES.len()]];
    let mut sender = stand.stream.try_clone().expect("a descriptor");
    let sends = std::thread::spawn(move || {
        for at in 0..64 {
            let mut out = Vec::new();
            Stand::call(at as u64, if at % 3 == 0 { &LATER } else { &AT_ONCE }, 0, &body(at), &mut out);
            sender.write_all(&out).expect("taken");
        }
    });
    let mut seen = [false; 64];
    for _ in 0..64 {
        let (id, code, told) = stand.reply().expect("a reply");
        assert!(code == Code::Ok && told == body(id as usize), "{id}");
        assert!(!std::mem::replace(&mut seen[id as usize], true));
    }
    sends.join().expect("no panic");
}

#[test]
fn a_panic_is_the_answer_of_its_own_call_alone() {
    let mut stand = Stand::new();
    let mut out = Vec::new();
    Stand::call(1, &PANICS, 0, b"", &mut out);
    Stand::call(2, &AT_ONCE, 0, b"now", &mut out);
    stand.send(&out);
    assert_eq!(stand.reply().map(|(id, code, _)| (id, code)), Some((1, Code::Internal)));
    assert_eq!(stand.reply(), Some((2, Code::Ok, b"now".to_vec())));
}

#[test]
fn a_call_that_waits_ends_with_its_time_and_a_cancelled_one_without_a_word() {
    let mut stand = Stand::new();
    let mut out = Vec::new();
    Stand::call(1, &NEVER, 30, b"", &mut out);
    Stand::call(2, &NEVER, 60_000, b"", &mut out);
    Header { kind: Kind::Cancel, call_id: 2, ..Header::default() }.put(&[], &mut out);
    stand.send(&out);
    assert_eq!(stand.reply().map(|(id, code, _)| (id, code)), Some((1, Code::Deadline)));
    // Both handlers were told, and have ended: so the stop need not wait for them.
    out.clear();
    Stand::call(2, &AT_ONCE, 0, b"again", &mut out);
    stand.send(&out);
    assert_eq!(stand.reply(), Some((2, Code::Ok, b"again".to_vec())));
    assert_eq!(stand.stats.method(NEVER.id).calls(), 2);
}

#[test]
fn an_id_that_waits_may_not_be_used_again() {
    let mut stand = Stand::new();
    let mut out = Vec::new();
    Stand::call(1, &NEVER, 0, b"", &mut out);
    Stand::call(1, &AT_ONCE, 0, b"", &mut out);
    stand.send(&out);
    assert_eq!(stand.reply(), None);
}
