//! A gateway that does what a test wants: it welcomes every phone and answers calls with their own bodies, one server
//! thread for all, as slow as it is told to be. With an admin port it is the backend too, which tells everybody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
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
    /// It answers each beat so much later.
    pub beat: Duration,
}

/// Where phones of a [`Service`] are told what all shall know.
type Everybody = Arc<Mutex<Vec<TcpStream>>>;

struct Asked {
    stream: TcpStream,
    id: u32,
    body: Vec<u8>,
    at: Instant,
}

/// Serves until the test's process ends.
pub fn start(service: Service) -> SocketAddr {
    start_with_admin(service).0
}

/// The same, and where `POST /broadcast` is taken.
pub fn start_with_admin(service: Service) -> (SocketAddr, SocketAddr) {
    let everybody = Everybody::default();
    let admin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin_address = admin.local_addr().expect("an address");
    let told = everybody.clone();
    thread::spawn(move || {
        for stream in admin.incoming().flatten() {
            tell_everybody(stream, &told);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (asked, calls) = mpsc::channel();
    thread::spawn(move || serve(&calls, service));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (asked, everybody) = (asked.clone(), everybody.clone());
            thread::spawn(move || phone(stream, &asked, &everybody, service.beat));
        }
    });
    (address, admin_address)
}

/// One request to the admin port.
fn tell_everybody(mut stream: TcpStream, everybody: &Everybody) {
    let (mut held, mut buffer) = (Vec::new(), [0; 4 << 10]);
    let (head, body) = loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
        held.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&held).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
            break (head.to_owned(), body.to_owned());
        }
    };
    if !head.starts_with("POST /broadcast ") {
        let _ = stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n");
        return;
    }
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"gateways\": 1}");
    let what = pb::notice::What::Announcement(pb::Announcement { text: body });
    let mut frame = Vec::new();
    put_message(&mut frame, kind::EVENT, &pb::Notice { what: Some(what) });
    for phone in everybody.lock().expect("nobody panicked").iter_mut() {
        let _ = phone.write_all(&frame);
    }
}

/// Reads one phone's frames until it goes.
fn phone(mut stream: TcpStream, asked: &Sender<Asked>, everybody: &Everybody, beat: Duration) {
    stream.set_nodelay(true).expect("an option");
    let (mut held, mut buffer) = (Vec::new(), [0; 16 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        held.extend_from_slice(&buffer[..count]);
        let mut rest = held.as_slice();
        let mut out = Vec::new();
        while let Ok(Some(frame)) = next_frame(&mut rest, 64 << 10) {
            match frame.kind {
                kind::HELLO => {
                    put_message(&mut out, kind::WELCOME, &welcome());
                    let phone = stream.try_clone().expect("a descriptor");
                    everybody.lock().expect("nobody panicked").push(phone);
                }
                kind::BEAT if frame.body.is_empty() => {
                    thread::sleep(beat);
                    out.extend_from_slice(&Beat::EMPTY);
                }
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
