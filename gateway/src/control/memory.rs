//! Bytes of connections by the state that they are in, and whether the kernel holds more of them than we know.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::serve::Running;
use crate::session::Session;
use crate::shard::counters::Counters;
use crate::shard::sessions::Extra;

/// What connections cost this process, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// Records of sessions with a token or without, that wait for nothing.
    pub idle: u64,
    /// Records of connections that have not said HELLO.
    pub hello: u64,
    /// Of frames half received.
    pub half_read: u64,
    /// Waiting to be sent.
    pub queued: u64,
    /// What belongs to a connection that has bytes waiting, either way, beside those bytes.
    pub extra: u64,
}

pub fn bytes_by_state(counters: &[std::sync::Arc<Counters>]) -> Bytes {
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(|counters| of(counters)).sum::<u64>();
    let connections = sum(|c| c.connections.value());
    let greeted = sum(|c| c.live.value()) + sum(|c| c.anonymous.value());
    let hello = connections.saturating_sub(greeted);
    Bytes {
        idle: greeted.min(connections) * size_of::<Session>() as u64,
        hello: hello * size_of::<Session>() as u64,
        half_read: sum(|c| c.partial_bytes.value()),
        queued: sum(|c| c.queued_bytes.value()),
        extra: sum(|c| c.with_extra.value()) * size_of::<Extra>() as u64,
    }
}

impl Bytes {
    pub fn each(&self) -> [(&'static str, u64); 5] {
        let Self { idle, hello, half_read, queued, extra } = *self;
        [("idle", idle), ("hello", hello), ("half_read", half_read), ("queued", queued), ("extra", extra)]
    }
}

/// The kernel's count of our connections, not older than [`FRESH`]: with many connections it takes the kernel a while (not measured).
#[derive(Debug, Default)]
pub struct Unknown(Mutex<Option<(Instant, Option<i64>)>>);

const FRESH: Duration = Duration::from_secs(15);

impl Unknown {
    /// Connections established in the kernel minus those that the shards know: near 0, or phones that are gone pile up, or
    /// the accept queue does. None: the kernel does not tell.
    pub fn established_minus_sessions(&self, running: &Running) -> Option<i64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, value)) = *known
            && at.elapsed() < FRESH
        {
            return value;
        }
        let value = tuning::established(running.listen.ip(), running.listen.port()).ok().map(|established| {
            let sessions: u64 = running.counters.iter().map(|c| c.connections.value()).sum();
            established as i64 - sessions as i64
        });
        *known = Some((Instant::now(), value));
        value
    }
}
