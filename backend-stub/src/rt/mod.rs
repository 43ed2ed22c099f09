//! The runtime's seam: the only place that names glommio. One executor is one thread; its tasks never
//! move and need not be `Send`.

mod net;
mod sync;

use std::future::Future;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use thiserror::Error;

pub use net::{Listener, Stream};
pub use sync::{Inbox, InboxSender, Signal, Waker, inbox};

/// Memory for registered buffers. Sockets here use none of it, and a host may allow only 8 MiB of it.
const REGISTERED_BYTES: usize = 64 * 1024;

/// Entries of each of the runtime's rings: a few for each connection, and connections are few.
const RING_ENTRIES: usize = 256;

/// Of the ring that is made to see whether there can be one.
const PROBE_ENTRIES: u32 = 2;

/// A long turn is interrupted after this to look for I/O, so that one busy connection starves no other.
const PREEMPT_AFTER: Duration = Duration::from_millis(1);

/// Why there is no executor.
#[derive(Debug, Error)]
#[error(
    "the event loop does not start: {0}; check that io_uring is on (sysctl -w kernel.io_uring_disabled=0) and that \
     the container allows it (docker run --security-opt seccomp=unconfined), that `ulimit -l` is at least 512, \
     and that the core exists"
)]
pub struct RuntimeError(String);

/// An executor on a thread of its own.
pub struct Executor<T: Send + 'static>(ExecutorJoinHandle<T>);

/// Where there is no ring the runtime's thread panics, and takes the process along: this says so before. On a thread of
/// its own, since the kernel's end of a ring interrupts the thread that made it (a read there would give EINTR).
fn probe() -> Result<(), RuntimeError> {
    let made = std::thread::spawn(|| io_uring::IoUring::new(PROBE_ENTRIES).map(drop)).join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(RuntimeError(format!("io_uring_setup: {error}"))),
        Err(_) => Err(RuntimeError("the look for io_uring panicked".to_owned())),
    }
}

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
        probe()?;
        LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
            .name(name)
            .io_memory(REGISTERED_BYTES)
            .ring_depth(RING_ENTRIES)
            .preempt_timer(PREEMPT_AFTER)
            .spawn(make)
            .map(Self)
            .map_err(|error| RuntimeError(error.to_string()))
    }

    /// Waits for the end of the thread. A panic there is an error here.
    pub fn join(self) -> Result<T, RuntimeError> {
        self.0.join().map_err(|error| RuntimeError(error.to_string()))
    }
}

/// Runs a task on this executor, to its end.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
}

pub async fn sleep_ms(ms: u64) {
    glommio::timer::sleep(Duration::from_millis(ms)).await;
}

/// Lets every task that is ready run first.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Waits for `signal`, but at most `ms`.
pub async fn signal_or_ms(signal: &Signal, ms: u64) {
    futures_lite::future::or(signal.wait(), sleep_ms(ms)).await;
}
