//! Sockets for code that reads as synchronous. They are what such crates take: `Read + Write`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;

use super::{try_wait, unblock};
use crate::rt::{self, Inbox, Listener, Stream};

/// A connection. A clone is the same connection: one may read while another writes.
#[derive(Clone)]
pub struct TcpStream(Rc<Shared>);

struct Shared {
    stream: Stream,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

impl TcpStream {
    /// Connects to the first address that accepts; a name is looked up on a thread of its own.
    pub fn connect(to: impl ToSocketAddrs + Send + 'static) -> io::Result<Self> {
        let addrs: Vec<SocketAddr> = unblock(move || to.to_socket_addrs().map(Iterator::collect))??;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for addr in addrs {
            match waited(None, Stream::connect(addr)) {
                Ok(stream) => return Ok(Self::of(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to an address, within a time.
    pub fn connect_timeout(to: &SocketAddr, at_most: Duration) -> io::Result<Self> {
        waited(Some(at_most), Stream::connect(*to)).map(Self::of)
    }

    fn of(stream: Stream) -> Self {
        Self(Rc::new(Shared { stream, read_timeout: Cell::new(None), write_timeout: Cell::new(None) }))
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.0.stream.peer()
    }

    /// A read that takes longer ends in `ErrorKind::TimedOut`.
    pub fn set_read_timeout(&self, at_most: Option<Duration>) {
        self.0.read_timeout.set(at_most);
    }

    /// A write that takes longer ends in `ErrorKind::TimedOut`; how much was written is not known then.
    pub fn set_write_timeout(&self, at_most: Option<Duration>) {
        self.0.write_timeout.set(at_most);
    }

    /// Ends both sides: a read or a write that waits ends too.
    pub fn shutdown(&self) {
        self.0.stream.shutdown();
    }
}

impl Read for &TcpStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        waited(self.0.read_timeout.get(), self.0.stream.read(into))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        waited(self.0.write_timeout.get(), self.0.stream.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A listening socket.
pub struct TcpListener {
    /// `None` only while it is dropped.
    listener: Option<Listener>,
    accepted: RefCell<Inbox<std::net::TcpStream>>,
    ready: RefCell<VecDeque<std::net::TcpStream>>,
    addr: SocketAddr,
}

impl TcpListener {
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let mut listener = Listener::bind(addr)?;
        let (addr, accepted) = (listener.addr(), RefCell::new(listener.start()?));
        Ok(Self { listener: Some(listener), accepted, ready: RefCell::default(), addr })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for a connection. One coroutine at a time.
    pub fn accept(&self) -> io::Result<TcpStream> {
        loop {
            if let Some(stream) = self.ready.borrow_mut().pop_front() {
                return Stream::adopt(stream).map(TcpStream::of);
            }
            let mut accepted = self
                .accepted
                .try_borrow_mut()
                .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another coroutine accepts"))?;
            let came = try_wait(accepted.take()).map_err(io::Error::other)?;
            let came = came.ok_or(io::ErrorKind::NotConnected)?;
            self.ready.borrow_mut().extend(came);
        }
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.close();
        }
    }
}

/// Waits on the coroutine for what may fail, but at most so long.
fn waited<T>(at_most: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let ended = match at_most {
        None => try_wait(work),
        Some(at_most) => try_wait(or(work, async {
            rt::sleep_ms(at_most.as_millis() as u64).await;
            Err(io::ErrorKind::TimedOut.into())
        })),
    };
    ended.map_err(io::Error::other)?
}
