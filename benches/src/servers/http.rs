//! One question over HTTP, to a server's admin port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::limits;

/// The process that `/status` tells of.
pub(super) fn status_pid(admin: SocketAddr) -> Option<u32> {
    let status: serde_json::Value = serde_json::from_str(&get(admin, "/status").ok()?).ok()?;
    u32::try_from(status.get("pid")?.as_u64()?).ok()
}

pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

pub(super) fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<String> {
    let length = body.len();
    ask(
        address,
        &format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

/// 1.0, so that the body comes whole and not in chunks.
fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    let within = Duration::from_millis(limits::HTTP_WITHIN_MS);
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limits::HTTP_ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_pid_is_found_in_the_status() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).expect("a request");
            assert!(request[..read].starts_with(b"GET /status HTTP/1.0\r\n"));
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"pid\": 4711}").expect("an answer");
        });
        assert_eq!(status_pid(address), Some(4711));
        server.join().expect("answered");
        assert_eq!(status_pid(address), None, "nobody is there any more");
    }
}
