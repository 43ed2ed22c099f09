//! How long do forwarded calls take at a rate, how many are there at most, and what does one cost the gateway? Phones
//! call the echo service behind the gateway.
//!
//! With a rate: an open loop, calls have their times before the load begins, and latency counts from there. Without:
//! each phone has one call in flight, and makes the next when the answer came, as many as the system gives.

mod bench;
mod callers;
mod report;

pub use bench::{CallBench, CallOutcome, CallPlan, CallSetup};
pub use callers::{OPERATIONS, Pace};
pub use report::{CLOSED_HIDES, CallCost, CallReport, PaceReport, PartCost};

use crate::report::SCHEMA;
use crate::session::RunError;

#[derive(Debug, Clone)]
pub struct CallOptions {
    pub setup: CallSetup,
    pub seconds: u64,
    /// The same load before, which is measured apart.
    pub warm_up_s: u64,
    pub pace: Pace,
}

pub fn run(options: &CallOptions) -> Result<CallReport, RunError> {
    let setup = &options.setup;
    let mut bench = CallBench::open(setup, "moorgate-bench call")?;
    bench.connect(setup.clients)?;
    let mut plan = CallPlan {
        phase: "warm-up",
        pace: options.pace,
        phones: setup.clients,
        for_ms: options.warm_up_s * 1_000,
    };
    if plan.for_ms > 0 {
        let warm_up = bench.run(&plan)?;
        if warm_up.ended_early {
            return report(options, bench, warm_up);
        }
    }
    (plan.phase, plan.for_ms) = ("load", options.seconds * 1_000);
    bench.session.watch_others();
    let outcome = bench.run(&plan)?;
    bench.session.note_others();
    report(options, bench, outcome)
}

/// Of the load; of the warm-up, where Ctrl-C ended that.
fn report(options: &CallOptions, bench: CallBench, outcome: CallOutcome) -> Result<CallReport, RunError> {
    let setup = &options.setup;
    let (generator, errors_by_status) = (bench.judge(&outcome), bench.errors());
    let lost = outcome.after.1.lost - outcome.before.1.lost;
    let (session, recorded, _) = bench.close()?;
    let calls = outcome.latency.count();
    Ok(CallReport {
        schema: SCHEMA,
        command: "call",
        clients: setup.clients,
        payload_bytes: setup.payload_bytes,
        seconds: outcome.seconds,
        ended_early: outcome.ended_early,
        pace: options.pace.into(),
        calls,
        calls_per_second: calls as f64 / outcome.seconds,
        starts: outcome.counts.starts,
        late_starts: outcome.counts.late,
        dropped_starts: outcome.counts.dropped,
        errors: outcome.counts.errors + lost,
        errors_by_status,
        unanswered: outcome.unanswered,
        latency_ms: outcome.latency.percentiles(),
        server: CallCost::of(&outcome),
        gateway: session.told.clone(),
        generator,
        host: session.host.clone(),
        measured: recorded.recorder.measured(),
        recorded: Some(recorded),
    })
}
