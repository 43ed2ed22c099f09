//! How many forwarded calls a second, and what does one cost the gateway? Each phone has one call to the echo service
//! in flight, and makes the next when the answer came (a closed loop: as many as the system gives).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use proto_wire::pb;
use proto_wire::phone::{Phone, PhoneConfig, PhoneEvent};
use proto_wire::services::echo;
use proto_wire::status::Code;
use serde::Serialize;

use crate::fleet::{App, Fleet, FleetConfig, Now, Phones, Receive, wait_until};
use crate::identity::Identities;
use crate::latency::{Latency, Percentiles};
use crate::limits;
use crate::report::{Generator, HostFacts, Progress, SCHEMA, figure, share};
use crate::session::{Place, RunError, Session};

#[derive(Debug, Clone)]
pub struct CallOptions {
    pub clients: u32,
    pub payload_bytes: usize,
    pub seconds: u64,
    pub place: Place,
}

#[derive(Debug, Serialize)]
pub struct CallReport {
    pub schema: u32,
    pub command: &'static str,
    pub clients: u32,
    pub payload_bytes: usize,
    pub seconds: f64,
    pub calls: u64,
    pub calls_per_second: f64,
    pub errors: u64,
    pub errors_by_status: BTreeMap<String, u64>,
    pub latency_ms: Percentiles,
    pub server: CallCost,
    pub generator: Generator,
    pub host: HostFacts,
}

#[derive(Debug, Serialize)]
pub struct CallCost {
    pub gateway: PartCost,
    pub backend: PartCost,
}

#[derive(Debug, Serialize)]
pub struct PartCost {
    pub cpu_us_per_call: Option<f64>,
    /// The share of one core.
    pub cores_used: Option<f64>,
    pub rss_bytes: Option<u64>,
}

impl CallReport {
    pub fn is_good(&self) -> bool {
        self.errors == 0 && self.calls > 0
    }

    pub fn summary(&self) -> String {
        let us = |part: &PartCost| figure(part.cpu_us_per_call, "us");
        format!(
            "{:.0} forwarded calls a second ({} calls, {} errors) by {} phones with {} bytes\n\
             latency: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms\n\
             CPU a call: {} {}, backend {}\n{}",
            self.calls_per_second,
            self.calls,
            self.errors,
            self.clients,
            self.payload_bytes,
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.latency_ms.p999,
            self.latency_ms.max,
            self.host.names()[0],
            us(&self.server.gateway),
            us(&self.server.backend),
            self.generator.verdict,
        )
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Calls are made from then on; 0: not yet.
    from_us: AtomicU64,
    until_us: AtomicU64,
    answered: AtomicU64,
    outcome: Mutex<Outcome>,
}

/// What came of the calls, given when a thread's last turn is over.
#[derive(Debug, Default)]
struct Outcome {
    latency: Latency,
    errors: BTreeMap<u16, u64>,
}

struct Callers {
    who: Identities,
    shared: Arc<Shared>,
    first: u32,
    body: Bytes,
    /// When each phone's call left; 0: none is out.
    sent_us: Vec<u64>,
    /// Phones that have not made their first call.
    to_start: u32,
    outcome: Outcome,
}

impl App for Callers {
    type Machine = Phone;

    fn phone(&mut self, phone: u32) -> Phone {
        self.who.machine(phone)
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.who.token(phone)
    }

