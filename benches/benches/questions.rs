//! Micro-benchmarks, named as questions. `cargo bench -p benches --bench questions`
//!
//! Times swing on shared machines; what gates regressions is `benches/instructions/run`, over the same cores.

mod cores;

use divan::{AllocProfiler, Bencher};

use cores::{Beaters, Timers};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SESSIONS: u32 = 100_000;
/// Strides through all slots, so that neighbours do not follow each other.
const STRIDE: u32 = 7_919;

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

/// What do 1 000 beats and their answers cost a shard of 100 000, without the kernel?
#[divan::bench]
fn turn_of_1000_beats(bencher: Bencher<'_, '_>) {
    let mut beaters = Beaters::new(SESSIONS, SESSIONS);
    bencher.bench_local(|| assert_eq!(beaters.turn_of_1000_beats(), 1_000, "every beat is answered"));
}

/// What does it cost to move a timer among 100 000?
#[divan::bench]
fn wheel_rearm(bencher: Bencher<'_, '_>) {
    let (mut timers, mut slot) = (Timers::new(SESSIONS), 0);
    bencher.bench_local(|| {
        slot = (slot + STRIDE) % SESSIONS;
        timers.rearm(slot);
    });
    assert!(timers.are_set(), "moved, not lost");
}

/// What does it cost that a session goes and another takes its slot?
#[divan::bench]
fn slab_churn(bencher: Bencher<'_, '_>) {
    let (mut slab, mut slot) = (cores::slab_of(SESSIONS), 0);
    bencher.bench_local(|| {
        slot = (slot + STRIDE) % SESSIONS;
        cores::churn(&mut slab, slot);
    });
}

/// What does a call's header cost, written and read?
#[divan::bench]
fn rpc_round(bencher: Bencher<'_, '_>) {
    let (mut out, mut call) = (Vec::with_capacity(256), 0);
    bencher.bench_local(|| {
        call += 1;
        cores::rpc_round(&mut out, call);
    });
}

/// What does a phone's CALL frame cost, written and read?
#[divan::bench]
fn call_round(bencher: Bencher<'_, '_>) {
    let (mut out, mut call) = (Vec::with_capacity(256), 0);
    bencher.bench_local(|| {
        call += 1;
        cores::call_round(&mut out, call);
    });
}

/// A chunk of the slab; whole chunks, so that none is shared out among too few.
const CHUNK: u32 = gateway::shard::slab::CHUNK as u32;
const CHUNKS: u32 = 10;

/// What memory does a phone take that was welcomed and is idle? The line `max alloc` says it, in bytes; the time is
/// that of a HELLO whose token is not checked.
#[divan::bench(sample_count = CHUNKS, sample_size = CHUNK)]
fn bytes_per_idle_connection(bencher: Bencher<'_, '_>) {
    let mut beaters = Beaters::new(0, 2 * CHUNKS * CHUNK);
    bencher.bench_local(|| beaters.welcome());
    assert!(beaters.live() >= u64::from(CHUNKS * CHUNK), "all are there");
}
