//! What the backend counts. The loop is the only writer of a number; the admin thread reads them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proto_wire::rpc::method::Method;
use proto_wire::services;
use proto_wire::status::Code;

use crate::logic::Counters;
use crate::storage::Waited;

/// Codes that are counted apart; what is beyond falls into the last place.
pub const CODES: usize = 18;

/// Services that call, by their number in the header; what is beyond falls into the last place.
pub const CALLERS: [&str; 4] = ["unnamed", "gateway", "backend", "other"];

/// Buckets of a histogram: up to 1 us, 2 us, 4 us ... 2^24 us (17 s), and beyond.
pub const BUCKETS: usize = 26;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        // One writer: a load and a store are enough, and cost no locked instruction.
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Times in powers of two of a microsecond.
#[derive(Debug, Default)]
pub struct Histogram {
    pub buckets: [Count; BUCKETS],
    pub sum_us: Count,
}

impl Histogram {
    pub fn record(&self, us: u64) {
        let bucket = match us {
            0 | 1 => 0,
            _ => (64 - (us - 1).leading_zeros() as usize).min(BUCKETS - 1),
        };
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Count::value).sum()
    }
}

/// One method.
#[derive(Debug, Default)]
pub struct MethodStats {
    /// Ends by code.
    pub codes: [Count; CODES],
    /// Calls by the service that made them.
    pub callers: [Count; CALLERS.len()],
    pub in_bytes: Count,
    pub out_bytes: Count,
    /// From the arrival of the bytes to the handler's first step.
    pub queue: Histogram,
    /// From there to the answer, commits included.
    pub service: Histogram,
}

impl MethodStats {
    pub fn ended(&self, code: Code) {
        self.codes[usize::from(code.0).min(CODES - 1)].add(1);
    }

    pub fn called_by(&self, service: u16) {
        self.callers[usize::from(service).min(CALLERS.len() - 1)].add(1);
    }

    pub fn calls(&self) -> u64 {
        self.codes.iter().map(Count::value).sum()
    }
}

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Close { $($(#[$doc])* $name,)* }

        impl Close {
            pub const ALL: &[Close] = &[$(Close::$name,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Close::$name => $text,)* }
            }
        }
    };
}

closes! {
    /// The peer closed it, or it was reset.
    Peer = "peer";
    /// The peer closed it in the middle of a frame.
    CutShort = "cut_short";
    BadMagic = "bad_magic";
    BadVersion = "bad_version";
    BadHeader = "bad_header";
    /// A length over its limit.
    TooLong = "too_long";
    /// Frames in an order that no honest peer sends.
    Misbehaved = "misbehaved";
    /// The peer does not read.
    SlowReader = "slow_reader";
    /// A ping was not answered.
    Dead = "dead";
    /// There were too many connections.
    TooMany = "too_many";
    /// The backend stops.
    Stop = "stop";
}

/// How the store is at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreState {
    pub is_full: bool,
    pub waited: Waited,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Stats {
    /// As the table that it was made with, then one for numbers that no method has.
    pub methods: Vec<MethodStats>,
    /// Where a number's are: by its high byte, then its low one.
    places: Vec<Vec<u16>>,
    pub accepted: Count,
    pub connections: Count,
    pub closes: [Count; Close::ALL.len()],
    pub in_bytes: Count,
    pub out_bytes: Count,
    pub reads: Count,
    pub writes: Count,
    pub turns: Count,
    /// Calls to gateways that were made, and that did not end well.
    pub notifies: Count,
    pub notifies_failed: Count,
    /// Notices for all phones, once for each gateway.
    pub broadcasts: Count,
    pub broadcasts_failed: Count,
    pub hashes_refused: Count,
    /// When the loop last came round, on the clock of the process.
    pub beat_ms: Count,
    published: Mutex<(Counters, StoreState)>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::of(services::METHODS)
    }
}

impl Stats {
    /// For a server of these methods.
    pub fn of(table: &[&Method]) -> Self {
        Self {
            methods: (0..=table.len()).map(|_| MethodStats::default()).collect(),
            places: places(table),
            accepted: Count::default(),
            connections: Count::default(),
            closes: Default::default(),
            in_bytes: Count::default(),
            out_bytes: Count::default(),
            reads: Count::default(),
            writes: Count::default(),
            turns: Count::default(),
            notifies: Count::default(),
            notifies_failed: Count::default(),
            broadcasts: Count::default(),
            broadcasts_failed: Count::default(),
            hashes_refused: Count::default(),
            beat_ms: Count::default(),
            published: Mutex::default(),
        }
    }

    pub fn method(&self, id: u16) -> &MethodStats {
        let place = self.places.get(usize::from(id >> 8)).and_then(|low| low.get(usize::from(id & 0xff)));
        &self.methods[place.map_or(self.methods.len() - 1, |&place| usize::from(place))]
    }

    pub fn closed(&self, close: Close) {
        self.closes[close as usize].add(1);
    }

    /// Copies what the core counts, and how its store is, for other threads.
    pub fn publish(&self, core: &Counters, store: StoreState) {
        *self.published.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (*core, store);
    }

    pub fn published(&self) -> (Counters, StoreState) {
        *self.published.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The place of each number, and the one behind all methods for numbers that none has.
fn places(table: &[&Method]) -> Vec<Vec<u16>> {
    let mut places: Vec<Vec<u16>> = Vec::new();
    for (at, method) in table.iter().enumerate() {
        let (high, low) = (usize::from(method.id >> 8), usize::from(method.id & 0xff));
        places.resize_with(places.len().max(high + 1), Vec::new);
        let lows = &mut places[high];
        lows.resize(lows.len().max(low + 1), table.len() as u16);
        lows[low] = at as u16;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_its_own_place_and_unknown_numbers_the_last() {
        let stats = Stats::default();
        for method in services::METHODS {
            stats.method(method.id).called_by(1);
            assert_eq!(stats.method(method.id).callers[1].value(), 1, "{}", method.name);
        }
        for unknown in [0, 0x01ff, 0x0500, u16::MAX] {
            assert!(services::method(unknown).is_none());
            stats.method(unknown).called_by(2);
        }
        assert_eq!(stats.methods[services::METHODS.len()].callers[2].value(), 4);
    }

    #[test]
    fn times_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let histogram = Histogram::default();
        for us in [0, 1, 2, 3, 4, 5, 1 << 24, u64::MAX >> 1] {
            histogram.record(us);
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Count::value).collect();
        assert_eq!(counts[..4], [2, 1, 2, 1]);
        assert_eq!((counts[24], counts[25], histogram.count()), (1, 1, 8));
    }
}
