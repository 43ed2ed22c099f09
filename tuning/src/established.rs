//! How many TCP connections the kernel has established on a port, whoever holds them, and whether or not they were
//! accepted. Asked over NETLINK_SOCK_DIAG (sock_diag(7)), which `ss` uses too: the kernel walks all of them, so
//! this is for looking now and then.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
const DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
const ESTABLISHED: u32 = 1 << 1;

/// Counts established connections whose local port is `port`, of the address family of `listen`.
pub fn established(listen: IpAddr, port: u16) -> std::io::Result<u64> {
    let diag =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers at once; this bounds what it would cost if it did not.
    setsockopt(&diag, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    sendto(diag.as_raw_fd(), &request(listen, port), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 64 * 1024];
    let mut count = 0;
    loop {
        match count_in(&diag, &mut buffer)? {
            (more, false) => count += more,
            (more, true) => return Ok(count + more),
        }
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(listen: IpAddr, port: u16) -> Vec<u8> {
    const BYTES: u32 = 72;
    let family: u8 = if listen.is_ipv4() { 2 } else { 10 };
    let mut out = Vec::with_capacity(BYTES as usize);
    out.extend_from_slice(&BYTES.to_ne_bytes());
    out.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&DUMP.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    // Family, protocol (TCP), extensions, padding.
    out.extend_from_slice(&[family, 6, 0, 0]);
    out.extend_from_slice(&ESTABLISHED.to_ne_bytes());
    out.extend_from_slice(&port.to_be_bytes());
    out.resize(BYTES as usize, 0);
    out
}

/// Connections in the next datagram, and whether it was the last.
fn count_in(diag: &OwnedFd, buffer: &mut [u8]) -> std::io::Result<(u64, bool)> {
    let read = recv(diag.as_raw_fd(), buffer, MsgFlags::empty())?;
    let mut rest = &buffer[..read];
    let mut count = 0;
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < HEADER_BYTES || length > rest.len() {
            break;
        }
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            SOCK_DIAG_BY_FAMILY => count += 1,
            NLMSG_DONE => return Ok((count, true)),
            NLMSG_ERROR => return Err(std::io::Error::other("the kernel refuses to list its sockets")),
            _ => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok((count, read == 0))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_of_a_port_are_counted_whether_accepted_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let count = || established(address.ip(), address.port()).expect("counted");
        assert_eq!(count(), 0);
        let clients: Vec<TcpStream> =
            // Fewer than the queue of connections that nobody has accepted has room for.
            (0..100).map(|_| TcpStream::connect(address).expect("connected")).collect();
        let accepted: Vec<TcpStream> = (0..40).map(|_| listener.accept().expect("accepted").0).collect();
        assert_eq!(count(), 100);
        drop(accepted);
        assert!(count() <= 100);
        drop((clients, listener));
    }
}
