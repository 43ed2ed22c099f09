//! Ports on loopback that a test has for itself.
//!
//! Binding port 0 and letting go is not enough here: gateways listen with SO_REUSEPORT, so two that were given one
//! port would share it in silence, and a port of the kernel's own range may be an outgoing connection's by the
//! time of a restart. So a port is taken from below that range, and claimed for as long as the [`Port`] lives by
//! an abstract socket of its name, which the kernel lets go when the process ends, however it ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

use tuning::Host;

use crate::limits;

/// A port, TCP and UDP, that no other test of this machine uses while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

#[derive(Debug, thiserror::Error)]
#[error("no free port on loopback from {low} to {high} after {} tries", limits::PORT_TRIES)]
pub struct NoPort {
    low: u16,
    high: u16,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Port {
    pub fn free() -> Result<Port, NoPort> {
        let low = limits::PORT_LOWEST;
        let high = Host::read().local_ports.map_or(32_767, |range| range.low.saturating_sub(1)).max(low);
        let width = u32::from(high - low) + 1;
        for _ in 0..limits::PORT_TRIES {
            // Processes begin apart, so that they seldom meet; the claim settles it where they do.
            let turn =
                NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(131));
            let number = low + (turn % width) as u16;
            if let Some(port) = Port::claim(number) {
                return Ok(port);
            }
        }
        Err(NoPort { low, high })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }

    fn claim(number: u16) -> Option<Port> {
        let name = UnixAddr::from_abstract_name(format!("moorgate-test-port-{number}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        // Somebody who does not know of claims may have it.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Port { number, _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_bindable() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free().expect("a port")).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        TcpListener::bind(ports[0].address()).expect("the port is free");
    }

    #[test]
    fn a_claim_ends_with_its_port() {
        let port = Port::free().expect("a port");
        let number = port.number();
        assert!(Port::claim(number).is_none(), "claimed twice");
        drop(port);
        assert!(Port::claim(number).is_some(), "the claim outlived its port");
    }

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        let port = Port::free().expect("a port");
        let number = port.number();
        let _stranger = TcpListener::bind(port.address()).expect("the port is free");
        drop(port);
        assert!(Port::claim(number).is_none());
    }
}
