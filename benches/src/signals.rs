//! Ctrl-C and SIGTERM end a run in order: the load ends, what ran so far is reported, servers are stopped and their
//! directory is removed. A second one does not wait for the order.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// What is said when a run is ended before there is a figure.
pub const NOTHING_RAN: &str = "ended by Ctrl-C before anything was measured: there is nothing to report";

static WATCHING: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Before any other thread starts: they all inherit that the signals wait for the one thread that takes them.
pub fn watch() {
    let signals = own();
    if signals.thread_block().is_err() {
        return;
    }
    WATCHING.store(true, Ordering::Relaxed);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            interrupt(|| ());
        }
    });
}

/// As a signal does, from a terminal whose keys are no signals. `restore` gives the terminal back.
pub fn interrupt(restore: fn()) {
    INTERRUPTED.store(true, Ordering::Relaxed);
    if ASKED.swap(true, Ordering::Relaxed) {
        restore();
        std::process::exit(130);
    }
}

/// Whether the run shall end, and nobody has seen to it yet.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The same, for who ends the load in order: what comes after it (draining, reading, stopping) then runs as always.
pub fn take() -> bool {
    INTERRUPTED.swap(false, Ordering::Relaxed)
}

/// Whether the run was ever asked to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
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
