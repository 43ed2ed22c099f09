//! What every report has in common: what ran where, and whether the bench itself was the limit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::fingerprint::Fingerprint;
use crate::fleet::Totals;
use crate::limits;
use crate::measure::Recorder;
use crate::servers::Cores;

pub use crate::progress::Progress;

/// The number of the JSON's form. Keys are added without a new one.
pub const SCHEMA: u32 = 1;

/// Cores that others may use without a word: the kernel's own threads write the store's pages.
const OTHERS_AT_WORK: f64 = 0.25;

#[derive(Debug, thiserror::Error)]
#[error("cannot write the report {}: {cause}", path.display())]
pub struct WriteError {
    path: PathBuf,
    cause: io::Error,
}

impl WriteError {
    pub fn new(path: &Path, cause: io::Error) -> Self {
        Self { path: path.to_owned(), cause }
    }
}

/// The machine, and how the parts were laid out on it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostFacts {
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    /// The bench started the servers itself.
    pub spawned: bool,
    /// Gateway and backend are one process: what the report says of the gateway is of both.
    pub in_one_process: bool,
    /// Cores that other processes used in the measured time: beyond a quarter the figures are spoilt.
    pub other_cores_used: Option<f64>,
    /// Whether limits by address were lifted, which `--spawn` does.
    pub address_limits_lifted: bool,
    pub pinned: Cores,
    /// What `tuning` found, in words.
    pub findings: Vec<String>,
    /// What else two hosts, or two builds, may differ in.
    pub fingerprint: Fingerprint,
}

/// What every report can be asked.
pub trait Report: Serialize {
    /// Nothing lost, doubled, failed.
    fn is_good(&self) -> bool;
    /// For a person.
    fn summary(&self) -> String;
    fn host(&self) -> &HostFacts;
    /// What histograms are written from.
    fn recorded(&self) -> Option<&Recorded> {
        None
    }
    /// Why the figures are not those of the rate that was asked for, when they are not.
    fn shortfall(&self) -> Option<String> {
        None
    }
}

/// The part of a [`Report`] that is the same in all that keep `host` and `recorded`.
macro_rules! on_record {
    () => {
        fn host(&self) -> &crate::report::HostFacts {
            &self.host
        }

        fn recorded(&self) -> Option<&crate::report::Recorded> {
            self.recorded.as_ref()
        }
    };
}
pub(crate) use on_record;

/// The histograms of a run.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub recorder: Arc<Recorder>,
    /// When the run's clock began.
    pub began: SystemTime,
}

/// A rate of whose intended starts more than this share was dropped was not made.
const DROPPED_SHARE: f64 = 0.05;

/// Of a rate that was not made: who was the limit, in words.
pub fn shortfall(asked: f64, starts: u64, dropped: u64, generator: &Generator) -> Option<String> {
    let share = dropped as f64 / (starts + dropped).max(1) as f64;
    if share <= DROPPED_SHARE {
        return None;
    }
    let made = asked * (1.0 - share);
    let who = match generator.idle_share < 0.05 {
        true => "the bench's own threads were busy: give it more cores (--bench-cores), or ask for less",
        false => "the answers came too slowly to make room for new calls: more --clients, or a lower rate",
    };
    Some(format!("the rate of {asked:.0} a second was not made, only {made:.0}: {who}"))
}

impl HostFacts {
    pub fn read(spawned: bool, in_one_process: bool, pinned: Cores, findings: Vec<String>) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(String::new, |(_, name)| name.to_owned()),
            cores: gateway_ring::available_cores().len(),
            memory_bytes: tuning::machine_memory().map_or(0, |memory| memory.total),
            spawned,
            in_one_process,
            other_cores_used: None,
            address_limits_lifted: spawned,
            pinned,
            findings,
            fingerprint: Fingerprint::read(),
        }
    }
}

/// Whether the load was what it should have been.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Generator {
    pub threads: usize,
    /// The shares of time in which the bench's threads were on a core, waited for one (another process had it), and
    /// had nothing to do.
    pub busy_share: f64,
    pub core_wait_share: f64,
    pub idle_share: f64,
    /// Starts later than `late_after_ms` after their time.
    pub late_starts: u64,
    pub late_after_ms: u64,
    pub starts: u64,
    pub was_the_limit: bool,
    pub verdict: String,
}

