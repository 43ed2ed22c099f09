//! Calls in flight, and what they cost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use backend_stub::logic::Answer;

use crate::host::Host;
use crate::report::{Cpu, quantile};

/// A call under way and whose it is.
pub struct Call {
    pub token: u64,
    pub user: u64,
}

#[derive(Default)]
pub struct Load {
    pub acknowledged: u64,
    pub refused: u64,
    pub rows: u64,
    pub queries: u64,
    /// Until the last answer.
    pub seconds: f64,
    /// From then until the last duty had landed.
    pub landing_ms: f64,
    /// Of all of it.
    pub cpu: Cpu,
    pub latencies_us: Vec<u32>,
}

/// Keeps so many calls in flight for a time, or until `next` has no more; then waits for all that they bring about.
pub fn load(
    host: &mut Host,
    in_flight: usize,
    time: Duration,
    mut next: impl FnMut(&mut Host) -> Option<Call>,
    mut each: impl FnMut(u64, &Answer),
) -> Load {
    let mut load = Load::default();
    let (start, cpu, rows, queries) =
        (Instant::now(), Cpu::now(), host.core.counters().rows, host.store.queries);
    let mut calls: HashMap<u64, (Instant, u64)> = HashMap::new();
    let mut more = true;
    while more || !calls.is_empty() {
        more &= start.elapsed() < time;
        while more && calls.len() < in_flight {
            let began = Instant::now();
            match next(host) {
                Some(call) => drop(calls.insert(call.token, (began, call.user))),
                None => more = false,
            }
        }
        host.turn();
        for ended in host.take_ended() {
            let Some((began, user)) = calls.remove(&ended.token) else { continue };
            load.latencies_us.push((ended.at - began).as_micros() as u32);
            match ended.answer {
                Ok(answer) => {
                    load.acknowledged += 1;
                    if let Answer::Sent(_, Some(given)) = &answer {
                        host.core.applied(user, 1, *given);
                    }
                    each(user, &answer);
                }
                Err(status) => {
                    load.refused += 1;
                    if load.refused < 4 {
                        eprintln!("user {user}: {status}");
                    }
                }
            }
        }
    }
    let ended = Instant::now();
    host.drain();
    load.seconds = (ended - start).as_secs_f64();
    load.landing_ms = ended.elapsed().as_secs_f64() * 1000.0;
    load.cpu = Cpu::now().since(cpu);
    load.rows = host.core.counters().rows - rows;
    load.queries = host.store.queries - queries;
    load.latencies_us.sort_unstable();
    load
}

impl Load {
    pub fn latency_us(&self, share: f64) -> f64 {
        quantile(&self.latencies_us, share)
    }
}
