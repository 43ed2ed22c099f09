//! The runtime's seam: the only place that knows how tasks run and how the kernel is asked. One executor is one thread; its
//! tasks never move and need not be `Send`.
//!
//! A loop of our own over epoll, by edges: a connection that has been read empty costs one receive and one send a turn, and
//! nothing to wait again. What it replaced (glommio) asked three rings in each turn; ARCHITECTURE has the figures.

mod net;
mod poller;
mod sync;
#[cfg(test)]
mod tests;
mod turns;

use std::future::Future;
use std::thread::{self, JoinHandle};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use thiserror::Error;

pub use net::{Listener, Stream};
pub use poller::Watched;
pub use sync::{Inbox, InboxSender, Signal, Waker, inbox};

use poller::Sleep;
use turns::Turns;

/// Why there is no executor, or why it ended.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error(
        "the event loop does not start: there is no core {core} for it ({cause}); `nproc` and `taskset -p $$` tell"
    )]
    Core { core: usize, cause: nix::Error },
    #[error("the event loop does not start: {0}")]
    Thread(std::io::Error),
    #[error("the event loop ended: {0}; check the limit of open files (ulimit -n)")]
    Kernel(nix::Error),
    #[error("the event loop panicked")]
    Panicked,
}

/// An executor on a thread of its own.
pub struct Executor<T: Send + 'static>(JoinHandle<Result<T, RuntimeError>>);

impl<T: Send + 'static> Executor<T> {
    /// Starts a thread, pinned to `core` if one is given, that runs the future of `make` to its end.
    pub fn start<F>(
        name: &str,
        core: Option<usize>,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self, RuntimeError>
    where
        F: Future<Output = T> + 'static,
    {
        let run = move || {
            if let Some(core) = core {
                pin(core).map_err(|cause| RuntimeError::Core { core, cause })?;
            }
            // Made where it is run: what it makes may ask for the loop.
            Turns::run(async move { make().await }).map_err(RuntimeError::Kernel)
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(Self).map_err(RuntimeError::Thread)
    }

    /// Waits for the end of the thread. A panic there is an error here.
    pub fn join(self) -> Result<T, RuntimeError> {
        self.0.join().unwrap_or(Err(RuntimeError::Panicked))
    }
}

fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Runs a task on this executor, to its end.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    Turns::here(|turns| turns.spawn(task));
}

pub async fn sleep_ms(ms: u64) {
    Sleep::new(ms).await;
}

/// Lets every task that is ready run first.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Waits for `signal`, but at most `ms`.
pub async fn signal_or_ms(signal: &Signal, ms: u64) {
    futures_lite::future::or(signal.wait(), sleep_ms(ms)).await;
}
