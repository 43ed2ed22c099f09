//! The switch itself, without a network.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use backend_stub::co::{self, Label, Pool, PoolConfig};

const FIGURES: Label = Label { service: "Figures", method: "switch" };
const ROUNDS: u32 = 9;
const SWITCHES: u32 = 1_000_000;

/// The median of some rounds.
fn median_ns(mut round: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn pool(stacks: usize) -> Pool {
    Pool::new(&PoolConfig { stacks, ..PoolConfig::default() }).expect("a pool")
}

fn run_to_end<F: Future + Unpin>(mut future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut context) {
            return output;
        }
    }
}

/// One coroutine that waits for what is ready: to the loop and back.
pub fn hot_ns() -> f64 {
    let pool = pool(1);
    median_ns(|| {
        let running = pool.run(FIGURES, || {
            let began = Instant::now();
            for _ in 0..SWITCHES {
                co::wait(ready(()));
            }
            began.elapsed().as_nanos() as f64 / f64::from(SWITCHES)
        });
        run_to_end(running).expect("no panic")
    })
}

/// Many coroutines that each wait once and are polled in turn: none of their stacks is in a cache.
pub fn cold_ns(stacks: usize) -> f64 {
    let pool = pool(stacks);
    let mut context = Context::from_waker(Waker::noop());
    let mut all: Vec<_> = (0..stacks)
        .map(|_| {
            pool.run(FIGURES, || {
                loop {
                    let mut is_second = false;
                    co::wait(poll_fn(|_| {
                        if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }
                    }));
                }
            })
        })
        .collect();
    let mut turn = || {
        for running in &mut all {
            let polled: Poll<Result<(), _>> = Pin::new(running).poll(&mut context);
            assert!(polled.is_pending());
        }
    };
    turn();
    median_ns(|| {
        let began = Instant::now();
        turn();
        began.elapsed().as_nanos() as f64 / stacks as f64
    })
}

/// A coroutine from its start to its end, on a stack that was used before.
pub fn start_ns() -> f64 {
    let pool = pool(1);
    median_ns(|| {
        let began = Instant::now();
        for number in 0..SWITCHES {
            let ended = run_to_end(pool.run(FIGURES, move || number)).expect("no panic");
            assert_eq!(ended, number);
        }
        began.elapsed().as_nanos() as f64 / f64::from(SWITCHES)
    })
}
