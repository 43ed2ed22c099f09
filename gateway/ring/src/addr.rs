//! Socket addresses in the kernel's form and back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address family of a socket. A socket accepted by an IPv6 listener is of IPv6 even when the peer's
/// address is an IPv4 one (it is then given mapped).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(addr: &SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn domain(self) -> i32 {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }
    }

    /// sizeof(struct sockaddr_in) and sizeof(struct sockaddr_in6).
    pub(crate) fn sockaddr_bytes(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 28,
        }
    }
}

/// A sockaddr_in or sockaddr_in6, with its true length.
#[repr(C, align(8))]
#[derive(Clone, Debug)]
pub(crate) struct RawAddr {
    bytes: [u8; 28],
    len: u32,
}

const _: () = assert!(size_of::<libc::sockaddr_in>() == 16 && size_of::<libc::sockaddr_in6>() == 28);

impl RawAddr {
    pub fn new(addr: &SocketAddr) -> Self {
        let mut raw = Self::empty(Family::of(addr));
        raw.bytes[0..2].copy_from_slice(&(Family::of(addr).domain() as u16).to_ne_bytes());
        raw.bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => raw.bytes[4..8].copy_from_slice(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                raw.bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
                raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        raw
    }

    /// Room for the kernel to write an address of this family into.
    pub fn empty(family: Family) -> Self {
        Self { bytes: [0; 28], len: family.sockaddr_bytes() }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// What stands here, when it is an IP address.
    pub fn decode(&self) -> Option<SocketAddr> {
        let b = &self.bytes;
        let port = u16::from_be_bytes([b[2], b[3]]);
        match i32::from(u16::from_ne_bytes([b[0], b[1]])) {
            libc::AF_INET => {
                let ip = Ipv4Addr::new(b[4], b[5], b[6], b[7]);
                Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
            }
            libc::AF_INET6 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&b[8..24]);
                let flow = u32::from_be_bytes([b[4], b[5], b[6], b[7]]);
                let scope = u32::from_ne_bytes([b[24], b[25], b[26], b[27]]);
                Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:80", "10.1.2.3:65535", "[::1]:443", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            let raw = RawAddr::new(&addr);
            assert_eq!(raw.decode(), Some(addr));
            assert_eq!(raw.len(), Family::of(&addr).sockaddr_bytes());
        }
        assert_eq!(RawAddr::empty(Family::V6).decode(), None);
    }
}
