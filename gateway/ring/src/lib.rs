//! A safe wrapper over io_uring: the only unsafe code, and the only kernel names, of the gateway.
//!
//! One [`Ring`] belongs to the thread that made it. Requests are queued without a system call by typed
//! methods ([`Ring::accept_multi`], [`Ring::poll_multi`], [`Ring::recv`], [`Ring::send`], ...), enter the
//! kernel with [`Ring::submit`] or [`Ring::submit_and_wait`], and come back from
//! [`Ring::next_completion`] with the [`Token`] that the caller chose.
//!
//! What the wrapper answers for, so that its callers need no `unsafe`:
//!
//! - Memory that a request names is owned by the ring until the request's completion: a send's buffer is
//!   moved in and given back ([`Returned::Sent`]), addresses and option values live in the same table.
//! - A received buffer belongs to whoever holds its [`BufferId`]; the kernel cannot write to it until
//!   [`BufferRing::recycle`].
//! - Dropping a ring with requests in flight cancels them and waits; what then is still in flight after a
//!   bounded wait is leaked on purpose, because the kernel may yet write to it.
//!
//! What it does not: it keeps no state of a connection. Slots, generations, re-arming and the order of
//! sends are the caller's (at most one send in flight per connection: submissions are not ordered).
//!
//! A kernel behaviour that is relied on is told where it is relied on, with the kernel version it was seen
//! on and the name of the test in `tests/` that checks it.

mod addr;
mod buffers;
mod completion;
mod inflight;
pub mod limits;
mod memory;
mod op;
mod prefetch;
mod probe;
mod queue;
mod send;
mod setup;
mod socket;
mod sys;
mod thread;
mod token;
mod wake;

pub use addr::Family;
pub use buffers::{BufferId, BufferRing, BufferRingError};
pub use completion::{Completion, Returned};
pub use inflight::InFlight;
pub use memory::map_large_blocks_apart;
pub use op::{Cancel, Full, PollEvents, SendRefused, ShutdownHow, SocketOption, Target};
pub use prefetch::prefetch;
pub use probe::{Capabilities, ProbeError, probe};
pub use queue::{EnterError, InstallError, Outcome, Ring, Wait};
pub use send::{SendBuf, SendPool};
pub use setup::{RingConfig, SetupError};
pub use socket::{
    ClientOptions, Keepalive, ListenError, ListenOptions, SocketError, StreamOptions, client_socket, listener,
};
pub use thread::{PinError, available_cores, keep_current_thread_on, pin_current_thread};
pub use token::{Errno, Slot, Token};
pub use wake::{Doorbell, PostError, RingAddress};
