//! Is B worse than A? Reports of the same command, several a side where noise is to be known: made in turn (A, B, A, B),
//! so that what changes on the machine meanwhile falls on both.

mod metrics;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use metrics::{Better, METRICS, Metric};
use stats::{Ratio, ratio};

/// What was compared, and what came of it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Comparison {
    pub schema: u64,
    pub command: &'static str,
    pub compared: String,
    pub reports_a_side: (usize, usize),
    /// What makes the figures say less than they seem to.
    pub warnings: Vec<String>,
    pub rows: Vec<RowReport>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Same,
    Worse,
    /// Of different hosts: the figures stand, the verdict does not.
    CannotCompare,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RowReport {
    pub name: &'static str,
    pub key: &'static str,
    pub a: f64,
    pub b: f64,
    /// Of the medians, B by A, and where it lies in 95 of 100 resamplings; none: one report a side, noise is unknown.
    pub ratio: f64,
    pub interval: Option<(f64, f64)>,
    /// What counts as the same.
    pub tolerance: f64,
    pub verdict: Verdict,
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: String },
    #[error("{} is no report of moorgate-bench: it has no {key}", path.display())]
    NoReport { path: PathBuf, key: &'static str },
    #[error("the reports have different schemas, {a} and {b} ({}): make both with one version of the bench", path.display())]
    Schemas { a: u64, b: u64, path: PathBuf },
    #[error("the reports are of different commands, {a} and {b} ({}): nothing of them is comparable", path.display())]
    Commands { a: String, b: String, path: PathBuf },
    #[error("{0} reports are no pairs: give A B, or A B A B ... in the order they were made")]
    NoPairs(usize),
    #[error("the reports have no figure in common")]
    Nothing,
}

/// Settings of a run that make its figures another thing.
const SETTINGS: [&str; 9] = [
    "clients",
    "payload_bytes",
    "heartbeat_s",
    "connections.asked",
    "pace.kind",
    "pace.rate",
    "rate",
    "scenario",
    "host.spawned",
];

/// What must be equal for two hosts to be one.
const HOST: [&str; 3] = ["host.kernel", "host.cpu", "host.cores"];

/// Compares `A B`, or `A B A B ...`. Of different hosts it judges only when told to.
pub fn compare(paths: &[PathBuf], across_hosts: bool) -> Result<Comparison, CompareError> {
    if paths.is_empty() || !paths.len().is_multiple_of(2) {
        return Err(CompareError::NoPairs(paths.len()));
    }
    let reports: Vec<Value> = paths.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let first = &reports[0];
    let (schema, command) = (number(first, "schema"), text(first, "command"));
    for (report, path) in reports.iter().zip(paths) {
        let (other_schema, other) = (number(report, "schema"), text(report, "command"));
        if other_schema != schema {
            return Err(CompareError::Schemas { a: schema, b: other_schema, path: path.clone() });
        }
        if other != command {
            return Err(CompareError::Commands { a: command, b: other, path: path.clone() });
        }
    }
    let a: Vec<&Value> = reports.iter().step_by(2).collect();
    let b: Vec<&Value> = reports.iter().skip(1).step_by(2).collect();
    let rows: Vec<RowReport> = METRICS.iter().filter_map(|metric| row(metric, &a, &b)).collect();
    if rows.is_empty() {
        return Err(CompareError::Nothing);
    }
    let (mut warnings, hosts_differ) = (warnings(&reports, a.len()), hosts_differ(&reports));
    let worst = rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Same);
    let best = rows.iter().map(|row| row.verdict).min().unwrap_or(Verdict::Same);
    let verdict = match hosts_differ {
        Some(told) => {
            warnings.insert(0, told);
            if across_hosts { worst } else { Verdict::CannotCompare }
        }
        None if worst == Verdict::Worse => Verdict::Worse,
        None => best,
    };
    Ok(Comparison {
        schema,
        command: "compare",
        compared: command,
        reports_a_side: (a.len(), b.len()),
        warnings,
        rows,
        verdict,
    })
}

