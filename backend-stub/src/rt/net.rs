//! TCP. One stream is read by one task and written by another of the same thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream as RuntimeStream;
use socket2_runtime::Socket;

use super::{Inbox, InboxSender, inbox};

/// A listening socket. Connections are rare here (one for each shard of each gateway), so a plain thread
/// waits for them: the runtime's own listener shares its port with any process that asks for it, and two
/// backends on one port would go unnoticed.
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
    stream: RefCell<RuntimeStream>,
    /// The same socket, to end it while a read or a write waits.
    control: TcpStream,
    peer: SocketAddr,
}

impl Stream {
    /// Takes over an accepted connection; call it on the executor that will use it.
    pub fn adopt(stream: TcpStream) -> io::Result<Self> {
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let control = stream.try_clone()?;
        Ok(Self { stream: RefCell::new(RuntimeStream::from(Socket::from(stream))), control, peer })
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads what is there, or waits for something. 0: the peer has ended its side.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, into)).await
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written =
                poll_fn(|context| Pin::new(&mut *self.stream.borrow_mut()).poll_write(context, bytes))
                    .await?;
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
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }
}
