//! How many acknowledged appends a second the store does, and how long it takes to start.
//!
//! `storage_figures appends DIR SECONDS`: batches of one row (27-byte key, 120-byte value) with 1, 16
//! and 256 in flight. `storage_figures fill DIR N`: N changes, then aborts as a killed process would.
//! `storage_figures start DIR`: how long opening takes, and the recovery of the logic.

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
        ["fill", dir, count] => fill(Path::new(dir), count.parse().expect("a count is a number")),
        ["start", dir] => start(Path::new(dir)),
        _ => {
            eprintln!("storage_figures appends DIR SECONDS | fill DIR N | start DIR");
            process::exit(2);
        }
    }
}

fn open(dir: &Path) -> (Embedded, Receiver<()>) {
    let (wake, woken) = channel();
    let opened = Embedded::open(&Options::new(dir), |_| {
        let wake = wake.clone();
        Box::new(move || {
            // The owner may be gone already.
            let _ = wake.send(());
        })
    });
    match opened {
        Ok((store, opened)) => {
            opened.cut.iter().for_each(|line| println!("{line}"));
            (store, woken)
        }
        Err(error) => {
            eprintln!("{error}");
            process::exit(1);
        }
    }
}

fn batch(token: u64) -> Batch {
    let mut key = [b'L'; 27];
    // Users come in any order, as sections do.
    key[..8].copy_from_slice(&token.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let mut batch = Batch::new(token);
    batch.put(&key, &[7; 120]);
    batch
}

fn appends(dir: &Path, seconds: u64) {
    let (mut store, woken) = open(dir);
    let mut token = 0;
    let mut done = Vec::new();
    for in_flight in [1usize, 16, 256] {
        let (mut waiting, mut acknowledged) = (0, 0u64);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) || waiting > 0 {
            while waiting < in_flight && start.elapsed() < Duration::from_secs(seconds) {
                token += 1;
                if store.submit(0, batch(token)).is_err() {
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

fn fill(dir: &Path, count: u64) {
    let (mut store, woken) = open(dir);
    let mut done = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < 250 {
            sent += 1;
            store.submit(0, batch(sent)).expect("250 are below the bound");
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
    let (mut store, woken) = open(dir);
    let opened = start.elapsed();
    let at = At { now_ms: 0, unix_ms: 0 };
    let mut core = Core::new(CoreConfig::new(1, 1, store.partitions()));
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
