//! The highest rate at which 99 of 100 are done within a time, counted from their intended starts. Found by search, and
//! repeated for longer at the end: what holds for four seconds need not hold for twenty.

use serde::Serialize;

use crate::call::{CallBench, CallCost, CallPlan, CallSetup, Pace};
use crate::chat::{self, ChatBench, ChatOptions};
use crate::limits;
use crate::measure::{Arrival, Measured};
use crate::report::{Generator, HostFacts, Recorded, Report, SCHEMA};
use crate::search::{self, Bounds};
use crate::servers::GatewayTold;
use crate::session::{RunError, Session};

#[derive(Debug, Clone)]
pub struct FindMaxOptions {
    pub p99_ms: f64,
    pub bounds: Bounds,
    pub trial_s: u64,
    pub confirm_s: u64,
    pub scenario: Scenario,
}

/// What is done at the rate.
#[derive(Debug, Clone)]
pub enum Scenario {
    Call {
        setup: CallSetup,
        arrival: Arrival,
    },
    /// Its rate and seconds are not used.
    Chat(ChatOptions),
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FindMaxReport {
    pub schema: u32,
    pub command: &'static str,
    pub scenario: &'static str,
    pub clients: u32,
    pub target_p99_ms: f64,
    /// Confirmed; none: not even the lowest that was tried held.
    pub highest_rate: Option<f64>,
    /// Ctrl-C came before a rate was confirmed.
    pub ended_early: bool,
    pub is_good: bool,
    pub verdict: String,
    /// The longer run at the highest rate.
    pub confirmed: Option<RateTrial>,
    pub trials: Vec<RateTrial>,
    /// Of the run that confirmed.
    pub server: Option<CallCost>,
    /// The gateway's own word, of the last trial.
    pub gateway: Option<GatewayTold>,
    pub generator: Generator,
    pub host: HostFacts,
    pub measured: Measured,
    #[serde(skip)]
    pub recorded: Option<Recorded>,
}

/// A load of a rate, short or long.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RateTrial {
    pub rate: f64,
    pub seconds: f64,
    pub held: bool,
    pub done_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub late_starts: u64,
    pub dropped_starts: u64,
    pub errors: u64,
    /// Not done when the time after the load was over.
    pub unfinished: u64,
    /// The bench's own threads were the limit, so a better server would not have held more.
    pub generator_was_the_limit: bool,
    pub why: String,
}

/// What can be put under loads of chosen rates.
trait Rated {
    fn trial(&mut self, rate: f64, for_ms: u64, target_ms: f64) -> Result<(RateTrial, Generator), RunError>;
    fn say(&mut self, text: &str);
    /// The servers' cost of the last trial, where it is known by call.
    fn cost(&self) -> Option<CallCost> {
        None
    }
    fn close(self) -> Result<(Session, Recorded), RunError>;
}

pub fn run(options: &FindMaxOptions) -> Result<FindMaxReport, RunError> {
    match &options.scenario {
        Scenario::Call { setup, arrival } => {
            let mut bench = CallBench::open(setup, "moorgate-bench find-max --scenario call")?;
            bench.connect(setup.clients)?;
            let calls = Calls { bench, phones: setup.clients, arrival: *arrival, cost: None };
            find(options, calls, "call", setup.clients)
        }
        Scenario::Chat(chat) => find(options, ChatBench::open_ready(chat)?, "chat", chat.clients),
    }
}

