//! The whole system under test: what its tests share.
//!
//! A whole-system test starts the real binaries as [`Process`]es in a [`WorkDir`] on [`Port`]s of its own, and
//! leaves nothing behind: each of the three cleans up when it is dropped, also when the test fails.
//!
//! Names carry meaning for `tests/run`: a test that needs `strace` has `strace` in its name, one that needs
//! network namespaces (`ip netns`, and the right to make them) has `netns`, one that needs FUSE `with_fuse`. Where the tool is missing, those are
//! left out and told by name. A test that can do more when there is time asks [`is_long`].

#![forbid(unsafe_code)]

pub mod disk;
pub mod fleet;
pub mod history;
pub mod limits;
mod planted;
mod ports;
mod process;
pub mod sim;
pub mod system;
pub mod wire;
mod workdir;

pub use ports::{NoPort, Port};
pub use process::{Launch, Process, ProcessError, binary, http_get, http_post};
pub use system::{Server, System, SystemError};
pub use workdir::WorkDir;

/// Whether `tests/run --long` is running: tests that scale themselves then do more rounds.
pub fn is_long() -> bool {
    std::env::var_os("MOORGATE_LONG").is_some_and(|value| value == "1")
}
