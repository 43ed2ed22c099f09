//! The server's side of the RPC: moves the bytes of proto-wire's callee and caller over TCP.
//!
//! One connection carries both directions. What has arrived is read at once; a handler is run where its call was read, and
//! becomes a task only when it has to wait; what leaves in a turn is one write; every buffer has a bound. All policy of the
//! protocol is in the machines.

pub mod client;
mod connection;
mod host;
mod input;
pub mod limits;
mod over;
pub mod peer;
mod quiet;
mod server;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod udp;
pub mod unix;

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use proto_wire::names::Cursor;
use proto_wire::rpc::callee::Admitted;
use proto_wire::rpc::header::Identity;
use proto_wire::status::Status;

pub use connection::Connection;
pub use host::{Host, check_access};
pub use quiet::Quiet;
pub use server::Server;

use over::Over;
use peer::Begun;

/// What a server serves.
#[allow(async_fn_in_trait)] // The runtime is one thread: its tasks need not be Send.
pub trait Service: 'static {
    /// Runs one call to its end. When its caller gave it up nothing is told: the answer is dropped.
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status>;

    /// A call that this side made with [`Connection::call`] has ended.
    fn ended(&self, context: u64, result: Result<Bytes, Status>) {
        let _ = (context, result);
    }

    /// A connection is gone; all calls over it have ended.
    fn closed(&self, connection: &Rc<Connection>) {
        let _ = connection;
    }
}

/// One call, as its handler sees it.
pub struct Call {
    /// The way back to the caller; none: it came over UDP.
    pub connection: Option<Rc<Connection>>,
    /// The phone on whose behalf it is made; none: the caller itself.
    pub identity: Option<Identity>,
    /// What that phone has applied.
    pub applied: Option<Cursor>,
    /// On the clock of the process.
    pub deadline_at_ms: u64,
    given: Cell<Option<Cursor>>,
    over: Over,
    method: u16,
    /// Who calls.
    service: u16,
    serial: u64,
    admitted: Admitted,
}

impl Call {
    /// With its body.
    fn of(connection: Rc<Connection>, begun: Begun) -> (Self, Bytes) {
        let Begun { serial, admitted, header, body } = begun;
        let call = Self {
            connection: Some(connection),
            identity: header.identity,
            applied: header.cursor,
            deadline_at_ms: admitted.deadline_at_ms,
            given: Cell::new(None),
            over: Over::default(),
            method: header.method,
            service: header.service,
            serial,
            admitted,
        };
        (call, body)
    }

    /// The user on whose behalf the call is made; 0: none.
    pub fn user(&self) -> u64 {
        self.identity.map_or(0, |identity| identity.user)
    }

    pub fn device(&self) -> u64 {
        self.identity.map_or(0, |identity| identity.device)
    }

    /// Puts into the reply's header up to where a page gave changes.
    pub fn set_given(&self, cursor: Cursor) {
        self.given.set(Some(cursor));
    }
}
