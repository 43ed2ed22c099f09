//! What a gateway is told: a TOML file, checked to the line, and flags that override it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tuning::ranges::{RangeError, in_range, line_of_key};

/// The bounds that an operator may move. What may not move stands in [`crate::limits`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest body of a client's frame.
    pub max_body_bytes: usize,
    /// Calls of one phone at once.
    pub calls_in_flight: u8,
    /// HELLO must come within this.
    pub hello_timeout_ms: u64,
    /// What a session without a token gets.
    pub anonymous_ttl_ms: u64,
    /// Silence after which a phone beats, as WELCOME tells it; whole seconds.
    pub heartbeat_ms: u64,
    /// Beyond one and a half intervals a silent phone gets this much more before it is closed.
    pub heartbeat_margin_ms: u64,
    /// Bytes that wait for a peer that does not read; beyond it the connection is closed.
    pub out_queue_bytes: usize,
    /// How long sent bytes may stay without acknowledgement (TCP_USER_TIMEOUT).
    pub user_timeout_ms: u32,
    /// How long a busy shard gathers what comes before it turns, in microseconds; 0: not at all. See `shard/gather.rs`.
    pub gather_us: u32,
    /// What one peer address may do.
    pub addresses: AddressLimits,
}

/// What one peer address may do: an IPv4 address, or the /64 of an IPv6 one. Told of the whole gateway, of which each shard
/// keeps its share. 0: no limit.
///
/// The defaults let pass what a carrier's NAT does: one address stands for thousands of phones (for 64 000 connections at
/// most, since it has no more ports), and all of them come back within a second when the gateway or a cell was away. So
/// 10 000 may come at once, and 1 000 a second after that: less than a tenth of what a core sets up. Of HELLOs, 3 000 a
/// minute may fail, so that neither one bad neighbour nor the tokens of thousands that ran out together shut the rest out,
/// and an attacker makes a gateway check 50 signatures a second with each address that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressLimits {
    /// New connections a second, as long as it likes.
    pub connects_per_s: u32,
    /// New connections at once, after a while without.
    pub connect_burst: u32,
    /// HELLOs that may fail in a minute (bad token, garbage, none in time) before its new connections are closed at once.
    pub failed_hellos_per_min: u32,
    /// Limit 127.0.0.0/8 and ::1 too, where proxies and load benches are.
    pub limit_loopback: bool,
}

impl AddressLimits {
    /// Nothing is limited.
    pub fn lift(&mut self) {
        self.connects_per_s = 0;
        self.failed_hellos_per_min = 0;
    }
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            connects_per_s: 1_000,
            connect_burst: 10_000,
            failed_hellos_per_min: 3_000,
            limit_loopback: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: proto_wire::limits::MAX_FRAME_BODY_BYTES,
            calls_in_flight: proto_wire::limits::MAX_PHONE_CALLS_IN_FLIGHT as u8,
            hello_timeout_ms: 8_000,
            anonymous_ttl_ms: 30_000,
            heartbeat_ms: 240_000,
            heartbeat_margin_ms: 10_000,
            out_queue_bytes: 256 * 1024,
            user_timeout_ms: 60_000,
            gather_us: 1_000,
            addresses: AddressLimits::default(),
        }
    }
}

impl Limits {
    /// Silence after which a phone that was told `interval_s` is gone.
    pub fn idle_ms(&self, interval_s: u16) -> u64 {
        u64::from(interval_s) * 1500 + self.heartbeat_margin_ms
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where phones connect.
    pub listen: SocketAddr,
    /// Metrics, status, drain.
    pub admin: SocketAddr,
    /// The logic tier.
    pub backends: Vec<SocketAddr>,
    /// Public keys of the issuers of tokens: PEM, one or more.
    pub verify_key: PathBuf,
    /// Root keys of resume tickets, which all gateways of a service share. None: one that lives as long as the
    /// process, so that phones come back with their tokens after a restart.
    pub ticket_key: Option<PathBuf>,
    /// Connections in all; shards are counted from it.
    pub max_connections: usize,
    /// Cores that shards are pinned to, in turn. Empty: all there are.
    pub cores: Vec<usize>,
    /// How long a stop waits for what is in flight.
    pub grace_ms: u64,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7600)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7601)),
            backends: vec![SocketAddr::from(([127, 0, 0, 1], 7610))],
            verify_key: PathBuf::from("moorgate-data/keys/verify.pem"),
            ticket_key: None,
            max_connections: 20_000,
            cores: Vec::new(),
            grace_ms: 2_000,
            limits: Limits::default(),
        }
    }
}

