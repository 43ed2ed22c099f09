//! What a phone is told once: the settings that many phones share, and who this one is.

use crate::limits;
use crate::names::Cursor;

/// Settings; phones of one process share them behind an `Arc`.
#[derive(Debug, Clone)]
pub struct PhoneConfig {
    /// The program, for the server's logs.
    pub client: String,
    /// 0 unknown, 1 Wi-Fi, 2 2G, 3 3G, 4 4G, 5 5G.
    pub network_kind: u32,
    pub network_operator: u64,
    /// Beats at this interval, whatever WELCOME says.
    pub heartbeat_override_ms: Option<u32>,
    /// Pull after the very first WELCOME. A server tells a phone that is behind by itself, at the first connect as at
    /// any other, so this only saves waiting for it.
    pub sync_on_connect: bool,
    /// From `Connect` until the owner says that the socket is open.
    pub connect_timeout_ms: u64,
    /// From HELLO to WELCOME. Longer than the 8 s that a server waits for HELLO: a server in a storm is slow
    /// with all, and giving up makes the storm worse.
    pub welcome_timeout_ms: u64,
    /// From a beat to its answer; then the path is dead.
    pub beat_answer_ms: u64,
    pub pull_deadline_ms: u32,
    /// Changes asked for in one pull; 0 leaves it to the server.
    pub pull_max_changes: u32,
    /// Calls in flight at once, when WELCOME allows as many.
    pub max_in_flight: usize,
    /// How often one call is sent again because of the status it got.
    pub max_retries: u8,
    pub reconnect: Backoff,
    /// Between two attempts of a call or a pull, when the answer does not say.
    pub retry: Backoff,
}

impl Default for PhoneConfig {
    fn default() -> Self {
        Self {
            client: concat!("moorgate-phone/", env!("CARGO_PKG_VERSION")).to_owned(),
            network_kind: 0,
            network_operator: 0,
            heartbeat_override_ms: None,
            sync_on_connect: true,
            connect_timeout_ms: 15_000,
            welcome_timeout_ms: 15_000,
            beat_answer_ms: 8_000,
            pull_deadline_ms: 10_000,
            pull_max_changes: 0,
            max_in_flight: limits::MAX_PHONE_CALLS_IN_FLIGHT,
            max_retries: 8,
            reconnect: Backoff { first_ms: 500, min_ms: 1_000, max_ms: 60_000, stable_after_ms: 10_000 },
            retry: Backoff { first_ms: 100, min_ms: 200, max_ms: 5_000, stable_after_ms: 0 },
        }
    }
}

/// Waits that grow: the first, then from `min_ms` doubled up to `max_ms`; each drawn evenly from 0 up to it.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first_ms: u64,
    pub min_ms: u64,
    pub max_ms: u64,
    /// A connection that was up for this long counts as a success.
    pub stable_after_ms: u64,
}

/// Who a phone is, and what it remembers from its last run.
#[derive(Debug, Clone, Default)]
pub struct Device {
    pub id: u64,
    /// Empty: a session that may only sign up and log in.
    pub token: Box<[u8]>,
    /// Connections that this device has made. It must never fall, so an owner that stores the cursor stores
    /// this too.
    pub counter: u32,
    /// What the phone has applied and stored.
    pub cursor: Cursor,
}
