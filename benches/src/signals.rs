//! Ctrl-C and SIGTERM end a run in order: servers are stopped and their directory is removed.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

static WATCHING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Before any other thread starts: they all inherit that the signals wait for the one thread that takes them.
pub fn watch() {
    let signals = own();
    if signals.thread_block().is_err() {
        return;
    }
    WATCHING.store(true, Ordering::Relaxed);
    std::thread::spawn(move || {
        let mut times = 0;
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            times += 1;
            if times == 2 {
                // Whoever asks twice does not want to wait for the order.
                std::process::exit(130);
            }
        }
    });
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

pub fn is_watching() -> bool {
    WATCHING.load(Ordering::Relaxed)
}

/// The signals that are taken.
pub fn own() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals
}
