//! The socket of one phone: a thread that reads, writes from the phone's own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use proto_wire::phone::Ended;

use super::Input;

/// Sockets one after another, told apart by number.
pub(super) struct Wire {
    target: SocketAddr,
    sender: SyncSender<Input>,
    number: u64,
    /// Set by the thread that connects.
    socket: Arc<Mutex<Option<TcpStream>>>,
}

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A server that does not read is as good as none.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

impl Wire {
    pub fn new(target: SocketAddr, sender: SyncSender<Input>) -> Self {
        Self { target, sender, number: 0, socket: Arc::default() }
    }

    pub fn is_current(&self, number: u64) -> bool {
        self.number == number
    }

    /// Connects, to another address when the server said so and it is one.
    pub fn connect(&mut self, to: Option<&str>) {
        self.drop_socket();
        let target = to.and_then(|to| crate::cli::resolve(to).ok()).unwrap_or(self.target);
        let (number, sender) = (self.number, self.sender.clone());
        self.socket = Arc::default();
        let socket = self.socket.clone();
        thread::spawn(move || read(target, number, &socket, &sender));
    }

    pub fn send(&mut self, bytes: Vec<u8>) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = socket.as_mut()
            && stream.write_all(&bytes).is_err()
        {
            // The reader sees the end of it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes the socket; nothing more of it is heard.
    pub fn drop_socket(&mut self) {
        self.number += 1;
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = socket {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn read(target: SocketAddr, number: u64, socket: &Mutex<Option<TcpStream>>, sender: &SyncSender<Input>) {
    let opened = TcpStream::connect_timeout(&target, CONNECT_WITHIN).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WITHIN))?;
        Ok((stream.try_clone()?, stream))
    });
    let Ok((mut reader, writer)) = opened else {
        let _ = sender.send(Input::Closed(number, Ended::ConnectFailed));
        return;
    };
    *socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    if sender.send(Input::Connected(number)).is_err() {
        return;
    }
    let mut buffer = vec![0; 16 * 1024];
    let ended = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ended::Eof,
            Ok(count) => {
                if sender.send(Input::Bytes(number, buffer[..count].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break Ended::Reset,
        }
    };
    let _ = sender.send(Input::Closed(number, ended));
}
