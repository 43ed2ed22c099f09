//! Messages, groups, and the sync that brings them to phones.

use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method;
use proto_wire::services::{messages, sync};
use proto_wire::status::Status;

use super::{Services, mismatch};
use crate::logic::Answer;
use crate::rpc::Call;

impl messages::Server<Call> for Services {
    async fn send(&self, call: &Call, request: pb::SendRequest) -> Result<pb::SendReply, Status> {
        let (user, device) = (call.user(), call.device());
        match self.driver.call(|core, at, token| core.send(at, token, user, device, &request)).await? {
            Answer::Sent(reply, given) => {
                if let Some(given) = given {
                    call.set_given(given);
                }
                Ok(reply)
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn create_group(
        &self,
        call: &Call,
        request: pb::CreateGroupRequest,
    ) -> Result<pb::CreateGroupReply, Status> {
        let user = call.user();
        match self.driver.call(|core, at, token| core.create_group(at, token, user, &request)).await? {
            Answer::Group(reply) => Ok(reply),
            other => Err(mismatch(&other)),
        }
    }
}

impl Services {
    /// Sync.Pull, with the page as the core encoded it.
    pub(super) async fn pull(&self, call: &Call, body: Bytes) -> Result<Bytes, Status> {
        let request: pb::PullRequest = method::decode_request(&sync::PULL, body)?;
        let (user, device) = (call.user(), call.device());
        match self.driver.call(|core, at, token| core.pull(at, token, user, device, &request)).await? {
            Answer::Page(page) => {
                call.set_given(page.given);
                Ok(page.bytes)
            }
            other => Err(mismatch(&other)),
        }
    }
}