fn find(
    options: &FindMaxOptions,
    mut load: impl Rated,
    scenario: &'static str,
    clients: u32,
) -> Result<FindMaxReport, RunError> {
    let target_ms = options.p99_ms;
    // The first load finds cold caches and empty tables, which is no fault of its rate.
    load.trial(options.bounds.from, limits::FIND_WARM_UP_MS, target_ms)?;
    let mut found = Found::default();
    let ended_early = match found.search(options, &mut load) {
        Ok(()) => false,
        // What was tried is what ran.
        Err(RunError::Interrupted) if found.last.is_some() => true,
        Err(error) => return Err(error),
    };
    let Found { confirmed, trials, last } = found;
    let cost = confirmed.as_ref().and_then(|_| load.cost());
    let highest_rate = confirmed.as_ref().map(|trial| trial.rate);
    let verdict = match ended_early {
        true => told_early(target_ms, &trials),
        false => verdict(target_ms, confirmed.as_ref(), &trials),
    };
    let (session, recorded) = load.close()?;
    Ok(FindMaxReport {
        schema: SCHEMA,
        command: "find-max",
        scenario,
        clients,
        target_p99_ms: target_ms,
        highest_rate,
        ended_early,
        is_good: highest_rate.is_some() || ended_early,
        verdict,
        confirmed,
        trials,
        server: cost,
        gateway: session.told.clone(),
        generator: last.ok_or_else(|| RunError::Setup("no rate was tried".to_owned()))?,
        host: session.host.clone(),
        measured: recorded.recorder.measured(),
        recorded: Some(recorded),
    })
}

/// What a search has found so far.
#[derive(Default)]
struct Found {
    confirmed: Option<RateTrial>,
    trials: Vec<RateTrial>,
    /// Of the last trial.
    last: Option<Generator>,
}

impl Found {
    /// Searches, then repeats what held for longer; what did not hold then is lowered.
    fn search(&mut self, options: &FindMaxOptions, load: &mut impl Rated) -> Result<(), RunError> {
        let (held, _) = search::highest(&options.bounds, |rate| {
            let trial = self.trial(rate, options.trial_s, options.p99_ms, load)?;
            let held = trial.held;
            self.trials.push(trial);
            Ok::<_, RunError>((held, ()))
        })?;
        let mut rate = held;
        for _ in 0..limits::CONFIRMATIONS_MAX {
            let Some(asked) = rate else { break };
            load.say(&format!("{asked:.0} a second held; repeating it for {} s", options.confirm_s));
            let trial = self.trial(asked, options.confirm_s, options.p99_ms, load)?;
            if trial.held {
                self.confirmed = Some(trial);
                break;
            }
            self.trials.push(trial);
            rate = Some(asked * limits::CONFIRM_STEP_DOWN);
        }
        Ok(())
    }

    fn trial(
        &mut self,
        rate: f64,
        for_s: u64,
        target_ms: f64,
        load: &mut impl Rated,
    ) -> Result<RateTrial, RunError> {
        let (trial, generator) = load.trial(rate, for_s * 1_000, target_ms)?;
        load.say(&trial.why);
        self.last = Some(generator);
        Ok(trial)
    }
}

fn told_early(target_ms: f64, trials: &[RateTrial]) -> String {
    let held = trials.iter().filter(|trial| trial.held).map(|trial| trial.rate).reduce(f64::max);
    let best = held.map_or("none of them kept".to_owned(), |rate| format!("{rate:.0} a second kept"));
    format!(
        "ended by Ctrl-C after {} trials: {best} p99 within {target_ms} ms, and nothing was confirmed",
        trials.len()
    )
}

fn verdict(target_ms: f64, confirmed: Option<&RateTrial>, trials: &[RateTrial]) -> String {
    let Some(best) = confirmed else {
        return format!("no rate that was tried kept p99 within {target_ms} ms");
    };
    let failed = trials.iter().filter(|trial| !trial.held && trial.rate > best.rate);
    let next = failed.min_by(|a, b| a.rate.total_cmp(&b.rate));
    let why = match next {
        Some(next) if next.generator_was_the_limit => {
            " (beyond it the generator was the limit: the server may hold more)".to_owned()
        }
        Some(next) => format!(" ({:.0} did not hold)", next.rate),
        None => " (nothing higher was tried)".to_owned(),
    };
    format!(
        "{:.0} a second is the highest rate with p99 within {target_ms} ms: {:.0} done a second, p99 {:.2} ms in {:.0} s{why}",
        best.rate, best.done_per_second, best.p99_ms, best.seconds
    )
}