impl Generator {
    /// From the counters before and after the time that is judged.
    pub fn judge(threads: usize, before: &Totals, after: &Totals, starts: u64, late_starts: u64) -> Self {
        let grown = |read: fn(&Totals) -> u64| read(after).saturating_sub(read(before)) as f64;
        let lived_us = grown(|totals| totals.lived_us).max(1.0);
        let busy_share = (grown(|totals| totals.cpu_us) / lived_us).min(1.0);
        let core_wait_share = (grown(|totals| totals.core_wait_us) / lived_us).min(1.0);
        let idle_share = (1.0 - busy_share - core_wait_share).max(0.0);
        let is_late = starts > 0 && late_starts * 100 > starts;
        let is_busy = idle_share < 0.05;
        let percent = |share: f64| (share * 100.0).round();
        let shares = format!(
            "its threads worked {} % of the time and waited for a core {} %",
            percent(busy_share),
            percent(core_wait_share)
        );
        let verdict = match (is_busy, is_late) {
            (true, _) => format!("the generator was the limit: {shares}"),
            (false, true) => format!("the generator was late with more than 1 of 100 messages: {shares}"),
            (false, false) => format!("the generator kept up: {shares}"),
        };
        Self {
            threads,
            busy_share,
            core_wait_share,
            idle_share,
            late_starts,
            late_after_ms: limits::LATE_START_US / 1_000,
            starts,
            was_the_limit: is_busy || is_late,
            verdict,
        }
    }
}

impl HostFacts {
    /// A sentence for a summary when others were at work.
    pub fn disturbance(&self) -> Option<String> {
        let used = self.other_cores_used.filter(|&used| used > OTHERS_AT_WORK)?;
        Some(format!(
            "other processes used {used:.1} of {} cores meanwhile: the figures are spoilt",
            self.cores
        ))
    }

    /// How a summary calls the two servers.
    pub fn names(&self) -> [&'static str; 2] {
        if self.in_one_process { ["gateway and backend", "backend"] } else { ["gateway", "backend"] }
    }
}

/// Writes a report as JSON.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), WriteError> {
    let text = serde_json::to_string_pretty(report).map_err(|error| WriteError::new(path, error.into()))?;
    write_text(path, &(text + "\n"))
}

pub fn write_text(path: &Path, text: &str) -> Result<(), WriteError> {
    fs::write(path, text).map_err(|cause| WriteError::new(path, cause))
}

/// `part / whole`, nothing when there is no whole.
pub fn share(part: Option<u64>, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part.map(|part| part as f64 / whole as f64)).flatten()
}

/// A figure for a person, or that there is none.
pub fn figure(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "not known".to_owned(), |value| format!("{value:.1} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_judged_by_its_idle_time_and_its_lateness() {
        let before = Totals { lived_us: 1_000, cpu_us: 900, ..Totals::default() };
        let after = |cpu_us: u64, core_wait_us| Totals {
            lived_us: 11_000,
            cpu_us: 900 + cpu_us,
            core_wait_us,
            ..Totals::default()
        };
        let kept_up = Generator::judge(1, &before, &after(5_000, 1_000), 1_000, 10);
        assert!(!kept_up.was_the_limit && kept_up.verdict.contains("50 %"), "{kept_up:?}");
        assert!(Generator::judge(1, &before, &after(9_900, 0), 1_000, 0).was_the_limit, "busy");
        assert!(Generator::judge(1, &before, &after(5_000, 4_900), 1_000, 0).was_the_limit, "starved");
        assert!(Generator::judge(1, &before, &after(5_000, 0), 1_000, 11).was_the_limit, "late");
    }

    #[test]
    fn a_rate_that_was_not_made_says_whose_fault_it_was() {
        let mut generator = Generator::judge(1, &Totals::default(), &Totals::default(), 0, 0);
        generator.idle_share = 0.5;
        assert_eq!(shortfall(1_000.0, 960, 40, &generator), None);
        assert!(
            shortfall(1_000.0, 900, 100, &generator)
                .is_some_and(|told| told.contains("only 900: the answers"))
        );
        generator.idle_share = 0.01;
        assert!(shortfall(1_000.0, 900, 100, &generator).is_some_and(|told| told.contains("--bench-cores")));
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let told = write_json(Path::new("/dev/full"), &1).expect_err("no room").to_string();
        assert!(told.contains("/dev/full") && told.contains("No space left"), "{told}");
    }

    #[test]
    fn a_report_that_cannot_be_written_names_its_file() {
        let told = write_json(Path::new("/no/such/dir/x.json"), &1).expect_err("no directory").to_string();
        assert!(told.contains("/no/such/dir/x.json"));
    }

    #[test]
    fn shares_of_nothing_are_unknown() {
        assert_eq!(share(Some(5), 2), Some(2.5));
        assert_eq!(share(Some(5), 0), None);
        assert_eq!(share(None, 2), None);
        assert_eq!(figure(None, "us"), "not known");
    }
}
