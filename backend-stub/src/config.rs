//! What a backend is told: a TOML file, checked to the line, and flags that override it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tuning::ranges::{RangeError, in_range, line_of_key};

use crate::logic::limits as logic;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendConfig {
    /// Where gateways connect.
    pub listen: SocketAddr,
    /// A Unix socket beside it; none: there is none.
    pub unix: Option<PathBuf>,
    /// Whether calls are taken over UDP too, on the port of `listen`.
    pub udp: bool,
    /// Metrics and status; none: no admin port.
    pub admin: Option<SocketAddr>,
    /// Keys and store; made when it does not exist.
    pub data: PathBuf,
    /// Cores that the loops are pinned to. Empty: not pinned.
    pub cores: Vec<usize>,
    /// Whether `listen` may be an address that other machines reach. Callers are not authenticated yet.
    pub insecure_listen: bool,
    /// How long a token is good.
    pub token_ttl_s: u64,
    /// How long a stop waits for what is in flight.
    pub grace_ms: u64,
    /// Threads that hash passwords. Each takes 19 MiB while it does.
    pub password_workers: usize,
    /// Rows and bodies kept in memory.
    pub hot_bytes: usize,
    /// Users in memory at once.
    pub max_users: usize,
    pub store: StoreConfig,
    pub retention: RetentionConfig,
    /// Makes the machine's clock wrong, for tests.
    #[serde(skip)]
    pub clock_offset_s: i64,
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Of a store that is made now. One that exists keeps its own.
    pub partitions: u16,
    pub memtable_bytes: u64,
    pub cache_bytes: u64,
    /// Writes are refused while less than this is free on the disk; reads and connections go on.
    pub reserve_bytes: u64,
}

/// How long logs keep what. A phone whose cursor is behind a log's horizon gets a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// So many of the newest rows of a log stay as written, whatever their age.
    pub rows: u64,
    /// Rows stay as written for so long, however many there are. Behind both, what a later row replaced goes.
    pub days: u64,
    /// Messages and comments behind the horizon go after so many days; 0: never. Contacts, groups and own moments
    /// always stay.
    pub keep_days: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let days = logic::HORIZON_AGE_MS / DAY_MS;
        Self { rows: logic::HORIZON_ROWS, days, keep_days: 0 }
    }
}

impl RetentionConfig {
    pub fn age_ms(&self) -> u64 {
        self.days * DAY_MS
    }

    pub fn keep_ms(&self) -> u64 {
        self.keep_days * DAY_MS
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7610)),
            unix: None,
            udp: false,
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 7611))),
            data: PathBuf::from("moorgate-data"),
            cores: Vec::new(),
            insecure_listen: false,
            token_ttl_s: 7 * 24 * 3600,
            grace_ms: 2_000,
            password_workers: 2,
            hot_bytes: 32 << 20,
            max_users: 4_000_000,
            store: StoreConfig::default(),
            retention: RetentionConfig::default(),
            clock_offset_s: 0,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            memtable_bytes: crate::storage::limits::MEMTABLE_BYTES,
            cache_bytes: crate::storage::limits::CACHE_BYTES,
            reserve_bytes: crate::storage::limits::RESERVE_BYTES,
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
    #[error(
        "{0} can be reached from other machines, and callers are not authenticated yet; listen on 127.0.0.1, or \
         say --insecure-listen when nothing but gateways reaches this address"
    )]
    Open(SocketAddr),
}

impl BackendConfig {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), text: error.to_string() })?;
        config.check_ranges().map_err(|error| in_file(path, &text, error))?;
        Ok(config)
    }

    /// Checks values against what the parts can do. Call it once all flags are in.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.insecure_listen && !self.listen.ip().is_loopback() {
            return Err(ConfigError::Open(self.listen));
        }
        Ok(self.check_ranges()?)
    }

    fn check_ranges(&self) -> Result<(), RangeError> {
        in_range("token_ttl_s", self.token_ttl_s, 1, 10 * 365 * 24 * 3600)?;
        in_range("grace_ms", self.grace_ms, 0, 600_000)?;
        in_range("password_workers", self.password_workers as u64, 1, 64)?;
        in_range("max_users", self.max_users as u64, 1, 100_000_000)?;
        in_range("store.partitions", self.store.partitions.into(), 1, 256)?;
        in_range("store.memtable_bytes", self.store.memtable_bytes, 1 << 20, 1 << 32)?;
        in_range("store.cache_bytes", self.store.cache_bytes, 0, 1 << 40)?;
        in_range("store.reserve_bytes", self.store.reserve_bytes, 0, 1 << 40)?;
        in_range("retention.rows", self.retention.rows, 100, 1 << 40)?;
        // A duty may take its lifetime, and the row that it brings must be there.
        in_range("retention.days", self.retention.days, logic::DUTY_LIFETIME_MS / DAY_MS, 36_500)?;
        in_range("retention.keep_days", self.retention.keep_days, 0, 36_500)
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

    #[test]
    fn a_misspelt_key_is_told_with_its_line() {
        let error = toml::from_str::<BackendConfig>("grace_ms = 5\n\n[store]\npartition = 2\n")
            .expect_err("misspelt");
        let text = error.to_string();
        assert!(text.contains("line 4") && text.contains("partition"), "{text}");
    }

    #[test]
    fn a_value_out_of_range_is_told_with_its_line() {
        let path = std::env::temp_dir().join(format!("moorgate-backend-config-{}", std::process::id()));
        std::fs::write(&path, "grace_ms = 5\n\n[retention]\ndays = 2\n").expect("a temporary file");
        let error = BackendConfig::read(&path).expect_err("too few").to_string();
        std::fs::remove_file(&path).expect("removed");
        assert!(error.contains("line 4: retention.days is 2, but it must be from 7"), "{error}");
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_default_is_fine() {
        let config: BackendConfig = toml::from_str("").expect("fine");
        assert_eq!(config, BackendConfig::default());
        config.check().expect("fine");
    }

    #[test]
    fn an_address_that_others_reach_needs_a_word() {
        let mut config =
            BackendConfig { listen: "0.0.0.0:0".parse().expect("an address"), ..Default::default() };
        assert!(matches!(config.check(), Err(ConfigError::Open(_))));
        config.insecure_listen = true;
        config.check().expect("said so");
    }
}
