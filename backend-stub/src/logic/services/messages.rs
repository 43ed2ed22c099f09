//! Messages, groups, and the sync that brings them to phones.

use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method;
use proto_wire::services::{messages, sync};
use proto_wire::status::Status;

use super::{Services, mismatch};
use crate::logic::{Answer, Verb};
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
        self.admit(call).await?;
        let user = call.user();
        match self.driver.call(|core, at, token| core.create_group(at, token, user, &request)).await? {
            Answer::Group(reply) => Ok(reply),
            other => Err(mismatch(&other)),
        }
    }

    async fn recall(&self, call: &Call, request: pb::RecallRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Recall { number: request.number };
        self.upload(call, &messages::RECALL, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn mark(&self, call: &Call, request: pb::MarkRequest) -> Result<pb::MarkReply, Status> {
        let (user, device) = (call.user(), call.device());
        match self.driver.call(|core, at, token| core.mark(at, token, user, device, &request)).await? {
            Answer::Done => Ok(pb::MarkReply { ack: pb::Ack::Local.into() }),
            other => Err(mismatch(&other)),
        }
    }

    async fn change_group(
        &self,
        call: &Call,
        request: pb::ChangeGroupRequest,
    ) -> Result<pb::ChangeReply, Status> {
        let change = pb::GroupEvent {
            action: request.action,
            users: request.users.clone(),
            name: request.name.clone(),
            ..Default::default()
        };
        let verb = Verb::ChangeGroup { group: request.group, change };
        let method = &messages::CHANGE_GROUP;
        self.upload(call, method, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn typing(&self, call: &Call, request: pb::TypingRequest) -> Result<pb::TypingReply, Status> {
        self.admit(call).await?;
        let user = call.user();
        match self.driver.call(|core, _, token| core.typing(token, user, request.to)).await? {
            Answer::Done => Ok(pb::TypingReply {}),
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
