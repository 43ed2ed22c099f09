//! What happens as the load rises: the rate, or the connections, in steps; each has a line and a histogram of its own.

use serde::Serialize;

use crate::call::{CallBench, CallCost, CallPlan, CallSetup, Pace};
use crate::latency::Percentiles;
use crate::limits;
use crate::measure::{Arrival, Measured};
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA};
use crate::servers::GatewayTold;
use crate::session::RunError;

#[derive(Debug, Clone)]
pub struct RampOptions {
    /// Its clients are the most of any step.
    pub setup: CallSetup,
    pub steps: Vec<Step>,
    pub step_s: u64,
    pub arrival: Arrival,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub phones: u32,
    pub rate: f64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RampReport {
    pub schema: u32,
    pub command: &'static str,
    pub clients: u32,
    pub payload_bytes: usize,
    pub seconds: f64,
    pub ended_early: bool,
    pub steps: Vec<StepReport>,
    /// The gateway's own word, of the last step.
    pub gateway: Option<GatewayTold>,
    /// Of the last step.
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StepReport {
    pub phones: u32,
    pub rate: f64,
    pub done_per_second: f64,
    pub errors: u64,
    pub late_starts: u64,
    pub dropped_starts: u64,
    pub unanswered: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub generator_was_the_limit: bool,
    pub server: CallCost,
}

pub fn run(options: &RampOptions) -> Result<RampReport, RunError> {
    let mut bench = CallBench::open(&options.setup, "moorgate-bench ramp")?;
    let (mut steps, mut last, mut seconds, mut ended_early) = (Vec::new(), None, 0.0, false);
    for (at, step) in options.steps.iter().take(limits::STEPS_MAX).enumerate() {
        match bench.connect(step.phones) {
            // The steps before are what ran.
            Err(RunError::Interrupted) if at > 0 => {
                ended_early = true;
                break;
            }
            connected => connected?,
        }
        let phase = format!("step {}: {} phones, {:.0}/s", at + 1, step.phones, step.rate);
        let pace = Pace::Open { rate: step.rate, arrival: options.arrival };
        let plan = CallPlan { phase: &phase, pace, phones: step.phones, for_ms: options.step_s * 1_000 };
        let outcome = bench.run(&plan)?;
        let generator = bench.judge(&outcome);
        let Percentiles { p50, p99, p999, max } = outcome.latency.percentiles();
        let told = StepReport {
            phones: step.phones,
            rate: step.rate,
            done_per_second: outcome.latency.count() as f64 / outcome.seconds,
            errors: outcome.counts.errors,
            late_starts: outcome.counts.late,
            dropped_starts: outcome.counts.dropped,
            unanswered: outcome.unanswered,
            p50_ms: p50,
            p99_ms: p99,
            p999_ms: p999,
            max_ms: max,
            generator_was_the_limit: generator.was_the_limit,
            server: CallCost::of(&outcome),
        };
        bench.progress.say(&told.line());
        steps.push(told);
        last = Some(generator);
        seconds += outcome.seconds;
        if outcome.ended_early {
            ended_early = true;
            break;
        }
    }
    let generator = last.ok_or_else(|| RunError::Setup("a ramp without steps".to_owned()))?;
    let (session, recorded, _) = bench.close()?;
    Ok(RampReport {
        schema: SCHEMA,
        command: "ramp",
        clients: options.setup.clients,
        payload_bytes: options.setup.payload_bytes,
        seconds,
        ended_early,
        steps,
        gateway: session.told.clone(),
        generator,
        host: session.host.clone(),
        measured: recorded.recorder.measured(),
        recorded: Some(recorded),
    })
}

impl StepReport {
    fn line(&self) -> String {
        format!(
            "{:>8} phones {:>9.0}/s: {:>9.0}/s done, p50 {:>8.2} ms, p99 {:>8.2} ms, max {:>8.2} ms, {} errors, {} late, \
             {} dropped{}",
            self.phones,
            self.rate,
            self.done_per_second,
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.errors,
            self.late_starts,
            self.dropped_starts,
            if self.generator_was_the_limit { "; the generator was the limit" } else { "" }
        )
    }
}

impl Report for RampReport {
    fn is_good(&self) -> bool {
        // Where it breaks is what a ramp is for; only errors are no figure.
        self.steps.iter().all(|step| step.errors == 0)
            && self.steps.iter().any(|step| step.done_per_second > 0.0)
    }

    fn summary(&self) -> String {
        let lines: Vec<String> = self.steps.iter().map(StepReport::line).collect();
        format!("{}\n{}", lines.join("\n"), self.generator.verdict)
    }

    crate::report::on_record!();
}

/// `1000,2000,8000`, or `1000-8000/8` for eight steps of equal size.
pub fn parse_list(text: &str) -> Result<Vec<f64>, String> {
    let number = |part: &str| {
        let value: f64 = part.trim().parse().map_err(|_| format!("{part} is not a number"))?;
        if (0.1..=1e7).contains(&value) {
            Ok(value)
        } else {
            Err(format!("{part} is not in 0.1 to 10000000"))
        }
    };
    let list: Vec<f64> =
        match text.split_once('-').and_then(|(from, rest)| Some((from, rest.split_once('/')?))) {
            None => text.split(',').map(number).collect::<Result<_, _>>()?,
            Some((from, (to, steps))) => {
                let (from, to) = (number(from)?, number(to)?);
                let steps: usize = steps.parse().map_err(|_| format!("{steps} is no count of steps"))?;
                if steps < 2 {
                    return Err("FROM-TO/STEPS has two steps at least".to_owned());
                }
                let steps = steps.min(limits::STEPS_MAX + 1);
                (0..steps).map(|at| from + (to - from) * at as f64 / (steps - 1) as f64).collect()
            }
        };
    if list.len() > limits::STEPS_MAX {
        return Err(format!("more than {} steps", limits::STEPS_MAX));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_a_list_or_a_range() {
        assert_eq!(parse_list("100, 2000,5"), Ok(vec![100.0, 2000.0, 5.0]));
        assert_eq!(parse_list("1000-8000/8").expect("a range").len(), 8);
        assert_eq!(parse_list("1000-3000/3"), Ok(vec![1000.0, 2000.0, 3000.0]));
        for bad in ["", "a", "1-2/1", "1-2/x", "0", "1-1e9/3", "1-9/1000"] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }
}