impl Comparison {
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Better | Verdict::Same => 0,
            Verdict::Worse => 1,
            Verdict::CannotCompare => 2,
        }
    }

    /// The table and the verdict, for a person.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: {} reports of A, {} of B (medians)\n{:<34}{:>12}{:>12}{:>8}  {:<17}{:>6}  verdict\n",
            self.compared,
            self.reports_a_side.0,
            self.reports_a_side.1,
            "",
            "A",
            "B",
            "B/A",
            "95 % interval",
            "same"
        );
        for row in &self.rows {
            let interval = match row.interval {
                Some((low, high)) => format!("{low:.3} to {high:.3}"),
                None => "noise unknown".to_owned(),
            };
            text.push_str(&format!(
                "{:<34}{:>12.3}{:>12.3}{:>8.3}  {interval:<17}{:>4.0} %  {}\n",
                row.name,
                row.a,
                row.b,
                row.ratio,
                row.tolerance * 100.0,
                row.verdict.word()
            ));
        }
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text.push_str(&format!("B is {} A", self.verdict.sentence()));
        text
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Same => "same",
            Verdict::Worse => "WORSE",
            Verdict::CannotCompare => "?",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Verdict::Better => "better than",
            Verdict::Same => "the same as",
            Verdict::Worse => "worse than",
            Verdict::CannotCompare => "not comparable with",
        }
    }
}

fn row(metric: &Metric, a: &[&Value], b: &[&Value]) -> Option<RowReport> {
    let of = |side: &[&Value]| -> Option<Vec<f64>> {
        side.iter().map(|report| at(report, metric.key).as_f64()).collect()
    };
    let Ratio { a, b, ratio, interval } = ratio(&of(a)?, &of(b)?)?;
    let tolerance = if interval.is_some() { metric.tolerance } else { metric.tolerance_alone() };
    // How much worse B is, at the least and at the most.
    let (low, high) = interval.unwrap_or((ratio, ratio));
    let (least, most) = match metric.better {
        Better::Lower => (low, high),
        Better::Higher => (1.0 / high.max(f64::MIN_POSITIVE), 1.0 / low.max(f64::MIN_POSITIVE)),
    };
    let verdict = match () {
        () if least > 1.0 + tolerance => Verdict::Worse,
        () if most < 1.0 / (1.0 + tolerance) => Verdict::Better,
        () => Verdict::Same,
    };
    Some(RowReport { name: metric.name, key: metric.key, a, b, ratio, interval, tolerance, verdict })
}

fn warnings(reports: &[Value], a_side: usize) -> Vec<String> {
    let mut told = Vec::new();
    for key in SETTINGS {
        if let Some(other) = reports.iter().find(|report| at(report, key) != at(&reports[0], key)) {
            told.push(format!("{key} differs: {} and {}", at(&reports[0], key), at(other, key)));
        }
    }
    let spoilt = reports
        .iter()
        .filter(|report| at(report, "host.other_cores_used").as_f64().is_some_and(|used| used > 0.25));
    let spoilt = spoilt.count();
    if spoilt > 0 {
        told.push(format!("other processes were at work during {spoilt} of {} runs", reports.len()));
    }
    let limited =
        reports.iter().filter(|report| at(report, "generator.was_the_limit") == &Value::Bool(true)).count();
    if limited > 0 {
        told.push(format!(
            "the generator was the limit in {limited} of {} runs: they measure the bench",
            reports.len()
        ));
    }
    if a_side == 1 {
        told.push("one report a side: the noise is unknown, only differences beyond a wide margin count; repeat, A B A B ...".to_owned());
    }
    told
}

fn hosts_differ(reports: &[Value]) -> Option<String> {
    let differs = |key: &&&str| reports.iter().any(|report| at(report, key) != at(&reports[0], key));
    let keys: Vec<&str> = HOST.iter().filter(differs).map(|key| key.trim_start_matches("host.")).collect();
    (!keys.is_empty()).then(|| {
        format!(
            "the reports are of different hosts ({} differ): what is seen is the hosts, not the programs \
             (--across-hosts judges all the same)",
            keys.join(", ")
        )
    })
}

fn read(path: &Path) -> Result<Value, CompareError> {
    let unreadable = |cause: String| CompareError::Unreadable { path: path.to_owned(), cause };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let missing = |key| CompareError::NoReport { path: path.to_owned(), key };
    report["schema"].as_u64().ok_or_else(|| missing("schema"))?;
    report["command"].as_str().ok_or_else(|| missing("command"))?;
    Ok(report)
}

fn at<'a>(report: &'a Value, key: &str) -> &'a Value {
    key.split('.').fold(report, |value, key| &value[key])
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or(0)
}

fn text(report: &Value, key: &str) -> String {
    report[key].as_str().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests;
