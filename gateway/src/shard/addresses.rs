//! Limits by peer address: how many connections an address may open, and how many of its HELLOs may fail.
//!
//! Sans-I/O, and of a fixed size, whatever comes: an address that is new takes the place of the one that owes least of
//! those that it may replace. Who has used up what it may owes most, so that many addresses seen once only ever replace
//! each other. An address that was forgotten begins anew, with all that it may: a full table errs on the side of phones.
//!
//! A shard has a table of its own, and its share of each limit, since the kernel spreads the connections of an address
//! evenly over the shards, by a hash. How many shards there are is not the operator's choice, so the limits are told of
//! the whole gateway. The spread is as even as chance is: a limit of a few connections may be met some of them early.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use proto_wire::close::Reason;

use crate::config::AddressLimits;
use crate::limits::{ADDRESS_WAYS, ADDRESSES};

const SETS: usize = ADDRESSES / ADDRESS_WAYS;
const _: () = assert!(SETS.is_power_of_two() && SETS * ADDRESS_WAYS == ADDRESSES);

/// What the table of a shard takes.
pub const TABLE_BYTES: usize = size_of::<[Set; SETS]>();

/// The addresses that did something lately.
pub struct Addresses {
    connects: Option<Allowance>,
    failed_hellos: Option<Allowance>,
    limit_loopback: bool,
    sets: Box<[Set]>,
    /// Seeded at random, so that nobody can choose addresses that meet in one set.
    hash: RandomState,
    forgotten: u64,
}

/// Why an address gets no connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    pub of: Limit,
    /// Until there is room again.
    pub wait_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Connects,
    FailedHellos,
}

type Set = [Entry; ADDRESS_WAYS];

/// An address and until when it pays off what it did, in ns since the shard began. Empty: the prefix 0 that owes nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: u64,
    connects_ns: u64,
    failed_hellos_ns: u64,
}

/// So many events in a time, and so many at once: each costs the time that it may come in, and the debt has a bound. (The
/// generic cell rate algorithm: a token bucket that is one number.)
#[derive(Debug, Clone, Copy)]
struct Allowance {
    cost_ns: u64,
    debt_max_ns: u64,
}

const NS_OF_A_SECOND: u64 = 1_000_000_000;

impl Addresses {
    /// The table of one of `shards` that listen there; none when nobody who comes can be limited.
    pub fn new(limits: &AddressLimits, shards: u16, listen: &SocketAddr) -> Option<Self> {
        let AddressLimits { connects_per_s, connect_burst, failed_hellos_per_min, limit_loopback } = *limits;
        let connects = Allowance::share(connects_per_s, NS_OF_A_SECOND, connect_burst, shards);
        let failed_hellos =
            Allowance::share(failed_hellos_per_min, 60 * NS_OF_A_SECOND, failed_hellos_per_min, shards);
        let is_out_of_reach = listen.ip().is_loopback() && !limit_loopback;
        if is_out_of_reach || (connects.is_none() && failed_hellos.is_none()) {
            return None;
        }
        let sets = vec![Set::default(); SETS].into_boxed_slice();
        Some(Self { connects, failed_hellos, limit_loopback, sets, hash: RandomState::new(), forgotten: 0 })
    }

    /// A connection came. An error: it is one too many.
    pub fn connect(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), Excess> {
        let Some(key) = self.key(peer) else { return Ok(()) };
        let now_ns = ns(now_ms);
        if let Some(failed_hellos) = self.failed_hellos
            && let Some(entry) = self.find(key)
        {
            failed_hellos.room(entry.failed_hellos_ns, now_ns).map_err(Excess::of(Limit::FailedHellos))?;
        }
        if let Some(connects) = self.connects {
            let entry = self.entry(key, now_ns);
            connects.room(entry.connects_ns, now_ns).map_err(Excess::of(Limit::Connects))?;
            entry.connects_ns = connects.charged(entry.connects_ns, now_ns);
        }
        Ok(())
    }

    /// A connection of this address ended before it was welcomed, by its peer's fault. True: it counts.
    pub fn fail_hello(&mut self, peer: IpAddr, now_ms: u64) -> bool {
        let Some((failed_hellos, key)) = self.failed_hellos.zip(self.key(peer)) else { return false };
        let entry = self.entry(key, ns(now_ms));
        entry.failed_hellos_ns = failed_hellos.charged(entry.failed_hellos_ns, ns(now_ms));
        true
    }

