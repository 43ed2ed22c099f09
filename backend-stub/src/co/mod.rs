//! Code that reads as synchronous: a handler is a plain function that waits where it stands, and beneath it a stackful
//! coroutine gives the thread back to the event loop meanwhile.
//!
//! A [`Pool`] has the stacks of one service on one thread; it is the [`Runner`](proto_wire::rpc::method::Runner) that
//! the generated `SyncService` wants, and [`Host`](crate::rpc::Host) serves that to callers. On a coroutine [`wait`] waits for any
//! future; upon it stand [`sleep`], [`TcpStream`], [`File`], generated clients (with [`Here`]) and all else that is
//! async. A future is polled on the loop's stack: a coroutine's own holds the handler's frames and no machinery.
//!
//! What a handler must not do: hold a `RefCell` or a lock over a wait that others of its thread use, or block its thread
//! for real. The latter is noticed, named and counted ([`Pool::blocked`]).
//!
//! Stacks are bounded and of one size for a pool. One that overflows ends the process, which says whose it was; a pool
//! without a free stack refuses; a panic becomes a status; a call that is given up, or whose time is over, is unwound
//! where it waits, and its destructors run.

mod all;
mod blocking;
mod file;
pub mod limits;
mod net;
mod pool;
mod spawn;
mod watch;

use std::future::Future;
use std::time::Duration;

use futures_lite::future::or;
use proto_wire::rpc::method::Wait;
use proto_wire::status::{Code, Status};

pub use all::{all, wait_all};
pub use backend_stacks::{ArenaError, Label, NoWait, is_here, on_parent};
pub use blocking::unblock;
pub use file::{File, read_file};
pub use net::{TcpListener, TcpStream};
pub use pool::{Pool, PoolConfig, RunError, Running};
pub use spawn::{Handle, spawn};
pub use watch::Blocked;

use crate::rt;

/// Waits for `future`: the coroutine that calls this gives its thread back until it is ready.
///
/// # Panics
///
/// Where there is no coroutine, or from a destructor while the coroutine is unwound. [`try_wait`] says so instead.
#[track_caller]
pub fn wait<F: Future>(future: F) -> F::Output {
    match backend_stacks::wait(future) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// As [`wait`], for code that may run elsewhere too.
pub fn try_wait<F: Future>(future: F) -> Result<F::Output, NoWait> {
    backend_stacks::wait(future)
}

/// Waits for `future`, but at most so long.
pub fn wait_for<F: Future>(future: F, at_most: Duration) -> Option<F::Output> {
    wait(or(async { Some(future.await) }, async {
        rt::sleep_ms(at_most.as_millis() as u64).await;
        None
    }))
}

/// Waits so long.
pub fn sleep(time: Duration) {
    wait(rt::sleep_ms(time.as_millis() as u64));
}

/// Lets everything else that is ready have its turn.
pub fn yield_now() {
    wait(rt::yield_now());
}

/// How generated clients wait on a coroutine: `echo::SyncClient::new(channel, co::Here)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here;

impl Wait for Here {
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Status> {
        try_wait(future).map_err(|error| {
            let code = if error == NoWait::Unwinding { Code::Cancelled } else { Code::Internal };
            Status::new(code, error.to_string())
        })
    }
}
