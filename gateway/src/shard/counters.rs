//! What a shard counts. One writer, the shard; anyone reads.

use std::sync::atomic::{AtomicU64, Ordering};

use proto_wire::close::Reason;
use proto_wire::status::Code;

/// A counter or gauge with a single writer: a plain store, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Codes that are counted by name; others fall together.
pub const CODES: usize = 18;

/// Upper bounds of the turn-time histogram, in us.
pub const TURN_BOUNDS_US: [u64; 8] = [50, 100, 250, 500, 1_000, 5_000, 20_000, 100_000];

macro_rules! counts {
    ($(#[doc = $doc:literal] $name:ident: $kind:ident;)*) => {
        /// The counters of one shard, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $(#[doc = $doc] pub $name: Count,)*
            /// Connections closed, by reason, in the order of `Reason::ALL`.
            pub closed: [Count; Reason::ALL.len()],
            /// Replies to phones by status code; the last is for codes without a name.
            pub replies: [Count; CODES],
            /// Time of all turns, in us.
            pub turn_us: Count,
            /// Turns by the time they took; the last is for longer ones.
            pub turns: [Count; TURN_BOUNDS_US.len() + 1],
        }

        impl Counters {
            /// Each plain counter: its name, whether it only rises, its help text, its value.
            pub fn each(&self) -> Vec<(&'static str, bool, &'static str, u64)> {
                vec![$((stringify!($name), counts!(@$kind), $doc, self.$name.value()),)*]
            }
        }
    };
    (@total) => { true };
    (@gauge) => { false };
}

counts! {
    #[doc = "Connections that are open."]
    connections: gauge;
    #[doc = "Sessions with a token."]
    live: gauge;
    #[doc = "Sessions without a token."]
    anonymous: gauge;
    #[doc = "Connections that hold memory beyond the session record."]
    with_extra: gauge;
    #[doc = "Phones that talk much: their receive stays armed in place of a poll."]
    streams: gauge;
    #[doc = "Bytes waiting in out-queues."]
    queued_bytes: gauge;
    #[doc = "Bytes of frames half received."]
    partial_bytes: gauge;
    #[doc = "Connections accepted."]
    accepted: total;
    #[doc = "Connections refused because the shard is full."]
    refused_full: total;
    #[doc = "Connections refused because their address opens too many."]
    refused_connects: total;
    #[doc = "Connections refused because too many HELLOs of their address failed."]
    refused_failed_hellos: total;
    #[doc = "HELLOs that failed and count against their address."]
    failed_hellos: total;
    #[doc = "Peer addresses that were forgotten before what they did was paid off."]
    addresses_forgotten: total;
    #[doc = "Connections whose address was not asked for, because too many came at once."]
    addresses_unasked: total;
    #[doc = "Bytes received from phones."]
    received_bytes: total;
    #[doc = "Bytes sent to phones."]
    sent_bytes: total;
    #[doc = "HELLO frames."]
    hellos: total;
    #[doc = "HELLO frames whose ticket stood for a token: no signature was checked."]
    resumed: total;
    #[doc = "Heartbeats received."]
    beats: total;
    #[doc = "Calls received from phones."]
    calls: total;
    #[doc = "Calls refused here, before a backend saw them."]
    calls_refused: total;
    #[doc = "Calls forwarded and not ended."]
    calls_in_flight: gauge;
    #[doc = "Notifies sent."]
    notified: total;
    #[doc = "Notifies sent with the changes in them."]
    notified_inline: total;
    #[doc = "Notifies sent again because a beat came without an answer."]
    notified_again: total;
    #[doc = "News that only raised the number of an outstanding notify."]
    coalesced: total;
    #[doc = "Notices sent that stand in no log."]
    notices: total;
    #[doc = "Notices for all phones that this shard began to hand out."]
    broadcasts: total;
    #[doc = "Phones that were handed a notice for all."]
    broadcast_phones: total;
    #[doc = "Notices for all phones that were dropped, because too many came at once."]
    broadcasts_dropped: total;
    #[doc = "News whose route was stale."]
    stale_routes: total;
    #[doc = "Frames of unknown types that were skipped."]
    skipped: total;
    #[doc = "Backends that are connected."]
    upstream_up: gauge;
    #[doc = "Connections to backends that broke or were closed."]
    upstream_lost: total;
    #[doc = "Backends that broke the protocol."]
    upstream_misbehaved: total;
    #[doc = "Replies that came after their call had ended."]
    upstream_late: total;
    #[doc = "Reports acknowledged by backends."]
    reports: total;
    #[doc = "Ends of sessions that were dropped before they were reported."]
    offline_dropped: total;
    #[doc = "Refusals that were not logged, because too many came."]
    refusals_suppressed: total;
    #[doc = "Receives that found no free buffer."]
    without_buffer: total;
}

impl Counters {
    pub fn close(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|&other| other == reason) {
            self.closed[at].add(1);
        }
    }

    pub fn reply(&self, code: Code) {
        self.replies[usize::from(code.0).min(CODES - 1)].add(1);
    }

    pub fn turn(&self, us: u64) {
        self.turn_us.add(us);
        let at = TURN_BOUNDS_US.iter().position(|&bound| us <= bound).unwrap_or(TURN_BOUNDS_US.len());
        self.turns[at].add(1);
    }
}