/// Why a configuration cannot be used. The text of a mistake in a file shows its line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path}: {text}")]
    Parse { path: PathBuf, text: String },
    #[error("{path}: {line}{error}")]
    InFile { path: PathBuf, line: String, error: RangeError },
    #[error(transparent)]
    Value(#[from] RangeError),
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), text: error.to_string() })?;
        config.check_ranges().map_err(|error| in_file(path, &text, error))?;
        Ok(config)
    }

    /// Checks values against each other and against what the protocol allows.
    pub fn check(&self) -> Result<(), ConfigError> {
        Ok(self.check_ranges()?)
    }

    fn check_ranges(&self) -> Result<(), RangeError> {
        let limits = &self.limits;
        let max_body = proto_wire::limits::MAX_FRAME_BODY_BYTES;
        in_range("limits.max_body_bytes", limits.max_body_bytes as u64, 1024, max_body as u64)?;
        in_range("limits.calls_in_flight", limits.calls_in_flight.into(), 1, 255)?;
        in_range("limits.hello_timeout_ms", limits.hello_timeout_ms, 100, 60_000)?;
        in_range("limits.anonymous_ttl_ms", limits.anonymous_ttl_ms, 100, 600_000)?;
        in_range("limits.heartbeat_ms", limits.heartbeat_ms, 1_000, 600_000)?;
        in_range("limits.heartbeat_margin_ms", limits.heartbeat_margin_ms, 100, 60_000)?;
        in_range("limits.out_queue_bytes", limits.out_queue_bytes as u64, max_body as u64, 16 << 20)?;
        let addresses = &limits.addresses;
        in_range("limits.gather_us", limits.gather_us.into(), 0, 10_000)?;
        in_range("limits.addresses.connects_per_s", addresses.connects_per_s.into(), 0, 1_000_000)?;
        in_range("limits.addresses.connect_burst", addresses.connect_burst.into(), 1, 10_000_000)?;
        in_range(
            "limits.addresses.failed_hellos_per_min",
            addresses.failed_hellos_per_min.into(),
            0,
            1_000_000,
        )?;
        in_range("max_connections", self.max_connections as u64, 1, 10_000_000)?;
        in_range("grace_ms", self.grace_ms, 0, 600_000)?;
        in_range("backends", self.backends.len() as u64, 1, crate::limits::BACKENDS_MAX as u64).map_err(
            |error| RangeError {
                value: format!("a list of {}", error.value),
                must: format!("a list of {}", error.must),
                ..error
            },
        )
    }
}

/// Where in its file a value stands that cannot be used.
fn in_file(path: &Path, text: &str, error: RangeError) -> ConfigError {
    let line = line_of_key(text, error.key).map_or(String::new(), |line| format!("line {line}: "));
    ConfigError::InFile { path: path.to_owned(), line, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let dir = std::env::temp_dir().join(format!("moorgate-config-{}-{:p}", std::process::id(), &text));
        std::fs::write(&dir, text).expect("a temporary file");
        let config = Config::read(&dir);
        std::fs::remove_file(&dir).expect("removed");
        config
    }

    #[test]
    fn a_misspelt_key_is_told_with_its_line() {
        let error =
            parse("listen = \"127.0.0.1:1\"\n\n[limits]\nheartbeet_ms = 1000\n").expect_err("misspelt");
        let text = error.to_string();
        assert!(text.contains("line 4") && text.contains("heartbeet_ms"), "{text}");
    }

    #[test]
    fn a_value_out_of_range_names_the_range_and_the_line() {
        let text = parse("\n[limits]\nheartbeat_ms = 1\n").expect_err("too small").to_string();
        assert!(
            text.contains("line 3: limits.heartbeat_ms is 1") && text.contains("from 1000 to 600000"),
            "{text}"
        );
    }

    #[test]
    fn limits_by_address_are_checked_to_the_line() {
        let text =
            "[limits]\nheartbeat_ms = 5000\n[limits.addresses]\nconnects_per_s = 5\nconnect_burst = 0\n";
        let text = parse(text).expect_err("nobody could connect").to_string();
        assert!(
            text.contains("line 5: limits.addresses.connect_burst is 0") && text.contains("from 1 to"),
            "{text}"
        );
        let text = parse("[limits.addresses]\nconnects_per_min = 5\n").expect_err("misspelt").to_string();
        assert!(text.contains("line 2") && text.contains("connects_per_min"), "{text}");
        let text =
            parse("[limits.addresses]\n\nfailed_hellos_per_min = -1\n").expect_err("negative").to_string();
        assert!(text.contains("line 3"), "{text}");
        let text =
            "[limits.addresses]\nconnects_per_s = 0\nfailed_hellos_per_min = 0\nlimit_loopback = true\n";
        let mut config = parse(text).expect("no limits").limits.addresses;
        assert!(config.limit_loopback && config.connects_per_s == 0 && config.failed_hellos_per_min == 0);
        config = AddressLimits::default();
        config.lift();
        assert_eq!((config.connects_per_s, config.failed_hellos_per_min), (0, 0));
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").expect("fine"), Config::default());
    }
}
