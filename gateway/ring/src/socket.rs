//! Listeners and client sockets, with the options that a connection lives by.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::addr::{Family, RawAddr};

/// Options of a TCP connection. An accepted socket inherits them from its listener (Linux 6.18, test
/// `an_accepted_socket_inherits_the_listeners_options`). What is absent is left to the kernel.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    pub nodelay: bool,
    /// How long sent bytes may stay without an acknowledgement before the connection is given up.
    pub user_timeout_ms: Option<u32>,
    pub keepalive: Option<Keepalive>,
    /// A socket with more unsent bytes than this is not writable.
    pub notsent_lowat_bytes: Option<u32>,
    /// The kernel doubles it for its own overhead.
    pub send_buffer_bytes: Option<u32>,
    /// The kernel doubles it for its own overhead.
    pub receive_buffer_bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle_s: u32,
    pub interval_s: u32,
    pub probes: u32,
}

#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Every shard listens on the same port, each with an accept queue of its own.
    pub reuse_port: bool,
    pub backlog: u32,
    /// An IPv6 listener takes IPv6 only.
    pub v6_only: bool,
    pub stream: StreamOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { reuse_port: false, backlog: 4096, v6_only: false, stream: StreamOptions::default() }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// The source address. With port 0 the port is chosen at the connect, so that one address has its ports
    /// once for every destination (IP_BIND_ADDRESS_NO_PORT).
    pub source: Option<SocketAddr>,
    pub stream: StreamOptions,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{addr} is in use by another process; see who has it with: ss -ltnp 'sport = :{port}'", port = addr.port())]
    InUse { addr: SocketAddr },
    #[error("{addr} is not an address of this machine; see them with: ip addr")]
    NotHere { addr: SocketAddr },
    #[error(
        "port {port} needs a privilege: run with CAP_NET_BIND_SERVICE, or sysctl -w \
         net.ipv4.ip_unprivileged_port_start={port}",
        port = addr.port()
    )]
    Denied { addr: SocketAddr },
    #[error("cannot listen on {addr}")]
    Socket { addr: SocketAddr, source: SocketError },
}

#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct SocketError {
    call: &'static str,
    source: io::Error,
}

/// A listening socket. Port 0 lets the kernel choose one.
pub fn listener(addr: SocketAddr, options: &ListenOptions) -> Result<TcpListener, ListenError> {
    open_listener(addr, options).map_err(|source| match source.source.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::InUse { addr },
        Some(libc::EADDRNOTAVAIL) => ListenError::NotHere { addr },
        Some(libc::EACCES) => ListenError::Denied { addr },
        _ => ListenError::Socket { addr, source },
    })
}

/// An unconnected TCP socket, for [`Ring::install`](crate::Ring::install) and
/// [`Ring::connect`](crate::Ring::connect).
pub fn client_socket(family: Family, options: &ClientOptions) -> Result<OwnedFd, SocketError> {
    let fd = open(family)?;
    apply(&fd, &options.stream)?;
    if let Some(source) = &options.source {
        set(&fd, "IP_BIND_ADDRESS_NO_PORT", libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        bind(&fd, source)?;
    }
    Ok(fd)
}

fn open_listener(addr: SocketAddr, options: &ListenOptions) -> Result<TcpListener, SocketError> {
    let fd = open(Family::of(&addr))?;
    set(&fd, "SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if options.reuse_port {
        set(&fd, "SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if addr.is_ipv6() {
        set(&fd, "IPV6_V6ONLY", libc::SOL_IPV6, libc::IPV6_V6ONLY, options.v6_only.into())?;
    }
    // Before listen: the receive buffer decides the window scale of the handshake.
    apply(&fd, &options.stream)?;
    bind(&fd, &addr)?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    // SAFETY: plain numbers only.
    done("listen", unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(fd))
}

fn open(family: Family) -> Result<OwnedFd, SocketError> {
    // SAFETY: plain numbers only.
    let fd =
        unsafe { libc::socket(family.domain(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP) };
    done("socket", fd)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(fd: &OwnedFd, addr: &SocketAddr) -> Result<(), SocketError> {
    let raw = RawAddr::new(addr);
    // SAFETY: `raw` is a sockaddr of the length given, alive through the call.
    done("bind", unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr().cast(), raw.len()) })
}

fn apply(fd: &OwnedFd, options: &StreamOptions) -> Result<(), SocketError> {
    const TCP: i32 = libc::IPPROTO_TCP;
    const SOCKET: i32 = libc::SOL_SOCKET;
    if options.nodelay {
        set(fd, "TCP_NODELAY", TCP, libc::TCP_NODELAY, 1)?;
    }
    if let Some(keepalive) = options.keepalive {
        set(fd, "SO_KEEPALIVE", SOCKET, libc::SO_KEEPALIVE, 1)?;
        set(fd, "TCP_KEEPIDLE", TCP, libc::TCP_KEEPIDLE, keepalive.idle_s)?;
        set(fd, "TCP_KEEPINTVL", TCP, libc::TCP_KEEPINTVL, keepalive.interval_s)?;
        set(fd, "TCP_KEEPCNT", TCP, libc::TCP_KEEPCNT, keepalive.probes)?;
    }
    let numbers = [
        ("TCP_USER_TIMEOUT", TCP, libc::TCP_USER_TIMEOUT, options.user_timeout_ms),
        ("TCP_NOTSENT_LOWAT", TCP, libc::TCP_NOTSENT_LOWAT, options.notsent_lowat_bytes),
        ("SO_SNDBUF", SOCKET, libc::SO_SNDBUF, options.send_buffer_bytes),
        ("SO_RCVBUF", SOCKET, libc::SO_RCVBUF, options.receive_buffer_bytes),
    ];
    for (call, level, name, value) in numbers {
        if let Some(value) = value {
            set(fd, call, level, name, value)?;
        }
    }
    Ok(())
}

fn set(fd: &OwnedFd, call: &'static str, level: i32, name: i32, value: u32) -> Result<(), SocketError> {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    // SAFETY: the option's value is the i32 `value`, alive through the call, with its true length.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
    done(call, result)
}

fn done(call: &'static str, result: i32) -> Result<(), SocketError> {
    if result < 0 { Err(SocketError { call, source: io::Error::last_os_error() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_the_command_that_tells_who_has_it() {
        let first = listener("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
        let error = listener(first.local_addr().unwrap(), &ListenOptions::default()).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }));
        assert!(error.to_string().contains("ss -ltnp"));
        let error = listener("192.0.2.1:0".parse().unwrap(), &ListenOptions::default()).unwrap_err();
        assert!(matches!(error, ListenError::NotHere { .. }));
    }

    #[test]
    fn shards_share_a_port() {
        let options = ListenOptions { reuse_port: true, ..Default::default() };
        let first = listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        assert!(listener(first.local_addr().unwrap(), &options).is_ok());
    }
}
