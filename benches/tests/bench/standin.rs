//! A gateway that does what a test wants: it welcomes every phone and answers calls with their own bodies, one server
//! thread for all, as slow as it is told to be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use proto_wire::frame::{Beat, Call, Reply, kind, next_frame, put_message};
use proto_wire::pb;
use proto_wire::status::Code;

/// How the one server thread behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Service {
    /// What each call takes it.
    pub each: Duration,
    /// It stands still once, so long after its first call, for so long.
    pub stall: Option<(Duration, Duration)>,
}

struct Asked {
    stream: TcpStream,
    id: u32,
    body: Vec<u8>,
    at: Instant,
}

/// Serves until the test's process ends.
pub fn start(service: Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (asked, calls) = mpsc::channel();
    thread::spawn(move || serve(&calls, service));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = asked.clone();
            thread::spawn(move || phone(stream, &asked));
        }
    });
    address
}

/// Reads one phone's frames until it goes.
fn phone(mut stream: TcpStream, asked: &Sender<Asked>) {
    stream.set_nodelay(true).expect("an option");
    let (mut held, mut buffer) = (Vec::new(), [0; 16 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        held.extend_from_slice(&buffer[..count]);
        let mut rest = held.as_slice();
        let mut out = Vec::new();
        while let Ok(Some(frame)) = next_frame(&mut rest, 64 << 10) {
            match frame.kind {
                kind::HELLO => put_message(&mut out, kind::WELCOME, &welcome()),
                kind::BEAT if frame.body.is_empty() => out.extend_from_slice(&Beat::EMPTY),
                kind::CALL => {
                    let call = Call::parse(frame.body).expect("a call");
                    let stream = stream.try_clone().expect("a descriptor");
                    let _ = asked.send(Asked {
                        stream,
                        id: call.id,
                        body: call.body.to_vec(),
                        at: Instant::now(),
                    });
                }
                _ => {}
            }
        }
        let left = rest.len();
        held.drain(..held.len() - left);
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn welcome() -> pb::Welcome {
    pb::Welcome {
        version_major: 1,
        interval_ms: 240_000,
        server_time_ms: 1_800_000_000_000,
        max_body_bytes: 64 << 10,
        max_calls_in_flight: 16,
        ..Default::default()
    }
}

fn serve(calls: &Receiver<Asked>, service: Service) {
    let mut stall = None;
    // Until when it is busy with what came before.
    let mut busy_until = Instant::now();
    while let Ok(mut call) = calls.recv() {
        let now = Instant::now();
        let due = stall.get_or_insert(service.stall.map(|(after, lasts)| (now + after, lasts)));
        if let Some((_, lasts)) = due.take_if(|(at, _)| now >= *at) {
            thread::sleep(lasts);
        }
        // From when the call came: a machine that takes its core away makes it late, not slower.
        busy_until = busy_until.max(call.at) + service.each;
        thread::sleep(busy_until.saturating_duration_since(Instant::now()));
        let mut out = Vec::new();
        let reply =
            Reply { id: call.id, status: Code::Ok, given: None, retry_after_ms: None, body: &call.body };
        reply.put(&mut out);
        let _ = call.stream.write_all(&out);
    }
}
