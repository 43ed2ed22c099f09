//! A callee that does what a script says: what no server of ours would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proto_wire::rpc::header::{Header, Kind, next_header};

/// One connection, as a script sees it.
pub struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    /// Calls that were read over all connections.
    calls: Arc<AtomicU64>,
}

/// The callee. Connection n is given to the script with its number.
pub struct Script {
    pub addr: SocketAddr,
    calls: Arc<AtomicU64>,
}

impl Script {
    pub fn start(play: impl Fn(usize, &mut Caller) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let calls = Arc::new(AtomicU64::new(0));
        let (counted, play) = (calls.clone(), Arc::new(play));
        // The thread ends with the process of the test.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (play, calls) = (play.clone(), counted.clone());
                let stream = stream.expect("a connection");
                thread::spawn(move || play(number, &mut Caller { stream, input: Vec::new(), calls }));
            }
        });
        Self { addr, calls }
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }
}

impl Caller {
    /// The next call; none when the caller has closed.
    pub fn call(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some((header, header_bytes)) = next_header(&self.input).expect("a caller of ours") {
                let end = header_bytes + header.body_bytes as usize;
                let body = self.input[header_bytes..end].to_vec();
                self.input.drain(..end);
                if header.kind == Kind::Call {
                    self.calls.fetch_add(1, Ordering::AcqRel);
                    return Some((header, body));
                }
                continue;
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Whether more bytes have come than were read as calls.
    pub fn has_more(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        !self.input.is_empty() || peeked.is_ok_and(|bytes| bytes > 0)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The caller may have gone.
        let _ = self.stream.write_all(bytes);
    }

    /// Answers calls as an echo does, until the caller closes.
    pub fn echo(&mut self) {
        while let Some((call, body)) = self.call() {
            self.send(&reply(&call, &body));
        }
    }

    /// Waits for the caller's end.
    pub fn wait_for_end(&mut self) {
        while self.call().is_some() {}
    }
}

pub fn reply(call: &Header, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { kind: Kind::Reply, call_id: call.call_id, ..Header::default() }.put(body, &mut frame);
    frame
}
