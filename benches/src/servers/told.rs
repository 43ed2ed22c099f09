//! What a server says of itself in `/metrics`, joined into reports.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

/// A page of `/metrics`, read once.
#[derive(Debug, Clone, Default)]
pub struct Page(String);

impl Page {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum over all series of a metric whose line has `label` in it; none: there is no such series.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.series(name).filter(|(labels, _)| labels.contains(label)).map(|at| at.1).collect();
        (!values.is_empty()).then(|| values.into_iter().sum())
    }

    /// Each series of a metric with one label, by the label's value.
    pub fn by_label(&self, name: &str) -> BTreeMap<String, f64> {
        let value = |labels: &str| Some(labels.split('"').nth(1)?.to_owned());
        self.series(name).filter_map(|(labels, number)| Some((value(labels)?, number))).collect()
    }

    /// Labels in their braces, and the value.
    fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let of_it = move |line: &'_ str| -> Option<usize> {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then_some(name.len())
        };
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line[of_it(line)?..].rsplit_once(' ')?;
            Some((labels, value.parse().ok()?))
        })
    }
}

/// A page with its time, and what its process had used by then.
#[derive(Debug, Clone)]
pub struct Reading {
    pub at: Instant,
    pub page: Page,
    pub cpu_us: Option<u64>,
}

impl Reading {
    /// How long the process has lived, when it began after another reading `passed_s` before.
    fn began_since(&self, earlier: &Reading, passed_s: f64) -> Option<f64> {
        let uptime = |reading: &Reading| reading.page.sum("moorgate_uptime_seconds", "");
        let (before, now) = (uptime(earlier)?, uptime(self)?);
        // Whole seconds, cut off.
        (now + 1.5 < before + passed_s).then(|| now.max(0.5))
    }
}

/// The gateway's own word, over the measured time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatewayTold {
    /// At the end of it.
    pub connections: u64,
    /// On the fullest shard, by the mean of all.
    pub fullest_shard_by_mean: Option<f64>,
    /// What connections cost it by its own account, by the state that they are in, at the end of it. Buffers that
    /// shards share and what the allocator keeps are not in it; the process's memory is.
    pub bytes_by_state: BTreeMap<String, u64>,
    pub bytes_per_connection_by_state: BTreeMap<String, f64>,
    /// Established in the kernel and not known to it: near 0.
    pub established_minus_sessions: Option<i64>,
    /// HELLOs, beats and calls from phones, replies, notifies and notices to them.
    pub messages: u64,
    pub messages_per_second: f64,
    /// By the cores that its process used; none when it was started anew meanwhile.
    pub messages_per_second_per_core: Option<f64>,
}

/// What counts as a message, of all shards.
const MESSAGES: [&str; 7] = [
    "moorgate_hellos_total",
    "moorgate_beats_total",
    "moorgate_calls_total",
    "moorgate_replies_total",
    "moorgate_notified_total",
    "moorgate_notices_total",
    "moorgate_broadcast_phones_total",
];