    /// Addresses that were replaced though they still owed something.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What is counted of an address: all of IPv4, and the /64 of IPv6, which is what one customer has. None: it is not limited.
    fn key(&self, peer: IpAddr) -> Option<u64> {
        let peer = peer.to_canonical();
        if peer.is_loopback() && !self.limit_loopback {
            return None;
        }
        Some(match peer {
            // As an IPv6 listener writes it, in a /64 that nobody has.
            IpAddr::V4(v4) => 0xffff << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        })
    }

    fn set(&mut self, key: u64) -> &mut Set {
        let at = self.hash.hash_one(key) as usize % SETS;
        &mut self.sets[at]
    }

    fn find(&mut self, key: u64) -> Option<&mut Entry> {
        self.set(key).iter_mut().find(|entry| entry.key == key)
    }

    /// The entry of an address. One that is new takes the place of the one that owes least, often nothing at all.
    fn entry(&mut self, key: u64, now_ns: u64) -> &mut Entry {
        let at = self.hash.hash_one(key) as usize % SETS;
        let Self { sets, forgotten, .. } = self;
        let set = &mut sets[at];
        let mut least = 0;
        for way in 0..ADDRESS_WAYS {
            if set[way].key == key {
                return &mut set[way];
            }
            if set[way].owes_until_ns() < set[least].owes_until_ns() {
                least = way;
            }
        }
        *forgotten += u64::from(set[least].owes_until_ns() > now_ns);
        set[least] = Entry { key, ..Entry::default() };
        &mut set[least]
    }
}

/// Whether a connection that ends so before it was welcomed counts as a HELLO that failed. A ticket that is not good any
/// more does not, since the phone comes back with its token; nor does a peer that goes, as phones in bad networks and health
/// checks do.
pub fn is_failed_hello(reason: Reason) -> bool {
    use Reason::{BadFrame, BadToken, ExpiredToken, FrameTooLarge, HelloTimeout, OutOfPlace, Version};
    matches!(reason, BadFrame | BadToken | ExpiredToken | FrameTooLarge | HelloTimeout | OutOfPlace | Version)
}

impl Excess {
    fn of(of: Limit) -> impl Fn(u64) -> Self {
        move |wait_ns| Self { of, wait_ms: wait_ns.div_ceil(1_000_000) }
    }

    /// What the phone and the log are told.
    pub fn text(&self) -> &'static str {
        match self.of {
            Limit::Connects => "too many new connections from this address",
            Limit::FailedHellos => "too many failed HELLOs from this address",
        }
    }
}

impl Entry {
    fn owes_until_ns(&self) -> u64 {
        self.connects_ns.max(self.failed_hellos_ns)
    }
}

impl Allowance {
    /// A shard's share of so many events in `time_ns` and `burst` at once; none when there is no limit. At least one.
    fn share(events: u32, time_ns: u64, burst: u32, shards: u16) -> Option<Self> {
        let shards = shards.max(1);
        let cost_ns = (time_ns * u64::from(shards)).checked_div(u64::from(events))?;
        let burst = burst.div_ceil(shards.into()).max(1);
        Some(Self { cost_ns, debt_max_ns: cost_ns.saturating_mul(burst.into()) })
    }

    /// Whether one more may come. An error: the time until it may.
    fn room(&self, owes_until_ns: u64, now_ns: u64) -> Result<(), u64> {
        let owes_then_ns = owes_until_ns.max(now_ns).saturating_add(self.cost_ns);
        match owes_then_ns.saturating_sub(now_ns.saturating_add(self.debt_max_ns)) {
            0 => Ok(()),
            wait_ns => Err(wait_ns),
        }
    }

    /// Until when is owed after one more. What comes beyond the bound costs nothing more: nobody is shut out for longer.
    fn charged(&self, owes_until_ns: u64, now_ns: u64) -> u64 {
        let owes_then_ns = owes_until_ns.max(now_ns).saturating_add(self.cost_ns);
        owes_then_ns.min(now_ns.saturating_add(self.debt_max_ns))
    }
}

