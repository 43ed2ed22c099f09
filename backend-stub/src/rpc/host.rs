//! Serves what generated code dispatches.

use std::rc::Rc;

use bytes::Bytes;
use proto_wire::rpc::method::{self, Access, Dispatch, Method};
use proto_wire::status::{Code, Status};

use super::{Call, Service};

/// The services of one server, as generated: `Host(echo::AsyncService(Echo))`, or pairs of such. A handler whose call is
/// over is ended where it waits.
pub struct Host<D>(pub D);

impl<D: Dispatch<Call> + 'static> Service for Host<D> {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        let known = self.0.method(method).ok_or_else(|| method::unknown("this server", method))?;
        check_access(call, known)?;
        let ended = call.while_wanted(self.0.dispatch(call, method, body)).await;
        ended.unwrap_or_else(|| Err(Status::new(Code::Cancelled, "the call is over")))
    }
}

/// Whether this caller may call this method.
pub fn check_access(call: &Call, method: &Method) -> Result<(), Status> {
    match method.access {
        Access::Anonymous => Ok(()),
        Access::Phone if call.user() != 0 => Ok(()),
        Access::Phone => Err(Status::new(Code::Denied, "this call needs a token")),
        Access::Internal if call.identity.is_none() => Ok(()),
        Access::Internal => Err(Status::new(Code::Denied, "this call is not for phones")),
    }
}
