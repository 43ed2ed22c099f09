//! How many acknowledged appends a second the store does, and how long it takes to start.
//!
//! `storage_figures appends DIR SECONDS`: batches of one row (27-byte key, 120-byte value) with 1, 16
//! and 256 in flight. `storage_figures paced DIR RATE SECONDS`: RATE appends a second of 400 bytes, and how long
//! each took to be acknowledged (with memtables of MEMTABLE_MIB, if set). `storage_figures fill DIR N`: N changes, then aborts as a killed process would.
//! `storage_figures start DIR`: how long opening takes, and the recovery of the logic.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, process};

use backend_stub::logic::{Action, At, Core, CoreConfig};
use backend_stub::storage::embedded::{Embedded, Options};
use backend_stub::storage::{Batch, ChangeLog, Completion};

fn main() {
    let args: Vec<String> = env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["appends", dir, seconds] => appends(Path::new(dir), seconds.parse().expect("seconds are a number")),
        ["paced", dir, rate, seconds] => paced(
            Path::new(dir),
            rate.parse().expect("a rate is a number"),
            seconds.parse().expect("seconds are a number"),
        ),
        ["fill", dir, count] => fill(Path::new(dir), count.parse().expect("a count is a number")),
        ["start", dir] => start(Path::new(dir)),
        _ => {
            eprintln!(
                "storage_figures appends DIR SECONDS | paced DIR RATE SECONDS | fill DIR N | start DIR"
            );
            process::exit(2);
        }
    }
}

/// The store, its owner_epoch, and what wakes.
fn open(dir: &Path) -> (Embedded, u64, Receiver<()>) {
    let (wake, woken) = channel();
    let mut options = Options::new(dir);
    if let Ok(mib) = env::var("MEMTABLE_MIB") {
        options.memtable_bytes = mib.parse::<u64>().expect("MEMTABLE_MIB is a number") << 20;
    }
    let opened = Embedded::open(&options, |_| {
        let wake = wake.clone();
        Box::new(move || {
            // The owner may be gone already.
            let _ = wake.send(());
        })
    });
    match opened {
        Ok((store, opened)) => {
            opened.cut.iter().for_each(|line| println!("{line}"));
            (store, opened.owner_epoch, woken)
        }
        Err(error) => {
            eprintln!("{error}");
            process::exit(1);
        }
    }
}

fn batch(token: u64, owner_epoch: u64) -> Batch {
    let mut batch = Batch::new(token);
    batch.owner_epoch = owner_epoch;
    put(&mut batch, token, 120);
    batch
}

fn appends(dir: &Path, seconds: u64) {
    let (mut store, owner_epoch, woken) = open(dir);
    let mut token = 0;
    let mut done = Vec::new();
    for in_flight in [1usize, 16, 256] {
        let (mut waiting, mut acknowledged) = (0, 0u64);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) || waiting > 0 {
            while waiting < in_flight && start.elapsed() < Duration::from_secs(seconds) {
                token += 1;
                if store.submit(0, batch(token, owner_epoch)).is_err() {
                    break;
                }
                waiting += 1;
            }
            store.poll(&mut done);
            if done.is_empty() {
                let _ = woken.recv();
            }
            waiting -= done.len();
            acknowledged += done
                .drain(..)
                .filter(|completion| matches!(completion, Completion::Committed { .. }))
                .count() as u64;
        }
        println!(
            "{in_flight} in flight: {:.0} appends/s",
            acknowledged as f64 / start.elapsed().as_secs_f64()
        );
    }
}

/// Appends come when they are due, whatever the store does: those of a millisecond together, as a turn of the logic
/// brings them.
fn paced(dir: &Path, rate: u64, seconds: u64) {
    /// What may wait for the store, in batches.
    const IN_FLIGHT_MAX: usize = 200;
    /// A commit that took longer is told with its time.
    const LONG_MS: f64 = 20.0;
    let (mut store, owner_epoch, woken) = open(dir);
    let start = Instant::now();
    let now_ms = || start.elapsed().as_secs_f64() * 1000.0;
    let (mut done, mut in_flight, mut next) = (Vec::new(), VecDeque::new(), 0u64);
    let (mut took_ms, mut long, all) = (Vec::new(), Vec::new(), rate * seconds);
    while took_ms.len() < all as usize {
        let due = ((now_ms() / 1000.0 * rate as f64) as u64).min(all);
        if next < due && in_flight.len() < IN_FLIGHT_MAX {
            let mut batch = Batch::new(next);
            batch.owner_epoch = owner_epoch;
            let due_ms = next as f64 * 1000.0 / rate as f64;
            (next..due).for_each(|token| put(&mut batch, token, 400));
            store.submit(0, batch).expect("the bound of the store is higher");
            in_flight.push_back((due_ms, due - next));
            next = due;
        }
        let _ = woken.recv_timeout(Duration::from_millis(1));
        store.poll(&mut done);
        for _ in done.drain(..) {
            let (due_ms, appends) = in_flight.pop_front().expect("in the order of submission");
            let took = now_ms() - due_ms;
            took_ms.extend((0..appends).map(|_| took));
            if took > LONG_MS {
                long.push((due_ms, took));
            }
        }
    }
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() - 1) as f64 * share) as usize];
    println!(
        "{rate} appends/s for {seconds} s: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, p99.99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0)
    );
    let mut last_ms = f64::MIN;
    for (due_ms, took) in long {
        if due_ms > last_ms + 200.0 {
            println!("  at {:.1} s: {took:.1} ms", due_ms / 1000.0);
        }
        last_ms = due_ms;
    }
}

fn put(batch: &mut Batch, token: u64, bytes: usize) {
    let mut key = [b'L'; 27];
    // Users come in any order, as sections do.
    key[..8].copy_from_slice(&token.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    batch.put(&key, &vec![7; bytes]);
}

fn fill(dir: &Path, count: u64) {
    let (mut store, owner_epoch, woken) = open(dir);
    let mut done = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < 250 {
            sent += 1;
            store.submit(0, batch(sent, owner_epoch)).expect("250 are below the bound");
        }
        store.poll(&mut done);
        if done.is_empty() {
            let _ = woken.recv();
        }
        acknowledged += done.drain(..).count() as u64;
    }
    process::abort();
}

fn start(dir: &Path) {
    let start = Instant::now();
    let (mut store, owner_epoch, woken) = open(dir);
    let opened = start.elapsed();
    let at = At { now_ms: 0, unix_ms: 0 };
    let config = CoreConfig::new(1, 1, store.partitions());
    let mut core = Core::new(CoreConfig { owner_epoch, ..config });
    let mut done = Vec::new();
    while !core.is_ready() {
        while let Some(action) = core.poll_action(at) {
            match action {
                Action::Submit { partition, batch } => {
                    store.submit(partition, batch).expect("the core bounds its batches")
                }
                Action::Read { partition, read } => {
                    store.read(partition, read).expect("the core bounds its reads")
                }
                other => println!("{other:?}"),
            }
        }
        store.poll(&mut done);
        if done.is_empty() {
            let _ = woken.recv();
        }
        done.drain(..).for_each(|completion| core.handle_completion(at, completion));
    }
    println!(
        "opened in {} ms, recovered in {} ms",
        opened.as_millis(),
        (start.elapsed() - opened).as_millis()
    );
}