fn ns(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: AddressLimits = AddressLimits {
        connects_per_s: 10,
        connect_burst: 5,
        failed_hellos_per_min: 6,
        limit_loopback: false,
    };

    fn table_of(limits: AddressLimits, shards: u16) -> Addresses {
        let listen = SocketAddr::from(([0, 0, 0, 0], 1));
        Addresses::new(&limits, shards, &listen).expect("there are limits")
    }

    fn table() -> Addresses {
        table_of(LIMITS, 1)
    }

    fn v4(at: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + at).into()
    }

    fn connects(table: &mut Addresses, peer: IpAddr, now_ms: u64) -> usize {
        (0..1000).take_while(|_| table.connect(peer, now_ms).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_after_it_the_rate() {
        let mut table = table();
        assert_eq!(connects(&mut table, v4(1), 7), 5);
        assert_eq!(table.connect(v4(1), 7), Err(Excess { of: Limit::Connects, wait_ms: 100 }));
        assert_eq!(table.connect(v4(1), 47), Err(Excess { of: Limit::Connects, wait_ms: 60 }));
        assert_eq!(connects(&mut table, v4(1), 107), 1);
        assert_eq!(connects(&mut table, v4(1), 507), 4);
        assert_eq!(connects(&mut table, v4(1), 1_000_000), 5, "no more than a burst is saved up");
    }

    #[test]
    fn who_fails_gets_no_connection_until_a_hello_may_fail_again() {
        let mut table = table();
        for _ in 0..5 {
            assert!(table.fail_hello(v4(1), 0) && table.connect(v4(1), 0).is_ok());
        }
        // More of them at once do not shut the address out for longer.
        (0..100).for_each(|_| assert!(table.fail_hello(v4(1), 0)));
        assert_eq!(table.connect(v4(1), 5_000), Err(Excess { of: Limit::FailedHellos, wait_ms: 5_000 }));
        assert_eq!(table.connect(v4(1), 10_000), Ok(()));
        assert_eq!(table.connect(v4(2), 0), Ok(()));
    }

    #[test]
    fn other_addresses_and_other_64s_are_others() {
        let mut table = table();
        let mapped = |at: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + at).to_ipv6_mapped());
        let v6 = |prefix: u16, at: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, prefix, 9, 9, 9, at));
        assert_eq!(connects(&mut table, v4(1), 0), 5);
        assert_eq!(connects(&mut table, mapped(1), 0), 0, "the same as an IPv6 listener writes it");
        assert_eq!(connects(&mut table, mapped(2), 0), 5);
        assert_eq!(connects(&mut table, v6(1, 1), 0), 5);
        assert_eq!(connects(&mut table, v6(1, 2), 0), 0);
        assert_eq!(connects(&mut table, v6(2, 1), 0), 5);
    }

    #[test]
    fn this_host_is_limited_only_when_that_is_asked_for() {
        let here = [IpAddr::from(Ipv4Addr::new(127, 9, 9, 9)), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let (mut spares, mut limits) =
            (table(), table_of(AddressLimits { limit_loopback: true, ..LIMITS }, 1));
        for peer in here {
            assert_eq!((connects(&mut spares, peer, 0), connects(&mut limits, peer, 0)), (1000, 5));
            assert!(!spares.fail_hello(peer, 0));
        }
        let listen = |ip: [u8; 4]| SocketAddr::from((ip, 1));
        assert!(Addresses::new(&LIMITS, 1, &listen([127, 0, 0, 1])).is_none(), "nobody else can come");
        let mut lifted = AddressLimits { limit_loopback: true, ..LIMITS };
        lifted.lift();
        assert!(Addresses::new(&lifted, 1, &listen([0, 0, 0, 0])).is_none());
    }

    #[test]
    fn each_limit_is_lifted_by_itself() {
        let mut table = table_of(AddressLimits { connects_per_s: 0, ..LIMITS }, 1);
        assert_eq!(connects(&mut table, v4(1), 0), 1000);
        (0..6).for_each(|_| assert!(table.fail_hello(v4(1), 0)));
        assert_eq!(connects(&mut table, v4(1), 0), 0);
        let mut table = table_of(AddressLimits { failed_hellos_per_min: 0, ..LIMITS }, 1);
        assert!(!table.fail_hello(v4(1), 0));
        assert_eq!(connects(&mut table, v4(1), 0), 5);
    }

    #[test]
    fn a_shard_keeps_its_share() {
        let mut table = table_of(AddressLimits { connect_burst: 10, ..LIMITS }, 4);
        assert_eq!(connects(&mut table, v4(1), 0), 3, "10 of 4 shards");
        assert_eq!(connects(&mut table, v4(1), 399), 0);
        assert_eq!(connects(&mut table, v4(1), 400), 1, "2.5 a second");
    }

    #[test]
    fn many_addresses_do_not_make_the_table_forget_who_owes_most() {
        let mut table = table();
        (0..6).for_each(|_| assert!(table.fail_hello(v4(0), 0)));
        assert_eq!(connects(&mut table, v4(1), 0), 5);
        for at in 2..20 * ADDRESSES as u32 {
            assert_eq!(table.connect(v4(at), 0), Ok(()));
        }
        assert!(table.forgotten() > 0);
        assert_eq!(table.connect(v4(0), 0).map_err(|excess| excess.of), Err(Limit::FailedHellos));
        assert_eq!(table.connect(v4(1), 0).map_err(|excess| excess.of), Err(Limit::Connects));
    }

    #[test]
    fn who_owes_nothing_any_more_is_replaced_without_loss() {
        let mut table = table();
        for at in 0..20 * ADDRESSES as u32 {
            assert_eq!(table.connect(v4(at), u64::from(at) * 100), Ok(()));
        }
        assert_eq!(table.forgotten(), 0);
    }

    /// What an address owes by a count of its own, which nobody else can touch.
    #[derive(Default)]
    struct Model {
        connects_ns: u64,
        failed_hellos_ns: u64,
    }

    fn charge(owes_ns: &mut u64, now_ns: u64, cost_ns: u64, most: u64) {
        *owes_ns = ((*owes_ns).max(now_ns) + cost_ns).min(now_ns + most * cost_ns);
    }

    fn has_room(owes_ns: u64, now_ns: u64, cost_ns: u64, most: u64) -> bool {
        owes_ns.max(now_ns) + cost_ns <= now_ns + most * cost_ns
    }

    const CONNECT_NS: u64 = NS_OF_A_SECOND / 10;
    const FAILED_NS: u64 = 10 * NS_OF_A_SECOND;

    /// Steps of these addresses, in time: (address, ms since the step before, whether it is a HELLO that failed).
    fn run(steps: Vec<(u32, u64, bool)>, is_whole: bool) -> Result<(), TestCaseError> {
        let (mut table, mut models, mut now_ms) = (table(), HashMap::<u32, Model>::new(), 0);
        for (at, passed_ms, fails) in steps {
            now_ms += passed_ms;
            let (model, now_ns) = (models.entry(at).or_default(), ns(now_ms));
            if fails {
                table.fail_hello(v4(at), now_ms);
                charge(&mut model.failed_hellos_ns, now_ns, FAILED_NS, 6);
                continue;
            }
            let may = has_room(model.failed_hellos_ns, now_ns, FAILED_NS, 6)
                && has_room(model.connects_ns, now_ns, CONNECT_NS, 5);
            let got = table.connect(v4(at), now_ms).is_ok();
            if is_whole {
                prop_assert_eq!(got, may, "address {} at {} ms", at, now_ms);
            }
            prop_assert!(got || !may, "address {} is refused at {} ms for what others did", at, now_ms);
            if got {
                charge(&mut model.connects_ns, now_ns, CONNECT_NS, 5);
            }
        }
        Ok(())
    }

    proptest! {
        /// As many as one set has places can never drive each other out.
        #[test]
        fn few_addresses_get_exactly_what_their_buckets_give(
            steps in proptest::collection::vec((0..ADDRESS_WAYS as u32, 0u64..200, prop::bool::weighted(0.2)), 1..400)
        ) {
            run(steps, true)?;
        }

        #[test]
        fn nobody_is_refused_for_what_others_do(
            steps in proptest::collection::vec((0u32..60_000, 0u64..3, prop::bool::weighted(0.3)), 10_000..20_000)
        ) {
            run(steps, false)?;
        }
    }
}
