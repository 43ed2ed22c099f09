//! A second in one line.

use crate::measure::{Live, PartGauge};

pub(super) fn of(live: &Live) -> String {
    let mut text = format!("{}: {} of {} s", live.what, live.elapsed_s, live.of_s);
    if let Some(gauges) = &live.point.gauges {
        text.push_str(&format!(", {} of {} up", gauges.up, live.asked));
        if gauges.lost > 0 {
            text.push_str(&format!(", {} lost", gauges.lost));
        }
    }
    for (name, op) in &live.point.operations {
        text.push_str(&format!(
            "; {name} {}/s, p50 {} p99 {} max {} ms",
            op.count,
            ms(op.p50_ms),
            ms(op.p99_ms),
            ms(op.max_ms)
        ));
        for (count, what) in [(op.errors, "errors"), (op.late, "late"), (op.dropped, "dropped")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
    }
    if let Some(gauges) = &live.point.gauges {
        for (name, part) in
            [("gateway", gauges.gateway), ("backend", gauges.backend), ("bench", gauges.bench)]
        {
            if let Some(told) = used(&part) {
                text.push_str(&format!("; {name} {told}"));
            }
        }
    }
    text
}

/// Three digits are enough for a glance.
pub(super) fn ms(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Cores and memory of a process, when they are known.
pub(super) fn used(part: &PartGauge) -> Option<String> {
    let mib = part.rss_bytes.map(|bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
    let cores = part.cores.map(|cores| format!("{:.0} % of a core", cores * 100.0));
    match (cores, mib) {
        (Some(cores), Some(mib)) => Some(format!("{cores}, {mib}")),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::measure::{Gauges, OpPoint, Point};

    #[test]
    fn a_second_says_what_was_done_and_what_went_wrong() {
        let op = OpPoint {
            count: 950,
            late: 3,
            p50_ms: 0.512,
            p99_ms: 12.34,
            max_ms: 501.2,
            ..OpPoint::default()
        };
        let gateway = PartGauge { cores: Some(0.5), rss_bytes: Some(3 << 20) };
        let gauges = Gauges { up: 63, lost: 1, gateway, ..Gauges::default() };
        let point = Point { s: 7, operations: BTreeMap::from([("call", op)]), gauges: Some(gauges) };
        let live = Live { what: "calling".into(), elapsed_s: 2, of_s: 10, asked: 64, point };
        assert_eq!(
            of(&live),
            "calling: 2 of 10 s, 63 of 64 up, 1 lost; call 950/s, p50 0.51 p99 12.3 max 501 ms, 3 late; \
             gateway 50 % of a core, 3.0 MiB"
        );
    }
}
