//! How a service is called, as it stands in a configuration.

use std::path::PathBuf;

use proto_wire::rpc::caller::CallerConfig;
use proto_wire::rpc::client::address::check_list;
use proto_wire::rpc::client::{self as policy, Address, AddressError, HealthConfig, PolicyConfig};
use proto_wire::rpc::datagram::DatagramConfig;
use serde::Deserialize;
use thiserror::Error;

use super::limits;

/// One service and the ways to it. Callers do not see which is chosen.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// `127.0.0.1:7610`, `unix:/run/echo.sock`. Either these or a file.
    pub endpoints: Vec<String>,
    /// An address a line. Read again whenever it changes.
    pub endpoints_file: Option<PathBuf>,
    pub transport: Transport,
    pub balance: Balance,
    /// Long connections to each endpoint.
    pub connections: usize,
    /// Retries for a hundred calls; 0: none.
    pub retry_percent: u32,
    /// Times that one call is made at most, the first included.
    pub max_attempts: u8,
    /// The longest wait before a first retry, and before any.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    /// Failures in a row after which an endpoint gets no calls for a while, and for how long the first time.
    pub eject_after: u32,
    pub eject_ms: u64,
    /// From an endpoint's return until it has its full share.
    pub slow_start_ms: u64,
    pub connect_timeout_ms: u64,
    /// Calls in flight and waiting together, of one connection.
    pub max_calls: usize,
    /// This process, as its callees see it.
    pub service: u16,
}

/// What carries the calls. Whether it is TCP or a Unix socket is in the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Connections that stay, each with many calls in flight.
    #[default]
    Long,
    /// A connection for each call, closed after it.
    Short,
    /// A datagram each way; what is too large for one goes over a long connection to the same address.
    Udp,
}

/// How endpoints share the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    #[default]
    LeastOfTwo,
    RoundRobin,
    /// By the key of the call.
    Key,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
pub enum ClientConfigError {
    #[error("there are neither endpoints nor an endpoints_file")]
    Nowhere,
    #[error("there are endpoints and an endpoints_file: give one of them")]
    Both,
    #[error("endpoints: {0}")]
    Endpoints(#[from] AddressError),
    #[error("{0}: UDP goes to an address and a port, not to a Unix socket")]
    UnixDatagram(Address),
    #[error("connections: {0} is outside 1 to {max}", max = limits::MAX_CONNECTIONS)]
    Connections(usize),
    #[error("{0} is 0, which would hold up every call")]
    Zero(&'static str),
}

impl Default for ClientConfig {
    fn default() -> Self {
        let (policy, caller) = (PolicyConfig::default(), CallerConfig::default());
        Self {
            endpoints: Vec::new(),
            endpoints_file: None,
            transport: Transport::default(),
            balance: Balance::default(),
            connections: 1,
            retry_percent: policy.retry_percent,
            max_attempts: policy.max_attempts,
            backoff_min_ms: policy.backoff_min_ms,
            backoff_max_ms: policy.backoff_max_ms,
            eject_after: policy.health.eject_after,
            eject_ms: policy.health.eject_ms,
            slow_start_ms: policy.health.slow_start_ms,
            connect_timeout_ms: caller.connect_timeout_ms,
            max_calls: caller.max_calls,
            service: caller.service,
        }
    }
}

impl ClientConfig {
    /// Says what is wrong, if anything is; else the endpoints that stand in it.
    pub fn check(&self) -> Result<Vec<Address>, ClientConfigError> {
        match (self.endpoints.is_empty(), &self.endpoints_file) {
            (true, None) => return Err(ClientConfigError::Nowhere),
            (false, Some(_)) => return Err(ClientConfigError::Both),
            _ => {}
        }
        if !(1..=limits::MAX_CONNECTIONS).contains(&self.connections) {
            return Err(ClientConfigError::Connections(self.connections));
        }
        for (name, is_zero) in [
            ("max_attempts", self.max_attempts == 0),
            ("eject_after", self.eject_after == 0),
            ("connect_timeout_ms", self.connect_timeout_ms == 0),
            ("max_calls", self.max_calls == 0),
        ] {
            if is_zero {
                return Err(ClientConfigError::Zero(name));
            }
        }
        let endpoints: Vec<Address> =
            self.endpoints.iter().map(|text| text.parse()).collect::<Result<_, AddressError>>()?;
        self.check_list(&endpoints)?;
        Ok(endpoints)
    }

    /// Whether a list of endpoints can be used this way.
    pub fn check_list(&self, list: &[Address]) -> Result<(), ClientConfigError> {
        check_list(list)?;
        let unix = list.iter().find(|address| matches!(address, Address::Unix(_)));
        match unix {
            Some(address) if self.transport == Transport::Udp => {
                Err(ClientConfigError::UnixDatagram(address.clone()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn policy(&self) -> PolicyConfig {
        PolicyConfig {
            balance: match self.balance {
                Balance::LeastOfTwo => policy::Balance::LeastOfTwo,
                Balance::RoundRobin => policy::Balance::RoundRobin,
                Balance::Key => policy::Balance::Key,
            },
            retry_percent: self.retry_percent,
            max_attempts: self.max_attempts,
            backoff_min_ms: self.backoff_min_ms,
            backoff_max_ms: self.backoff_max_ms,
            health: HealthConfig {
                eject_after: self.eject_after,
                eject_ms: self.eject_ms,
                slow_start_ms: self.slow_start_ms,
                ..HealthConfig::default()
            },
        }
    }

    pub(super) fn datagrams(&self) -> DatagramConfig {
        DatagramConfig { service: self.service, ..DatagramConfig::default() }
    }

    pub(super) fn caller(&self) -> CallerConfig {
        CallerConfig {
            service: self.service,
            max_calls: self.max_calls,
            connect_timeout_ms: self.connect_timeout_ms,
            ..CallerConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClientConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_configuration_says_the_way_and_nothing_else() {
        let text = "endpoints = [\"127.0.0.1:7610\", \"unix:/run/a.sock\"]\ntransport = \"short\"\nbalance = \"key\"\n";
        let config = read(text).expect("it is one");
        assert_eq!((config.transport, config.balance), (Transport::Short, Balance::Key));
        assert_eq!(config.check().expect("fine").len(), 2);
        assert!(read("endpoint = []").is_err_and(|error| error.to_string().contains("endpoint")));
        assert!(read("transport = \"tcp\"").is_err_and(|error| error.to_string().contains("`long`")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, what) in [
            ("", "neither endpoints nor"),
            ("endpoints = [\"127.0.0.1:1\"]\nendpoints_file = \"a\"", "give one of them"),
            ("endpoints = [\"there:1\"]", "\"there:1\" is neither"),
            ("endpoints = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "stands there twice"),
            ("endpoints = [\"unix:/a\"]\ntransport = \"udp\"", "unix:/a: UDP goes to"),
            ("endpoints_file = \"a\"\nconnections = 0", "outside 1 to 16"),
            ("endpoints_file = \"a\"\nmax_attempts = 0", "max_attempts is 0"),
        ] {
            let error = read(text).expect("it parses").check().expect_err(text);
            assert!(error.to_string().contains(what), "{text}: {error}");
        }
    }
}
