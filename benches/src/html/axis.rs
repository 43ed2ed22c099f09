//! Where values stand on an axis, and where its ticks are.

/// How an axis maps values to places between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Axis {
    Linear {
        from: f64,
        to: f64,
    },
    /// Equal ratios are equally far apart.
    Log {
        from: f64,
        to: f64,
    },
    /// Shares of all: each further nine takes the same room. `nines` are shown.
    Nines {
        nines: f64,
    },
}

impl Axis {
    /// From 0 to a round number.
    pub fn from_zero(top: f64) -> Self {
        let step = round_step(top.max(1e-9) / 4.0);
        Axis::Linear { from: 0.0, to: (top / step).ceil().max(1.0) * step }
    }

    /// Whole decades around positive values.
    pub fn decades(low: f64, high: f64) -> Self {
        let from = 10f64.powf(low.max(1e-6).log10().floor());
        let to = 10f64.powf(high.max(1e-6).log10().ceil());
        Axis::Log { from, to: if to > from { to } else { from * 10.0 } }
    }

    pub fn place(&self, value: f64) -> f64 {
        match *self {
            Axis::Linear { from, to } => (value - from) / (to - from).max(f64::MIN_POSITIVE),
            Axis::Log { from, to } => (value.max(from) / from).log10() / (to / from).log10(),
            Axis::Nines { nines } => (-(1.0 - value).max(1e-12).log10()).min(nines) / nines,
        }
    }

    /// (value, label).
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Axis::Linear { from, to } => {
                let step = round_step((to - from) / 4.0);
                let first = (from / step).ceil() * step;
                let ticks = (0..=20).map(|at| first + f64::from(at) * step);
                ticks
                    .take_while(|&value| value <= to + step * 1e-6)
                    .map(|value| (value, short(value)))
                    .collect()
            }
            Axis::Log { from, to } => {
                let decades = (to / from).log10().round() as i32;
                (0..=decades).map(|at| from * 10f64.powi(at)).map(|value| (value, short(value))).collect()
            }
            Axis::Nines { nines } => {
                let shares =
                    [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
                let more = [(0.99999, "99.999 %"), (0.999999, "99.9999 %")];
                let all = shares.into_iter().chain(more);
                all.take(nines as usize + 1).map(|(value, label)| (value, label.to_owned())).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|by| by * decade)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(decade)
}

/// A number with three digits that count, thousands and millions named.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let told: Vec<String> =
            [0.0, 0.025, 1.5, 12.0, 999.4, 1_234.0, 25_000.0, 3_100_000.0, 8e9].map(short).into();
        assert_eq!(told, ["0", "0.025", "1.5", "12", "999", "1234", "25 k", "3.1 M", "8 G"]);
    }

    #[test]
    fn ticks_stand_where_their_values_do() {
        let labels = |axis: Axis| axis.ticks().into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(labels(Axis::from_zero(7.0)), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(Axis::decades(0.3, 80.0)), ["0.1", "1", "10", "100"]);
        assert_eq!(labels(Axis::Nines { nines: 3.0 }), ["0 %", "90 %", "99 %", "99.9 %"]);
        let nines = Axis::Nines { nines: 4.0 };
        assert!((nines.place(0.99) - 0.5).abs() < 1e-9 && nines.place(1.0) == 1.0);
        assert!((Axis::decades(1.0, 100.0).place(10.0) - 0.5).abs() < 1e-9);
        for axis in [Axis::from_zero(0.0), Axis::decades(0.0, 0.0), Axis::decades(5.0, 5.0)] {
            assert!(
                axis.ticks().len() >= 2 && axis.ticks().iter().all(|tick| axis.place(tick.0).is_finite())
            );
        }
    }
}
