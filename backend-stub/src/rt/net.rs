//! TCP. One stream is read by one task and written by another of the same thread.

mod dial;

use std::future::poll_fn;
use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::Socket;

use super::{Inbox, InboxSender, Watched, inbox};

/// A listening socket. Connections are rare here (one for each shard of each gateway), so a plain thread waits for them.
pub struct Listener {
    socket: Socket,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// After an accept that failed for want of descriptors: no storm of the same error.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

impl Listener {
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok(Self { socket: listener.into(), addr, thread: None })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts until `close`. Each connection goes to the inbox, to be taken over by [`Stream::adopt`].
    pub fn start(&mut self) -> io::Result<Inbox<TcpStream>> {
        let (sender, inbox) = inbox();
        let listener: TcpListener = self.socket.try_clone()?.into();
        let thread =
            thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &sender))?;
        self.thread = Some(thread);
        Ok(inbox)
    }

    /// Accepts no more.
    pub fn close(mut self) {
        // Wakes the accept with an error; it fails only when the socket is not listening any more.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; nothing more hangs on it.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, sender: &InboxSender<TcpStream>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => sender.put(stream),
            // The socket was shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

/// A connection.
pub struct Stream {
    socket: Watched<Socket>,
    peer: SocketAddr,
}

impl Stream {
    /// Takes over an accepted connection; call it on the executor that will use it.
    pub fn adopt(stream: TcpStream) -> io::Result<Self> {
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Self::from_socket(stream.into(), peer)
    }

    /// One that does not block.
    fn from_socket(socket: Socket, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Watched::new(socket)?, peer })
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads what is there, or waits for something. 0: the peer has ended its side.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = poll_fn(|context| self.socket.poll_read(context, |mut socket| socket.read(into))).await?;
        if read < into.len() {
            // What came meanwhile is told: one receive a turn is enough.
            self.socket.was_drained();
        }
        Ok(read)
    }

    /// Writes what the kernel takes at this moment, which may be nothing.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match send(&self.socket.io, bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            written => written,
        }
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written =
                poll_fn(|context| self.socket.poll_write(context, |socket| send(socket, bytes))).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ends both sides: a read or a write that waits ends too.
    pub fn shutdown(&self) {
        // Fails only when the peer has reset it, which is an end as well.
        let _ = self.socket.io.shutdown(Shutdown::Both);
    }
}

/// A peer that has gone is an error, and no signal: Rust programs ignore that one.
fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send(bytes)
}
