//! The connections to one endpoint.

use std::rc::{Rc, Weak};

use proto_wire::rpc::caller::Request;
use proto_wire::rpc::client::Address;

use super::calls::Ended;
use super::config::{ClientConfig, Transport};
use super::link::{Link, Watcher};
use super::short::Shorts;
use super::udp::Datagrams;
use crate::clock::Clock;

/// One endpoint, and what carries calls to it.
pub(super) struct Pool {
    pub id: u32,
    way: Way,
}

enum Way {
    Long(Vec<Rc<Link>>),
    Short(Rc<Shorts>),
    Udp(Rc<Datagrams>),
}

impl Pool {
    pub fn start(
        id: u32,
        address: &Address,
        config: &ClientConfig,
        seed: u64,
        clock: Clock,
        watcher: &Weak<dyn Watcher>,
    ) -> Self {
        let link = |nth| {
            let seed = seed.wrapping_add(nth as u64);
            Link::start(id, address.clone(), config.caller(), seed, clock, watcher.clone())
        };
        let way = match (config.transport, address) {
            (Transport::Short, _) => Way::Short(Shorts::new(address.clone(), config.caller(), clock)),
            (Transport::Udp, Address::Inet(to)) => {
                Way::Udp(Datagrams::start(*to, config.datagrams(), config.caller(), seed, clock))
            }
            // No Unix socket stands in a list for UDP: it was checked.
            (Transport::Long | Transport::Udp, _) => Way::Long((0..config.connections).map(link).collect()),
        };
        Self { id, way }
    }

    /// Makes one attempt at a call.
    pub async fn call(&self, request: &Request<'_>) -> Ended {
        match &self.way {
            Way::Long(links) => {
                // There is at least one: the configuration was checked.
                let link = links.iter().min_by_key(|link| (!link.is_up(), link.calls()));
                let link = link.expect("a pool has links");
                link.call(request)?.await
            }
            Way::Short(shorts) => shorts.call(request).await,
            Way::Udp(datagrams) => datagrams.call(request).await,
        }
    }

    /// Whether a connection other than `link` takes calls.
    pub fn is_up_without(&self, link: &Link) -> bool {
        self.links().any(|other| !std::ptr::eq(&**other, link) && other.is_up())
    }

    /// Calls made and not ended.
    pub fn calls(&self) -> usize {
        match &self.way {
            Way::Long(links) => links.iter().map(|link| link.calls()).sum(),
            Way::Short(shorts) => shorts.calls(),
            Way::Udp(datagrams) => datagrams.calls() + datagrams.link().calls(),
        }
    }

    pub fn connect(&self) {
        self.links().for_each(|link| link.connect());
    }

    pub fn handle_timeout(&self, now_ms: u64) {
        match &self.way {
            Way::Long(links) => links.iter().for_each(|link| link.handle_timeout(now_ms)),
            Way::Short(shorts) => shorts.handle_timeout(now_ms),
            Way::Udp(datagrams) => {
                datagrams.handle_timeout(now_ms);
                datagrams.link().handle_timeout(now_ms);
            }
        }
    }

    pub fn poll_timeout(&self) -> u64 {
        match &self.way {
            Way::Long(links) => links.iter().map(|link| link.poll_timeout()).min().unwrap_or(u64::MAX),
            Way::Short(shorts) => shorts.poll_timeout(),
            Way::Udp(datagrams) => datagrams.poll_timeout().min(datagrams.link().poll_timeout()),
        }
    }

    pub fn late_replies(&self) -> u64 {
        match &self.way {
            Way::Long(links) => links.iter().map(|link| link.late_replies()).sum(),
            Way::Short(_) => 0,
            Way::Udp(datagrams) => datagrams.late_replies() + datagrams.link().late_replies(),
        }
    }

    pub fn resent(&self) -> u64 {
        match &self.way {
            Way::Udp(datagrams) => datagrams.resent(),
            Way::Long(_) | Way::Short(_) => 0,
        }
    }

    pub fn close(&self) {
        match &self.way {
            Way::Long(links) => links.iter().for_each(|link| link.close()),
            Way::Short(shorts) => shorts.close(),
            Way::Udp(datagrams) => {
                datagrams.close();
                datagrams.link().close();
            }
        }
    }

    /// The connections whose state is the endpoint's: those beside UDP are not.
    fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        let links: &[Rc<Link>] = match &self.way {
            Way::Long(links) => links,
            Way::Short(_) | Way::Udp(_) => &[],
        };
        links.iter()
    }
}
