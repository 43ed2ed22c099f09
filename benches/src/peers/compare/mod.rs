//! The comparison: its stage, and which works it runs.

mod rounds;
mod servers;
mod works;

use std::io;
use std::path::Path;

use super::report::Comparison;
use super::server::{ServerError, find, version};
use super::side::SideError;
use crate::clock::Clock;
use crate::report::Progress;

/// What is run, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of works; empty: all.
    pub only: Vec<String>,
    pub rounds: usize,
    pub round_ms: u64,
    pub clients: u32,
    pub proxied_clients: u32,
    pub nats: Option<std::path::PathBuf>,
    /// The rate of each work, instead of a search for the highest.
    pub rate: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Side(#[from] SideError),
    #[error("cannot prepare the run: {0}")]
    Io(#[from] io::Error),
    #[error("no rate was found that {0} does")]
    NoRate(&'static str),
    #[error("the comparison wants two cores, one for the server and one for the bench")]
    OneCore,
}

/// The works, in their order.
pub const WORKS: [&str; 5] = ["memory", "heartbeat", "forward", "fanout", "coalesced"];

const MESSAGE_BYTES: usize = 100;

/// The stage of a run: cores, clock, directory.
pub struct Stage<'a> {
    pub options: &'a Options,
    pub directory: &'a Path,
    pub server_core: usize,
    pub bench_core: usize,
    pub clock: Clock,
    pub progress: &'a mut Progress,
}

impl Stage<'_> {
    /// Runs what was asked for. A peer that is not here leaves its keys out, with the reason.
    pub fn run(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        for work in WORKS {
            if crate::signals::interrupted() {
                return Err(SideError::Interrupted.into());
            }
            if !self.options.only.is_empty() && !self.options.only.iter().any(|only| only == work) {
                continue;
            }
            let done = match work {
                "memory" => self.memory(report),
                "heartbeat" => self.heartbeat(report),
                "forward" => self.forward(report),
                "fanout" => self.fanout(report),
                _ => self.coalesced(report),
            };
            match done {
                // What the others gave is not lost by it.
                Err(error @ CompareError::NoRate(_)) => {
                    self.say(&format!("{work}: left out: {error}"));
                    report.skipped.insert(work, error.to_string());
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.progress.say(text);
    }

    /// None, and the reason in the report, when the peer is not here.
    fn or_skipped<T>(
        &mut self,
        made: Result<T, CompareError>,
        keys: &[&'static str],
        report: &mut Comparison,
    ) -> Result<Option<T>, CompareError> {
        match made {
            Ok(side) => Ok(Some(side)),
            Err(CompareError::Server(missing @ ServerError::Missing { .. })) => {
                for key in keys {
                    report.skipped.insert(key, missing.to_string());
                    self.say(&format!("{key}: skipped: {missing}"));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What runs here, for the report.
pub fn versions(nats: Option<&Path>) -> Vec<(&'static str, String)> {
    let of = |name: &'static str, flag| find(name, "").ok().map(|program| (name, version(&program, flag)));
    let nats = nats.map(Path::to_owned).or_else(|| find("nats-server", "").ok());
    [
        of("mosquitto", "-h"),
        of("haproxy", "-v"),
        nats.map(|program| ("nats", version(&program, "--version"))),
        Some(("moorgate", env!("CARGO_PKG_VERSION").to_owned())),
    ]
    .into_iter()
    .flatten()
    .collect()
}