    fn event(&mut self, phone: u32, machine: &mut Phone, event: PhoneEvent, now: Now) {
        let PhoneEvent::Reply { status, body, .. } = event else { return };
        let sent_us = std::mem::take(&mut self.sent_us[(phone - self.first) as usize]);
        if now.us <= self.shared.until_us.load(Ordering::Relaxed) {
            if status != Code::Ok || body.len() != self.body.len() {
                *self.outcome.errors.entry(status.0).or_default() += 1;
            } else {
                self.outcome.latency.record(sent_us, now.us);
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            self.call(phone, machine, now);
        }
    }

    fn turn(&mut self, phones: &mut Phones<'_>, now: Now) -> u64 {
        let from_us = self.shared.from_us.load(Ordering::Relaxed);
        if from_us > 0 && now.us >= from_us {
            for _ in 0..limits::STARTS_OF_A_TURN_MAX.min(self.to_start as usize) {
                self.to_start -= 1;
                let phone = self.first + self.to_start;
                self.call(phone, phones.phone(phone), now);
            }
        }
        now.us + if self.to_start > 0 && from_us > 0 { 0 } else { limits::TURN_MS * 1_000 }
    }
}

impl Callers {
    fn call(&mut self, phone: u32, machine: &mut Phone, now: Now) {
        self.sent_us[(phone - self.first) as usize] = now.us;
        machine.call(echo::SAY.id, self.body.clone(), 0, true, now.ms());
    }
}

/// Gives what it has measured when its thread ends.
impl Drop for Callers {
    fn drop(&mut self) {
        if let Ok(mut all) = self.shared.outcome.lock() {
            all.latency.add(&self.outcome.latency);
            for (&code, &count) in &self.outcome.errors {
                *all.errors.entry(code).or_default() += count;
            }
        }
    }
}

pub fn run(options: &CallOptions) -> Result<CallReport, RunError> {
    let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
    let mut session = Session::open(&options.place, options.clients, 64, config)?;
    let shared = Arc::new(Shared::default());
    let payload = Bytes::from(vec![b'.'; options.payload_bytes]);
    let body = Bytes::from(pb::EchoRequest { payload }.encode_to_vec());
    let fleet_config = FleetConfig {
        target: session.servers.target,
        phones: options.clients,
        receive: Receive::Armed,
        cores: session.cores.bench.clone(),
        threads: session.cores.bench.len().max(1),
        clock: session.clock,
        gather_us: 50,
    };
    let fleet = Fleet::start(&fleet_config, |range| Callers {
        who: session.who.clone(),
        shared: shared.clone(),
        first: range.start,
        body: body.clone(),
        sent_us: vec![0; range.len()],
        to_start: range.len() as u32,
        outcome: Outcome::default(),
    })?;
    let mut progress = Progress::new();
    fleet.connect(options.clients);
    let asked = u64::from(options.clients);
    let within_ms = limits::SETUP_WITHIN_MS + asked / 2;
    if !wait_until(&fleet, within_ms, || fleet.totals().up >= asked) {
        let trouble = fleet.trouble();
        fleet.stop()?;
        return Err(session.explain("not all phones were welcomed", trouble));
    }
    let (cpu_from, at_start) = (session.usage(), fleet.totals());
    session.watch_others();
    let from_us = session.clock.now_us();
    shared.until_us.store(from_us + options.seconds * 1_000_000, Ordering::Relaxed);
    shared.from_us.store(from_us, Ordering::Relaxed);
    let (mut second, mut last) = (0, 0);
    wait_until(&fleet, options.seconds * 1_000, || {
        let now_s = (session.clock.now_us() - from_us) / 1_000_000;
        if now_s > second {
            let answered = shared.answered.load(Ordering::Relaxed);
            progress.line(&format!("calling: {now_s} s, {} calls in this second", answered - last));
            (second, last) = (now_s, answered);
        }
        false
    });
    if crate::signals::interrupted() {
        return Err(RunError::Interrupted);
    }
    let seconds = (session.clock.now_us() - from_us) as f64 / 1e6;
    session.note_others();
    let (usage, at_end, threads) = (session.usage(), fleet.totals(), fleet.threads());
    drop(fleet.stop()?);
    let outcome =
        std::mem::take(&mut *shared.outcome.lock().map_err(|_| crate::fleet::FleetError::Panicked)?);
    let calls = outcome.latency.count();
    let part = |at: usize| {
        let cpu_us = cpu_from[at].and_then(|from| Some(usage[at]?.cpu_us.saturating_sub(from.cpu_us)));
        PartCost {
            cpu_us_per_call: share(cpu_us, calls),
            cores_used: cpu_us.map(|us| us as f64 / 1e6 / seconds),
            rss_bytes: usage[at].map(|usage| usage.rss_bytes),
        }
    };
    let by_status =
        outcome.errors.iter().map(|(&code, &count)| (Code(code).name().to_owned(), count)).collect();
    Ok(CallReport {
        schema: SCHEMA,
        command: "call",
        clients: options.clients,
        payload_bytes: options.payload_bytes,
        seconds,
        calls,
        calls_per_second: calls as f64 / seconds,
        errors: outcome.errors.values().sum::<u64>() + at_end.lost,
        errors_by_status: by_status,
        latency_ms: outcome.latency.percentiles(),
        server: CallCost { gateway: part(0), backend: part(1) },
        generator: Generator::judge(threads, &at_start, &at_end, 0, 0),
        host: session.host.clone(),
    })
}
