//! Runs one of the cores so many times, for `benches/instructions/run`, which counts the instructions between two
//! such runs.

#![forbid(unsafe_code)]

mod cores;

use std::process::ExitCode;

use cores::{Beaters, Timers};

/// About what a shard of a million holds.
const SESSIONS: u32 = 20_000;
/// Strides through all slots, so that neighbours do not follow each other.
const STRIDE: u32 = 7_919;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(core), Some(times)) = (args.next(), args.next().and_then(|times| times.parse::<u32>().ok()))
    else {
        eprintln!("usage: instructions CORE TIMES   (see benches/instructions/run)");
        // Cargo's own call of all benches names no core.
        return ExitCode::SUCCESS;
    };
    if run(&core, times) {
        return ExitCode::SUCCESS;
    }
    eprintln!("there is no core {core}, or it did not do what it should");
    ExitCode::from(2)
}

fn run(core: &str, times: u32) -> bool {
    let mut out = Vec::with_capacity(4096);
    let slots = (0..times).map(|at| at.wrapping_mul(STRIDE) % SESSIONS);
    match core {
        "encode_notify" => (0..times).for_each(|number| cores::encode_notify(&mut out, number.into())),
        "turn_of_1000_beats" => {
            let mut beaters = Beaters::new(SESSIONS, SESSIONS);
            return (0..times).all(|_| beaters.turn_of_1000_beats() == 1_000);
        }
        "wheel_rearm" => {
            let mut timers = Timers::new(SESSIONS);
            slots.for_each(|slot| timers.rearm(slot));
            return timers.are_set();
        }
        "slab_churn" => {
            let mut slab = cores::slab_of(SESSIONS);
            slots.for_each(|slot| cores::churn(&mut slab, slot));
            return slab.len() == SESSIONS as usize;
        }
        "rpc_round" => (0..times).for_each(|call| cores::rpc_round(&mut out, call.into())),
        "call_round" => (0..times).for_each(|call| cores::call_round(&mut out, call)),
        _ => return false,
    }
    true
}
