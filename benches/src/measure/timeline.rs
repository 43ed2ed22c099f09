//! A run second by second.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::limits;

/// An operation in a second, by when it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpPoint {
    pub count: u64,
    pub errors: u64,
    pub late: u64,
    pub dropped: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// A process in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartGauge {
    /// Cores that it used.
    pub cores: Option<f64>,
    pub rss_bytes: Option<u64>,
}

/// What stood and what was used in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gauges {
    /// Connections that stand, welcomed.
    pub up: u64,
    /// Connections that ended after WELCOME, so far.
    pub lost: u64,
    pub gateway: PartGauge,
    pub backend: PartGauge,
    pub bench: PartGauge,
    /// What the kernel of this machine holds, of everybody.
    pub kernel_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Point {
    /// Seconds of the run when it began.
    pub s: u64,
    pub operations: BTreeMap<&'static str, OpPoint>,
    pub gauges: Option<Gauges>,
}

/// The timeline as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimelineReport {
    /// 1, and more in a long run: then a point has the worst p50, p99 and maximum of its seconds.
    pub seconds_a_point: u64,
    pub points: Vec<Point>,
}

/// Points of a second; neighbours are merged when they grow too many.
#[derive(Debug)]
pub(super) struct Timeline {
    seconds_a_point: u64,
    points: Vec<Point>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { seconds_a_point: 1, points: Vec::new() }
    }
}

impl Timeline {
    pub fn push(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if point.s < last.s + self.seconds_a_point => merge(last, &point),
            _ => self.points.push(Point { s: point.s - point.s % self.seconds_a_point, ..point }),
        }
        if self.points.len() > limits::TIMELINE_POINTS_MAX {
            self.halve();
        }
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }

    pub fn report(&self) -> TimelineReport {
        TimelineReport { seconds_a_point: self.seconds_a_point, points: self.points.clone() }
    }

    fn halve(&mut self) {
        self.seconds_a_point *= 2;
        for point in std::mem::take(&mut self.points) {
            match self.points.last_mut() {
                Some(last) if point.s < last.s + self.seconds_a_point => merge(last, &point),
                _ => self.points.push(Point { s: point.s - point.s % self.seconds_a_point, ..point }),
            }
        }
    }
}

fn merge(into: &mut Point, other: &Point) {
    for (name, op) in &other.operations {
        let own = into.operations.entry(name).or_default();
        // The percentile of two is no mean of theirs.
        own.p50_ms = own.p50_ms.max(op.p50_ms);
        own.p99_ms = own.p99_ms.max(op.p99_ms);
        own.max_ms = own.max_ms.max(op.max_ms);
        own.count += op.count;
        own.errors += op.errors;
        own.late += op.late;
        own.dropped += op.dropped;
    }
    into.gauges = other.gauges.or(into.gauges);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(s: u64, p99_ms: f64) -> Point {
        let op = OpPoint { count: 10, p50_ms: 1.0, p99_ms, max_ms: p99_ms, ..OpPoint::default() };
        Point { s, operations: BTreeMap::from([("call", op)]), gauges: None }
    }

    #[test]
    fn a_long_run_keeps_its_bound_its_counts_and_its_worst() {
        let mut timeline = Timeline::default();
        let seconds = limits::TIMELINE_POINTS_MAX as u64 * 5;
        for s in 0..seconds {
            timeline.push(point(s, if s == 777 { 90.0 } else { 2.0 }));
        }
        let report = timeline.report();
        assert!(report.points.len() <= limits::TIMELINE_POINTS_MAX && report.seconds_a_point == 8);
        let count: u64 = report.points.iter().map(|point| point.operations["call"].count).sum();
        assert_eq!(count, seconds * 10);
        assert!(report.points.windows(2).all(|pair| pair[1].s == pair[0].s + 8));
        let worst = report.points.iter().find(|point| point.operations["call"].p99_ms == 90.0);
        assert_eq!(worst.expect("the worst is kept").s, 776);
    }
}
