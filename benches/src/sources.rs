//! Where phones connect from: a source address has each local port once for one listener, so many phones need several.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use crate::limits;

/// Addresses in order; empty: planned. Towards 127.0.0.0/8 the plan is 127.1.x.1, elsewhere the kernel chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Arc<[Span]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: IpAddr,
    count: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    #[error("{0} is no address, ADDRESS/BITS or FIRST-LAST")]
    NotUnderstood(String),
    #[error("{0}: more than {max} addresses", max = limits::SOURCES_MAX)]
    TooMany(String),
    #[error("{0} ends before it begins")]
    Reversed(String),
}

impl Sources {
    /// `10.0.0.1,10.0.1.0/24,10.0.2.5-10.0.2.9`.
    pub fn parse(list: &str) -> Result<Self, SourceError> {
        let spans: Result<Vec<Span>, _> = list.split(',').map(|part| span(part.trim())).collect();
        Ok(Self(spans?.into()))
    }

    pub fn is_planned(&self) -> bool {
        self.0.is_empty()
    }

    /// How many addresses there are towards a target.
    pub fn count(&self, target: SocketAddr) -> u64 {
        match self.is_planned() {
            true if is_loopback_v4(target) => limits::SOURCE_ADDRESSES_MAX.into(),
            true => 1,
            false => self.0.iter().map(|span| span.count).sum(),
        }
    }

    /// Where phone `phone` connects from; none: the kernel chooses.
    pub fn of(&self, target: SocketAddr, phone: u32) -> Option<SocketAddr> {
        let turn = u64::from(phone / limits::CONNECTIONS_OF_AN_ADDRESS);
        if self.is_planned() {
            let x = turn % u64::from(limits::SOURCE_ADDRESSES_MAX);
            let planned = Ipv4Addr::new(127, 1, x as u8, 1);
            return is_loopback_v4(target).then(|| SocketAddr::from((planned, 0)));
        }
        Some(SocketAddr::from((self.address(turn % self.count(target))?, 0)))
    }

    /// What is wrong with them towards a target, in words with what mends it.
    pub fn trouble(&self, target: SocketAddr) -> Option<String> {
        let last = self.0.iter().map(|span| span.count).sum::<u64>().checked_sub(1)?;
        for address in [self.address(0)?, self.address(last)?] {
            if address.is_ipv4() != target.is_ipv4() {
                return Some(format!(
                    "--source: {address} cannot reach {target}: one is IPv4, the other IPv6"
                ));
            }
            if let Err(cause) = TcpListener::bind((address, 0)) {
                return Some(format!(
                    "--source: nothing can connect from {address}: {cause}\n  mend: ip address add {address} dev lo \
                     (or the device that leads to {target})"
                ));
            }
        }
        None
    }

    fn address(&self, mut at: u64) -> Option<IpAddr> {
        for span in self.0.iter() {
            if at < span.count {
                return Some(nth(span.first, at));
            }
            at -= span.count;
        }
        None
    }
}

fn is_loopback_v4(target: SocketAddr) -> bool {
    target.is_ipv4() && target.ip().is_loopback()
}

fn nth(first: IpAddr, at: u64) -> IpAddr {
    match first {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(at as u32)).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(at.into())).into(),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn span(text: &str) -> Result<Span, SourceError> {
    let not_understood = || SourceError::NotUnderstood(text.to_owned());
    let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| not_understood());
    let (first, count) = if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (address(first)?, address(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(not_understood());
        }
        let reversed = || SourceError::Reversed(text.to_owned());
        (first, bits(last).checked_sub(bits(first)).ok_or_else(reversed)?.saturating_add(1))
    } else if let Some((base, prefix)) = text.split_once('/') {
        network(address(base)?, prefix.parse().map_err(|_| not_understood())?).ok_or_else(not_understood)?
    } else {
        (address(text)?, 1)
    };
    match u64::try_from(count) {
        Ok(count) if count <= limits::SOURCES_MAX => Ok(Span { first, count }),
        _ => Err(SourceError::TooMany(text.to_owned())),
    }
}

/// The hosts of a network: without its own address and, in IPv4, its broadcast address.
fn network(base: IpAddr, prefix: u32) -> Option<(IpAddr, u128)> {
    let width: u32 = if base.is_ipv4() { 32 } else { 128 };
    let host_bits = width.checked_sub(prefix)?;
    let size = 1u128.checked_shl(host_bits)?;
    let start = bits(base) & !(size - 1);
    let (first, count) = if size > 2 { (start + 1, size - 2) } else { (start, size) };
    let first = match base {
        IpAddr::V4(_) => Ipv4Addr::from_bits(first as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(first).into(),
    };
    Some((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn from(sources: &Sources, phone: u32) -> String {
        sources.of(target("127.0.0.1:7600"), phone).expect("one is chosen").ip().to_string()
    }

    #[test]
    fn without_a_list_sources_are_spread_towards_loopback_only() {
        let planned = Sources::default();
        assert_eq!(
            (from(&planned, 9_999).as_str(), from(&planned, 25_000).as_str()),
            ("127.1.0.1", "127.1.2.1")
        );
        assert_eq!(planned.of(target("10.0.0.1:7600"), 5), None);
        assert_eq!(planned.of(target("[::1]:7600"), 5), None);
        assert_eq!(planned.count(target("10.0.0.1:7600")), 1);
    }

    #[test]
    fn a_list_is_addresses_networks_and_ranges_in_turn() {
        let sources = Sources::parse("127.9.9.9, 127.2.0.0/30,127.3.0.250-127.3.1.5").expect("a list");
        assert_eq!(sources.count(target("127.0.0.1:1")), 1 + 2 + 12);
        let turns: Vec<String> = (0..16).map(|turn| from(&sources, turn * 10_000)).collect();
        assert_eq!(turns[..4], ["127.9.9.9", "127.2.0.1", "127.2.0.2", "127.3.0.250"]);
        assert_eq!((turns[14].as_str(), turns[15].as_str()), ("127.3.1.5", "127.9.9.9"), "and round again");
        assert_eq!(
            Sources::parse("10.0.0.0/8").expect("a network").count(target("10.0.0.1:1")),
            (1 << 24) - 2
        );
        assert_eq!(sources.trouble(target("127.0.0.1:7600")), None);
    }

    #[test]
    fn what_is_no_list_is_told() {
        for (text, told) in [
            ("10.0.0", "is no address"),
            ("10.0.0.1/33", "is no address"),
            ("::/8", "more than"),
            ("10.0.0.9-10.0.0.1", "ends before"),
            ("10.0.0.9-::1", "is no address"),
            ("", "is no address"),
        ] {
            let error = Sources::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        let elsewhere = Sources::parse("203.0.113.7").expect("an address");
        let told = elsewhere.trouble(target("127.0.0.1:7600")).expect("not of this host");
        assert!(told.contains("ip address add 203.0.113.7"), "{told}");
        let six = Sources::parse("::1").expect("an address");
        assert!(six.trouble(target("127.0.0.1:7600")).is_some_and(|told| told.contains("IPv6")));
    }
}
