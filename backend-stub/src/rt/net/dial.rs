//! Connecting, and streams that are Unix sockets.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Stream, send};

/// What `peer` says of a Unix socket, which has no address.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Stream {
    /// Connects over TCP. It takes as long as the kernel lets it; drop the future to give it up.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        let stream = Self::begin(socket, &addr.into(), addr)?;
        // Nothing to write: the kernel says "not now" until the connection stands, and then why it does not.
        poll_fn(|context| stream.socket.poll_write(context, |socket| send(socket, &[]))).await?;
        Ok(stream)
    }

    /// Connects to a Unix socket: at once, or not at all when its queue is full.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        Self::begin(socket, &SockAddr::unix(path)?, NO_ADDRESS)
    }

    /// Takes over an accepted Unix socket; call it on the executor that will use it.
    pub fn adopt_unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::from_socket(OwnedFd::from(stream).into(), NO_ADDRESS)
    }

    fn begin(socket: Socket, to: &SockAddr, peer: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        match socket.connect(to) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
            _ => Self::from_socket(socket, peer),
        }
    }
}

/// EINPROGRESS: the connection is under way.
const IN_PROGRESS: i32 = nix::errno::Errno::EINPROGRESS as i32;
