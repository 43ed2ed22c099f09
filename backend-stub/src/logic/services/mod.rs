//! The services on top of the core: what is asked, by whom, and what is answered.

/// A request as its hash sees it: without the id of the upload.
macro_rules! request_without_id {
    ($request:expr) => {{
        let mut request = $request;
        request.id = bytes::Bytes::new();
        request
    }};
}

mod account;
mod contacts;
mod echo;
mod limits;
mod messages;
mod moments;
mod passwords;
mod presence;

use std::rc::Rc;

use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method::{self, Method};
use proto_wire::services;
use proto_wire::status::{Code, Status};

use crate::driver::Driver;
use crate::logic::{Answer, Upload, Verb, upload_hash};
use crate::rpc::{Call, Connection, Service, check_access};

pub(crate) use account::{ACCOUNT, Account, key_of};
pub use account::{Accounts, AccountsConfig};
pub use passwords::Passwords;

/// All services of this backend.
pub struct Services {
    driver: Rc<Driver>,
    accounts: Accounts,
}

impl Services {
    pub fn new(driver: Rc<Driver>, accounts: Accounts) -> Self {
        Self { driver, accounts }
    }
}

impl Service for Services {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        let call: &Call = call;
        check_access(call, services::method(method).ok_or_else(|| unknown(method))?)?;
        if let Some(applied) = call.applied
            && call.user() != 0
        {
            self.driver.applied(call.user(), call.device(), applied);
        }
        match method >> 8 {
            0x01 => services::account::dispatch(self, call, method, body).await,
            0x02 => services::messages::dispatch(self, call, method, body).await,
            // The core has the page encoded: its bytes are the body.
            0x03 if method == services::sync::PULL.id => self.pull(call, body).await,
            0x04 => services::presence::dispatch(self, call, method, body).await,
            0x07 => services::contacts::dispatch(self, call, method, body).await,
            0x08 => services::moments::dispatch(self, call, method, body).await,
            0x06 => services::echo::dispatch(self, call, method, body).await,
            _ => Err(unknown(method)),
        }
    }

    fn ended(&self, context: u64, result: Result<Bytes, Status>) {
        self.driver.notified(context, result);
    }

    fn closed(&self, connection: &Rc<Connection>) {
        self.driver.unlink(connection);
    }
}

impl Services {
    /// For calls of which the core does not ask it itself: they are not for a device that was logged out.
    async fn admit(&self, call: &Call) -> Result<(), Status> {
        let (user, device) = (call.user(), call.device());
        match self.driver.call(|core, at, token| core.admit_device(at, token, user, device)).await? {
            Answer::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    /// An upload of the calling device, applied once.
    async fn upload(
        &self,
        call: &Call,
        method: &Method,
        id: Bytes,
        request: &impl prost::Message,
        verb: Verb,
    ) -> Result<pb::ChangeReply, Status> {
        let (user, device) = (call.user(), call.device());
        let upload = Upload { id, hash: upload_hash(method.id, request), verb };
        match self.driver.call(|core, at, token| core.upload(at, token, user, device, upload)).await? {
            Answer::Sent(reply, _) => Ok(pb::ChangeReply {
                ack: reply.ack,
                number: reply.number,
                server_time_ms: reply.server_time_ms,
                repeated: reply.repeated,
            }),
            other => Err(mismatch(&other)),
        }
    }
}

fn unknown(id: u16) -> Status {
    method::unknown("this backend", id)
}

/// The core answered with what another verb gives.
fn mismatch(answer: &Answer) -> Status {
    debug_assert!(false, "not the answer to this verb: {answer:?}");
    Status::new(Code::Internal, "the core gave another verb's answer")
}
