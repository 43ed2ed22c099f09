//! Is the target a Moorgate gateway? One phone asks before ten thousand do, so that the answer is a sentence and not a
//! timeout.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use proto_wire::phone::{CloseReason, Ended, PhoneEvent};

use crate::identity::Identities;
use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "{target} does not speak Moorgate's protocol: it answered {answer} (is it the client port of a gateway?)"
    )]
    Foreign { target: SocketAddr, answer: String },
    #[error("{target} does not answer a phone's HELLO within {} s: it is no gateway, or a stuck one", limits::PROBE_WITHIN_MS / 1_000)]
    Silent { target: SocketAddr },
    #[error(
        "{target} closed the connection at a phone's HELLO without a word: it is no gateway, or its limits refuse this host"
    )]
    Closed { target: SocketAddr },
    #[error("{target} does not welcome a phone: {why}")]
    Refused { target: SocketAddr, why: String },
    #[error("{target} cannot be reached: {cause}")]
    Unreachable { target: SocketAddr, cause: io::Error },
}

/// Connects a phone of a run of its own, and waits for its WELCOME.
pub fn probe(target: SocketAddr, who: &Identities) -> Result<(), ProbeError> {
    let unreachable = |cause| ProbeError::Unreachable { target, cause };
    let began = Instant::now();
    let within = Duration::from_millis(limits::PROBE_WITHIN_MS);
    let mut stream = TcpStream::connect_timeout(&target, within).map_err(unreachable)?;
    let now_ms = || began.elapsed().as_millis() as u64 + 1;
    let mut phone = who.machine(0);
    phone.set_token(who.token(0));
    phone.connect(now_ms());
    while phone.poll_event().is_some() {}
    phone.handle_connected(now_ms());
    let mut heard = Vec::new();
    loop {
        let mut out = Vec::new();
        while phone.poll_transmit(&mut out) {}
        // A peer that has closed tells so at the read.
        let _ = stream.write_all(&out);
        let left = within.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        let Some(left) = left else { return Err(ProbeError::Silent { target }) };
        stream.set_read_timeout(Some(left)).map_err(unreachable)?;
        let mut buffer = [0; 1_024];
        match stream.read(&mut buffer) {
            Ok(0) => phone.handle_closed(now_ms(), Ended::Eof),
            Ok(count) => {
                heard.extend_from_slice(&buffer[..count]);
                phone.handle_bytes(&buffer[..count], now_ms());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(ProbeError::Silent { target });
            }
            Err(_) => phone.handle_closed(now_ms(), Ended::Reset),
        }
        while let Some(event) = phone.poll_event() {
            match event {
                PhoneEvent::Welcomed { .. } => {
                    phone.close();
                    let mut out = Vec::new();
                    while phone.poll_transmit(&mut out) {}
                    let _ = stream.write_all(&out);
                    return Ok(());
                }
                PhoneEvent::Closed { reason, text, .. } => {
                    return Err(refusal(target, &reason, &text, &heard));
                }
                _ => {}
            }
        }
    }
}

fn refusal(target: SocketAddr, reason: &CloseReason, text: &str, heard: &[u8]) -> ProbeError {
    let spoken = matches!(reason, CloseReason::Server(_) | CloseReason::GoAway | CloseReason::Version);
    match () {
        () if spoken => ProbeError::Refused { target, why: format!("{reason:?} {text}") },
        () if heard.is_empty() => ProbeError::Closed { target },
        () => ProbeError::Foreign { target, answer: shown(heard) },
    }
}

/// The front of an answer, as a person can read it.
fn shown(heard: &[u8]) -> String {
    let front = &heard[..heard.len().min(limits::PROBE_SHOWN_BYTES)];
    format!("\"{}\"", front.escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    use proto_wire::phone::PhoneConfig;
    use proto_wire_token::IssuerKey;

    use super::*;

    /// What a phone is told about a server that answers its first bytes so, and closes.
    fn told(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a phone");
            let mut hello = [0; 256];
            let read = stream.read(&mut hello).expect("a hello");
            stream.write_all(answer).expect("written");
            read
        });
        let issuer = Arc::new(IssuerKey::generate());
        let who = Identities::new(issuer, Identities::fresh_run(), 1, PhoneConfig::default());
        let error = probe(target, &who).expect_err("no gateway").to_string();
        assert!(server.join().expect("it ran") > 0);
        error
    }

    #[test]
    fn another_protocol_is_named_by_what_it_said() {
        let http = told(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(
            http.contains("does not speak Moorgate's protocol") && http.contains("HTTP/1.1 400"),
            "{http}"
        );
        assert!(told(b"SSH-2.0-x\r\n").contains("SSH-2.0-x"));
        assert!(told(b"").contains("without a word"));
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        drop(listener);
        let issuer = Arc::new(IssuerKey::generate());
        let who = Identities::new(issuer, 1, 1, PhoneConfig::default());
        assert!(probe(target, &who).expect_err("nobody").to_string().contains("cannot be reached"));
    }
}
