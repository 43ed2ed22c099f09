//! Runs one of the cores so many times, for `benches/instructions/run`, which counts the instructions between two
//! such runs.

mod cores;

use std::process::ExitCode;

use cores::{Beaters, Timers};

const SESSIONS: u32 = 20_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(core), Some(times)) = (args.next(), args.next().and_then(|times| times.parse::<u32>().ok()))
    else {
        eprintln!("usage: instructions CORE TIMES   (see benches/instructions/run)");
        // Cargo's own call of all benches names no core.
        return ExitCode::SUCCESS;
    };
    let mut out = Vec::with_capacity(4096);
    match core.as_str() {
        "encode_notify" => (0..times).for_each(|number| cores::encode_notify(&mut out, number.into())),
        "turn_of_1000_beats" => {
            let mut beaters = Beaters::new(SESSIONS);
            (0..times).for_each(|_| beaters.turn_of_1000_beats());
        }
        "wheel_rearm" => {
            let mut timers = Timers::new(SESSIONS);
            (0..times).for_each(|at| timers.rearm(at.wrapping_mul(7_919) % SESSIONS));
        }
        "slab_churn" => {
            let mut beaters = Beaters::new(SESSIONS);
            (0..times).for_each(|at| cores::churn(&mut beaters.slab, at.wrapping_mul(7_919) % SESSIONS));
        }
        "rpc_round" => (0..times).for_each(|call| cores::rpc_round(&mut out, call.into())),
        "call_round" => (0..times).for_each(|call| cores::call_round(&mut out, call)),
        other => {
            eprintln!("there is no core {other}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
