//! Which charts a report has: what of `measured` is there is drawn, whatever the command.

use serde_json::Value;

use super::axis::Axis;
use super::chart::{Chart, Line};

/// A chart of latencies is drawn in decades when its highest is so many times its lowest.
const LOG_FROM_RATIO: f64 = 30.0;

pub(super) fn of(report: &Value) -> Vec<Chart> {
    let measured = &report["measured"];
    let points = measured["timeline"]["points"].as_array().map_or(&[][..], Vec::as_slice);
    let seconds_a_point = measured["timeline"]["seconds_a_point"].as_f64().unwrap_or(1.0);
    let time = Time::new(points, measured);
    let mut charts = Vec::new();
    charts.extend(time.latency());
    charts.extend(percentiles(measured));
    charts.extend(time.rate(seconds_a_point));
    charts.extend(time.connections());
    charts.extend(time.bytes_a_connection());
    charts.extend(time.cpu());
    charts.extend(time.memory());
    charts.extend(rounds(report));
    charts
}

/// What a unit cost in each round of a comparison, both sides in turn.
fn rounds(report: &Value) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (key, raw) in report["raw"].as_object().into_iter().flatten() {
        let side = |name: &str, rounds: &str, color| {
            let rounds = raw[rounds].as_array().into_iter().flatten().enumerate();
            let points = rounds
                .filter_map(|(at, round)| Some(((at + 1) as f64, round["cpu_us_per_unit"].as_f64()?)))
                .collect();
            Line { name: name.to_owned(), points, color, ..Line::default() }
        };
        let peer = raw["peer_name"].as_str().unwrap_or("peer");
        let lines = vec![side("ours", "ours_rounds", 0), side(peer, "peer_rounds", 1)];
        let most = lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
        if most > 0 {
            charts.push(Chart {
                title: key.clone(),
                note: format!("{}, by round", raw["unit"].as_str().unwrap_or("")),
                unit: "us",
                x: Axis::Linear { from: 1.0, to: (most as f64).max(2.0) },
                y: Axis::from_zero(top(&lines)),
                x_unit: "",
                lines,
                phases: Vec::new(),
            });
        }
    }
    charts
}

/// Fewer say nothing of what one takes.
const CONNECTIONS_TO_DIVIDE_BY: f64 = 500.0;

/// The timeline of a report.
struct Time<'a> {
    points: &'a [Value],
    phases: Vec<(String, f64, f64)>,
}

impl<'a> Time<'a> {
    fn new(points: &'a [Value], measured: &Value) -> Self {
        let phases = measured["phases"].as_array().into_iter().flatten().filter_map(|phase| {
            let name = phase["name"].as_str()?.to_owned();
            Some((name, phase["from_s"].as_f64()?, phase["until_s"].as_f64()?))
        });
        Self { points, phases: phases.collect() }
    }

