//! How far long work is, every few seconds, for whoever waits at the terminal.

use std::time::Instant;

use super::limits;

pub struct Progress {
    what: &'static str,
    said: Instant,
}

impl Progress {
    pub fn new(what: &'static str) -> Self {
        Self { what, said: Instant::now() }
    }

    /// Says how far it is, unless it was said just now. `detail` is made only when it is.
    pub fn at(&mut self, done: u64, of: u64, detail: impl FnOnce() -> String) {
        if self.said.elapsed().as_millis() < limits::PROGRESS_EVERY_MS {
            return;
        }
        self.said = Instant::now();
        let percent = if of == 0 { 0 } else { done * 100 / of };
        eprintln!("{}: {percent} %, {}", self.what, detail());
    }
}
