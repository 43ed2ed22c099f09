//! A chart as inline SVG: lines over time or over shares, the phases shaded behind.

use std::fmt::Write;

use super::axis::{Axis, short};
use super::escape;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// Points of a line; a longer one is thinned to its highest in each stretch.
const POINTS_MAX: usize = 600;

#[derive(Debug, Default, Clone)]
pub(super) struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Of a pair that belongs together, the one that is less looked at.
    pub is_faint: bool,
    pub is_dashed: bool,
    /// The colour's number; lines of one operation share it.
    pub color: usize,
}

#[derive(Debug)]
pub(super) struct Chart {
    pub title: String,
    /// What a reader must know to read it.
    pub note: String,
    pub unit: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub x_unit: &'static str,
    pub lines: Vec<Line>,
    /// (name, from, to) on the x axis.
    pub phases: Vec<(String, f64, f64)>,
}

impl Line {
    fn look(&self) -> &'static str {
        match (self.is_faint, self.is_dashed) {
            (false, false) => "",
            (true, false) => " faint",
            (false, true) => " dashed",
            (true, true) => " faint dashed",
        }
    }
}

impl Chart {
    pub fn figure(&self) -> String {
        let mut out = format!("<figure><figcaption><b>{}</b>", escape(&self.title));
        if !self.unit.is_empty() {
            let _ = write!(out, " <span class=unit>{}</span>", escape(self.unit));
        }
        let _ = write!(out, "<span class=note>{}</span></figcaption>", escape(&self.note));
        self.svg(&mut out);
        if self.lines.len() > 1 {
            out.push_str("<div class=legend>");
            for line in &self.lines {
                let faint = line.look();
                let _ = write!(
                    out,
                    "<span class=\"c{}{faint}\"><i></i>{}</span>",
                    line.color % 8,
                    escape(&line.name)
                );
            }
            out.push_str("</div>");
        }
        out.push_str("</figure>\n");
        out
    }

    fn svg(&self, out: &mut String) {
        let lines = self.lines.iter().map(|line| {
            let points: Vec<(f64, f64)> = thin(&line.points);
            let placed: Vec<[f64; 2]> = points
                .iter()
                .map(|&point| [rounded(self.x_of(point.0)), rounded(self.y_of(point.1))])
                .collect();
            let told: Vec<String> = points.iter().map(|point| self.told(point)).collect();
            (line, placed, told)
        });
        let lines: Vec<_> = lines.collect();
        let data: Vec<_> = lines
            .iter()
            .map(|(line, placed, told)| serde_json::json!({"name": line.name, "c": line.color % 8, "p": placed, "t": told}))
            .collect();
        let data = escape(&serde_json::Value::from(data).to_string());
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\" data-lines=\"{data}\">",
            escape(&self.title)
        );
        self.grid(out);
        for (line, placed, _) in &lines {
            let faint = line.look();
            let path: Vec<String> = placed.iter().map(|[x, y]| format!("{x} {y}")).collect();
            let color = line.color % 8;
            match placed.as_slice() {
                [] => {}
                [[x, y]] => {
                    let _ = write!(out, "<circle class=\"c{color}{faint}\" cx={x} cy={y} r=3 />");
                }
                _ => {
                    let _ = write!(out, "<path class=\"line c{color}{faint}\" d=\"M{}\"/>", path.join("L"));
                }
            }
        }
        out.push_str("</svg>");
    }

    fn grid(&self, out: &mut String) {
        for (at, (name, from, to)) in self.phases.iter().enumerate() {
            let (x, end) = (self.x_of(*from).max(LEFT), self.x_of(*to).min(WIDTH - RIGHT));
            if end - x < 1.0 {
                continue;
            }
            let shade = if at % 2 == 0 { "even" } else { "odd" };
            let height = HEIGHT - TOP - BOTTOM;
            let _ = write!(
                out,
                "<rect class=\"phase {shade}\" x={x:.1} y={TOP} width={:.1} height={height} />",
                end - x
            );
            // Some 6 units a letter.
            if end - x > name.len() as f64 * 6.0 + 8.0 {
                let _ = write!(
                    out,
                    "<text class=phase x={:.1} y={}>{}</text>",
                    x + 4.0,
                    TOP + 12.0,
                    escape(name)
                );
            }
        }
        for (value, label) in self.y.ticks() {
            let y = self.y_of(value);
            let _ = write!(out, "<path class=grid d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT);
            let _ = write!(out, "<text class=y x={} y={:.1}>{label}</text>", LEFT - 6.0, y + 4.0);
        }
        for (value, label) in self.x.ticks() {
            let x = self.x_of(value);
            let _ = write!(out, "<path class=grid d=\"M{x:.1} {TOP}V{}\"/>", HEIGHT - BOTTOM);
            let _ = write!(out, "<text class=x x={x:.1} y={}>{label}{}</text>", HEIGHT - 10.0, self.x_unit);
        }
    }

    /// A point in words, for who points at it.
    fn told(&self, point: &(f64, f64)) -> String {
        let x = match self.x {
            Axis::Nines { .. } => format!("{} %", (point.0 * 1e8).round() / 1e6),
            _ => format!("{}{}", short(point.0), self.x_unit),
        };
        format!("{x}: {} {}", short(point.1), self.unit)
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.place(value).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y_of(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

fn rounded(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

/// The highest of each stretch: a spike is what one looks for.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |some: &[(f64, f64)]| some.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    points.chunks(stretch).filter_map(highest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_keeps_its_spikes_and_escapes_its_words() {
        let points = (0..10_000).map(|x| (f64::from(x), if x == 7_777 { 9.0 } else { 1.0 })).collect();
        let line = Line { name: "a<b".into(), points, ..Line::default() };
        let chart = Chart {
            title: "\"x\" & y".into(),
            note: String::new(),
            unit: "ms",
            x: Axis::Linear { from: 0.0, to: 10_000.0 },
            y: Axis::from_zero(9.0),
            x_unit: " s",
            lines: vec![line.clone(), line],
            phases: vec![("load".into(), 1_000.0, 9_000.0)],
        };
        let text = chart.figure();
        assert!(
            text.contains("7777 s: 9 ms")
                && text.contains("&quot;x&quot; &amp; y")
                && text.contains("a&lt;b")
        );
        assert!(text.contains(">load</text>") && !text.contains("NaN") && !text.contains("a<b"));
        assert!(thin(&[(0.0, 1.0); 9_999]).len() <= POINTS_MAX);
    }
}
