//! What a thread of phones counts, read by the conductor while it runs.

use std::iter::Sum;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Now;

macro_rules! meter {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One writer, any readers.
        #[derive(Debug, Default)]
        pub struct Meter {
            $($(#[$doc])* pub $name: AtomicU64,)*
            last_welcome_us: AtomicU64,
            trouble: Mutex<Option<String>>,
        }

        /// The counters of all threads.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
            /// When the last phone was welcomed for the first time.
            pub last_welcome_us: u64,
        }

        impl Meter {
            pub fn read(&self) -> Totals {
                let last_welcome_us = self.last_welcome_us.load(Ordering::Relaxed);
                Totals { last_welcome_us, $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Sum for Totals {
            fn sum<I: Iterator<Item = Totals>>(all: I) -> Totals {
                all.fold(Totals::default(), |a, b| Totals {
                    last_welcome_us: a.last_welcome_us.max(b.last_welcome_us),
                    $($name: a.$name + b.$name,)*
                })
            }
        }
    };
}

meter! {
    /// Connections that stand, welcomed.
    up,
    /// Phones that were welcomed at least once.
    welcomed,
    /// Connections that ended after WELCOME, other than by the bench.
    lost,
    /// Attempts that ended before WELCOME.
    failed,
    /// Beats that were answered.
    beats_answered,
    bytes_in,
    bytes_out,
    turns,
    /// All the thread's time, of it on a core, and waiting for one.
    lived_us,
    cpu_us,
    core_wait_us,
}

impl Meter {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        // One writer: no read-modify-write is needed.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn note_first_welcome(&self, now: Now) {
        Self::add(&self.welcomed, 1);
        self.last_welcome_us.store(now.us, Ordering::Relaxed);
    }

    /// Keeps the first.
    pub(super) fn note_trouble(&self, text: impl FnOnce() -> String) {
        if let Ok(mut trouble) = self.trouble.lock()
            && trouble.is_none()
        {
            *trouble = Some(text());
        }
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().ok()?.clone()
    }
}
