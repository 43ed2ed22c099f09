//! Handlers on coroutines, and their async twins, over real sockets.

mod calls;
mod client_crate;
mod fixture;
mod life;
mod overflow;
mod sockets;
mod waits;