impl GatewayTold {
    pub fn between(from: &Reading, to: &Reading) -> Self {
        let passed_s = to.at.duration_since(from.at).as_secs_f64().max(1e-3);
        // One that was killed meanwhile began its counts anew, and what it used is of all its lives.
        let lived_s = to.began_since(from, passed_s);
        let grown = |name: &str| {
            let count = |reading: &Reading| reading.page.sum(name, "").unwrap_or(0.0);
            count(to) - if lived_s.is_none() { count(from) } else { 0.0 }
        };
        let messages = MESSAGES.into_iter().map(grown).sum::<f64>();
        let seconds = lived_s.unwrap_or(passed_s);
        let cpu_s = from.cpu_us.zip(to.cpu_us).map(|(from, to)| to.saturating_sub(from) as f64 / 1e6);
        let cpu_s = cpu_s.filter(|_| lived_s.is_none());
        let page = &to.page;
        let shards: Vec<f64> = page.by_label("moorgate_connections").into_values().collect();
        let connections = shards.iter().sum::<f64>();
        let bytes = page.by_label("moorgate_connection_bytes");
        let a_connection = |bytes: f64| bytes / connections.max(1.0);
        Self {
            connections: connections as u64,
            fullest_shard_by_mean: (connections > 0.0)
                .then(|| shards.iter().copied().fold(0.0, f64::max) * shards.len() as f64 / connections),
            bytes_per_connection_by_state: bytes
                .iter()
                .map(|(state, &bytes)| (state.clone(), a_connection(bytes)))
                .collect(),
            bytes_by_state: bytes.into_iter().map(|(state, bytes)| (state, bytes as u64)).collect(),
            established_minus_sessions: page
                .sum("moorgate_established_minus_sessions", "")
                .map(|count| count as i64),
            messages: messages as u64,
            messages_per_second: messages / seconds,
            messages_per_second_per_core: cpu_s.filter(|&cpu_s| cpu_s > 0.0).map(|cpu_s| messages / cpu_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(beats: [u64; 2], replies: u64) -> Page {
        page_at(100, beats, replies)
    }

    fn page_at(uptime_s: u64, beats: [u64; 2], replies: u64) -> Page {
        let [one, other] = beats;
        Page(format!(
            "# TYPE moorgate_beats counter\nmoorgate_beats_total{{shard=\"0\"}} {one}\nmoorgate_beats_total{{shard=\"1\"}} {other}\n\
             moorgate_replies_total{{code=\"ok\"}} {replies}\nmoorgate_replies_total{{code=\"other\"}} 0\n\
             moorgate_connections{{shard=\"0\"}} 30\nmoorgate_connections{{shard=\"1\"}} 10\n\
             moorgate_connection_bytes{{state=\"idle\"}} 3840\nmoorgate_connection_bytes{{state=\"queued\"}} 80\n\
             moorgate_uptime_seconds {uptime_s}\nmoorgate_established_minus_sessions -1\nmoorgate_beats_total_of_something_else 7\n# EOF\n"
        ))
    }

    #[test]
    fn messages_are_what_grew_and_bytes_are_those_of_the_end() {
        let at = Instant::now();
        let from = Reading { at, page: page([100, 50], 7), cpu_us: Some(1_000_000) };
        let to = Reading {
            at: at + Duration::from_secs(4),
            page: page_at(104, [300, 150], 107),
            cpu_us: Some(3_000_000),
        };
        let told = GatewayTold::between(&from, &to);
        assert_eq!((told.messages, told.messages_per_second), (400, 100.0));
        assert_eq!(told.messages_per_second_per_core, Some(200.0), "it used half a core");
        assert_eq!((told.connections, told.fullest_shard_by_mean), (40, Some(1.5)));
        assert_eq!(told.bytes_by_state["idle"], 3_840);
        assert_eq!(told.bytes_per_connection_by_state["idle"], 96.0);
        assert_eq!(told.bytes_per_connection_by_state["queued"], 2.0);
        assert_eq!(told.established_minus_sessions, Some(-1));
    }

    #[test]
    fn one_that_was_killed_meanwhile_counts_from_its_new_beginning() {
        let at = Instant::now();
        let from = Reading { at, page: page_at(100, [1_000, 0], 0), cpu_us: Some(5) };
        let later = at + Duration::from_secs(20);
        let to = Reading { at: later, page: page_at(5, [30, 10], 10), cpu_us: Some(7_000_000) };
        let told = GatewayTold::between(&from, &to);
        assert_eq!((told.messages, told.messages_per_second), (50, 10.0));
        assert_eq!(told.messages_per_second_per_core, None, "its CPU is of both lives");
    }

    #[test]
    fn what_is_not_there_is_none() {
        let page = page([1, 2], 3);
        assert_eq!(page.sum("moorgate_beats_total", "shard=\"1\""), Some(2.0));
        assert_eq!(page.sum("moorgate_beats", ""), None, "a name is a whole name");
        assert_eq!(Page::default().sum("moorgate_beats_total", ""), None);
    }
}