struct Calls {
    bench: CallBench,
    phones: u32,
    arrival: Arrival,
    cost: Option<CallCost>,
}

impl Rated for Calls {
    fn trial(&mut self, rate: f64, for_ms: u64, target_ms: f64) -> Result<(RateTrial, Generator), RunError> {
        let phase = format!("{rate:.0}/s for {} s", for_ms / 1_000);
        let pace = Pace::Open { rate, arrival: self.arrival };
        let outcome = self.bench.run(&CallPlan { phase: &phase, pace, phones: self.phones, for_ms })?;
        if outcome.ended_early {
            return Err(RunError::Interrupted);
        }
        let generator = self.bench.judge(&outcome);
        self.cost = Some(CallCost::of(&outcome));
        let told = outcome.latency.percentiles();
        let counts = outcome.counts;
        let mut trial = RateTrial {
            rate,
            seconds: outcome.seconds,
            held: told.p99 <= target_ms && counts.errors + counts.dropped + outcome.unanswered == 0,
            done_per_second: outcome.latency.count() as f64 / outcome.seconds,
            p50_ms: told.p50,
            p99_ms: told.p99,
            late_starts: counts.late,
            dropped_starts: counts.dropped,
            errors: counts.errors,
            unfinished: outcome.unanswered,
            generator_was_the_limit: generator.idle_share < 0.05,
            why: String::new(),
        };
        trial.why = trial.told();
        Ok((trial, generator))
    }

    fn say(&mut self, text: &str) {
        self.bench.progress.say(text);
    }

    fn cost(&self) -> Option<CallCost> {
        self.cost.clone()
    }

    fn close(self) -> Result<(Session, Recorded), RunError> {
        let (session, recorded, _) = self.bench.close()?;
        Ok((session, recorded))
    }
}

impl Rated for ChatBench<'_> {
    fn trial(&mut self, rate: f64, for_ms: u64, target_ms: f64) -> Result<(RateTrial, Generator), RunError> {
        let (trial, generator) = self.judged_trial(rate, for_ms, target_ms)?;
        let chat::Trial { held, ack_p99_ms, deliver_p99_ms, left, late_starts, .. } = trial;
        let mut told = RateTrial {
            rate,
            seconds: for_ms as f64 / 1e3,
            held,
            done_per_second: trial.acknowledged_per_second,
            p50_ms: trial.deliver_p50_ms,
            p99_ms: ack_p99_ms.max(deliver_p99_ms),
            late_starts,
            dropped_starts: trial.dropped_starts,
            errors: 0,
            unfinished: left,
            generator_was_the_limit: generator.idle_share < 0.05,
            why: String::new(),
        };
        told.why = told.told();
        Ok((told, generator))
    }

    fn say(&mut self, text: &str) {
        ChatBench::say(self, text);
    }

    fn close(self) -> Result<(Session, Recorded), RunError> {
        ChatBench::close(self)
    }
}

impl RateTrial {
    fn told(&self) -> String {
        let mut text = format!(
            "{:.0} a second {}: {:.0} done a second, p50 {:.2} ms, p99 {:.2} ms",
            self.rate,
            if self.held { "holds" } else { "does not hold" },
            self.done_per_second,
            self.p50_ms,
            self.p99_ms
        );
        for (count, what) in [
            (self.errors, "errors"),
            (self.unfinished, "unfinished"),
            (self.dropped_starts, "dropped starts"),
            (self.late_starts, "late starts"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if self.generator_was_the_limit {
            text.push_str("; the generator was the limit");
        }
        text
    }
}

impl Report for FindMaxReport {
    fn is_good(&self) -> bool {
        self.is_good
    }

    fn summary(&self) -> String {
        format!("{}\n{}", self.verdict, self.generator.verdict)
    }

    crate::report::on_record!();
}
