//! Micro-benchmarks, named as questions. `cargo bench -p benches --bench questions`

mod cores;

use divan::{AllocProfiler, Bencher};
use gateway::session::Session;
use gateway::shard::slab::Slab;

use cores::{Beaters, Timers};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SESSIONS: u32 = 100_000;

fn main() {
    divan::main();
}

/// What does it cost to tell a phone that it has news?
#[divan::bench]
fn encode_notify(bencher: Bencher<'_, '_>) {
    let (mut out, mut number) = (Vec::with_capacity(64), 0);
    bencher.bench_local(|| {
        number += 1;
        cores::encode_notify(&mut out, number);
    });
}

/// What do 1 000 beats cost a shard of 100 000, without the kernel?
#[divan::bench]
fn turn_of_1000_beats(bencher: Bencher<'_, '_>) {
    let mut beaters = Beaters::new(SESSIONS);
    bencher.bench_local(|| beaters.turn_of_1000_beats());
}

/// What does it cost to move a timer among 100 000?
#[divan::bench]
fn wheel_rearm(bencher: Bencher<'_, '_>) {
    let (mut timers, mut slot) = (Timers::new(SESSIONS), 0_u32);
    bencher.bench_local(|| {
        slot = slot.wrapping_add(7_919);
        timers.rearm(slot % SESSIONS);
    });
}

/// What does it cost that a session goes and another takes its slot?
#[divan::bench]
fn slab_churn(bencher: Bencher<'_, '_>) {
    let (mut beaters, mut slot) = (Beaters::new(SESSIONS), 0_u32);
    bencher.bench_local(|| {
        slot = (slot + 7_919) % SESSIONS;
        cores::churn(&mut beaters.slab, slot);
    });
}

/// What does the slab take for an idle connection? The line `max alloc` says it for 2 048 of them, a chunk.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn bytes_per_idle_connection(bencher: Bencher<'_, '_>) {
    bencher.counter(divan::counter::ItemsCount::new(gateway::shard::slab::CHUNK)).bench_local(|| {
        let mut slab = Slab::default();
        for slot in 0..gateway::shard::slab::CHUNK as u32 {
            slab.insert(slot, Session::new(slot, 0));
        }
        slab
    });
}