    fn operations(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for point in self.points {
            for name in point["operations"].as_object().into_iter().flat_map(|all| all.keys()) {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// When the last phase was over.
    fn until_s(&self) -> f64 {
        self.phases.iter().map(|phase| phase.2).fold(0.0, f64::max)
    }

    /// The line of a value, where a point has it.
    fn line(&self, read: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
        self.points.iter().filter_map(|point| Some((point["s"].as_f64()?, read(point)?))).collect()
    }

    fn chart(&self, title: &str, unit: &'static str, note: &str, y: Axis, lines: Vec<Line>) -> Option<Chart> {
        let lines: Vec<Line> = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
        let all = || lines.iter().flat_map(|line| &line.points).map(|point| point.0);
        let (from, to) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        (!lines.is_empty()).then(|| Chart {
            title: title.to_owned(),
            note: note.to_owned(),
            unit,
            x: Axis::Linear { from, to: to.max(from + 1.0) },
            y,
            x_unit: " s",
            lines,
            phases: self.phases.clone(),
        })
    }

    fn latency(&self) -> Option<Chart> {
        let mut lines = Vec::new();
        for (color, name) in self.operations().into_iter().enumerate() {
            for (key, is_faint) in [("p50_ms", true), ("p99_ms", false), ("max_ms", true)] {
                let read = |point: &Value| {
                    let op = &point["operations"][name];
                    op["count"].as_u64().filter(|&count| count > 0)?;
                    op[key].as_f64()
                };
                let label = format!("{name} {}", key.trim_end_matches("_ms"));
                let is_dashed = key == "max_ms";
                lines.push(Line { name: label, points: self.line(read), is_faint, is_dashed, color });
            }
        }
        let y = latency_axis(&lines);
        self.chart("Latency over time", "ms", "by the second in which it was done", y, lines)
    }

    fn rate(&self, seconds_a_point: f64) -> Option<Chart> {
        let mut lines = Vec::new();
        let mut color = 0;
        for name in self.operations() {
            for (key, label) in
                [("count", "done"), ("errors", "errors"), ("late", "late starts"), ("dropped", "dropped")]
            {
                let read = |point: &Value| {
                    // The last second is seldom a whole one.
                    point["s"].as_f64().filter(|s| s + seconds_a_point <= self.until_s())?;
                    Some(point["operations"][name][key].as_f64()? / seconds_a_point)
                };
                let points = self.line(read);
                if key == "count" || points.iter().any(|point| point.1 > 0.0) {
                    lines.push(Line { name: format!("{name} {label}"), points, color, ..Line::default() });
                    color += 1;
                }
            }
        }
        let y = Axis::from_zero(top(&lines));
        self.chart("Rate", "a second", "", y, lines)
    }

    fn connections(&self) -> Option<Chart> {
        let gauge = |key: &'static str| self.line(move |point| point["gauges"][key].as_f64());
        let mut lines = vec![Line { name: "stand".into(), points: gauge("up"), color: 2, ..Line::default() }];
        let lost = gauge("lost");
        if lost.iter().any(|point| point.1 > 0.0) {
            lines.push(Line { name: "lost so far".into(), points: lost, color: 3, ..Line::default() });
        }
        let y = Axis::from_zero(top(&lines));
        self.chart("Connections", "", "", y, lines)
    }

    /// What is held beyond a reading before the connections came, where there are enough of them to divide by; else all
    /// that the gateway holds.
    fn bytes_a_connection(&self) -> Option<Chart> {
        let up = |point: &Value| point["gauges"]["up"].as_f64();
        let user = |point: &Value| point["gauges"]["gateway"]["rss_bytes"].as_f64();
        let kernel = |point: &Value| point["gauges"]["kernel_bytes"].as_f64();
        let most = self.points.iter().filter_map(up).fold(0.0, f64::max);
        let before = self.points.iter().find(|point| up(point).is_some_and(|up| up <= most / 20.0));
        let line = |name: &str, color, read: &dyn Fn(&Value) -> Option<f64>, base: f64| {
            // A few connections divide noise into millions.
            let enough = |point: &Value| up(point).filter(|&up| up > 0.0 && up >= most / 4.0);
            let points = self.line(|point| Some(((read(point)? - base) / enough(point)?).max(1.0)));
            Line { name: name.to_owned(), points, color, ..Line::default() }
        };
        let (lines, note) = match before.filter(|_| most >= CONNECTIONS_TO_DIVIDE_BY) {
            Some(before) => {
                let base = |read: &dyn Fn(&Value) -> Option<f64>| read(before).unwrap_or(0.0);
                let lines = vec![
                    line("gateway's memory", 0, &user, base(&user)),
                    line("kernel's, machine-wide", 1, &kernel, base(&kernel)),
                ];
                (lines, "growth since before they came, by the connections that stand")
            }
            None => (
                vec![line("gateway's memory", 0, &user, 0.0)],
                "all that it holds, by the connections that stand",
            ),
        };
        self.chart("Bytes a connection", "B", note, latency_axis(&lines), lines)
    }

    fn part_lines(&self, key: &'static str, scale: f64) -> Vec<Line> {
        let parts = [("gateway", 0), ("backend", 2), ("bench", 1)];
        let line = |(part, color): (&'static str, usize)| {
            let read = move |point: &Value| Some(point["gauges"][part][key].as_f64()? * scale);
            Line { name: part.to_owned(), points: self.line(read), color, ..Line::default() }
        };
        parts.map(line).into()
    }

    fn cpu(&self) -> Option<Chart> {
        let lines = self.part_lines("cores", 100.0);
        let y = Axis::from_zero(top(&lines).max(100.0));
        self.chart("CPU of both sides", "% of a core", "", y, lines)
    }

    fn memory(&self) -> Option<Chart> {
        let lines = self.part_lines("rss_bytes", 1.0 / f64::from(1 << 20));
        let y = Axis::from_zero(top(&lines));
        self.chart("Memory", "MiB", "resident", y, lines)
    }
}

/// Latency by share of all, each further nine as wide as the last.
fn percentiles(measured: &Value) -> Option<Chart> {
    let mut lines = Vec::new();
    for (name, phases) in measured["operations"].as_object()? {
        for (phase, told) in phases.as_object().into_iter().flatten() {
            let points = told["percentiles"].as_array().into_iter().flatten();
            let points: Vec<_> =
                points.filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect();
            if points.len() > 1 {
                let is_faint = phase == "warm-up";
                lines.push(Line {
                    name: format!("{name}, {phase}"),
                    points,
                    is_faint,
                    color: lines.len(),
                    ..Line::default()
                });
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    // The last nine that more than a handful stand behind.
    let most = measured["operations"].as_object()?.values().filter_map(|phases| phases.as_object());
    let most =
        most.flat_map(|phases| phases.values()).filter_map(|told| told["done"].as_f64()).fold(10.0, f64::max);
    let nines = most.log10().floor().clamp(2.0, 6.0);
    Some(Chart {
        title: "Latency by percentile".into(),
        note: "from the intended start in an open loop".into(),
        unit: "ms",
        x: Axis::Nines { nines },
        y: latency_axis(&lines),
        x_unit: "",
        lines,
        phases: Vec::new(),
    })
}

fn top(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max)
}

fn latency_axis(lines: &[Line]) -> Axis {
    let low = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = top(lines);
    if high > low.max(1e-6) * LOG_FROM_RATIO { Axis::decades(low, high) } else { Axis::from_zero(high) }
}
