//! Who knows whom.

use proto_wire::pb;
use proto_wire::services::contacts;
use proto_wire::status::Status;

use super::Services;
use crate::logic::Verb;
use crate::rpc::Call;

impl contacts::Server<Call> for Services {
    async fn ask(&self, call: &Call, request: pb::AskRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Ask { peer: request.user, hello: request.hello.clone() };
        self.upload(call, &contacts::ASK, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn accept(&self, call: &Call, request: pb::PeerRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Accept { peer: request.user };
        self.upload(call, &contacts::ACCEPT, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn remove(&self, call: &Call, request: pb::PeerRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Remove { peer: request.user };
        self.upload(call, &contacts::REMOVE, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn remark(&self, call: &Call, request: pb::RemarkRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Remark { peer: request.user, remark: request.remark.clone() };
        self.upload(call, &contacts::REMARK, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn block(&self, call: &Call, request: pb::SwitchRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Block { peer: request.user, on: request.on };
        self.upload(call, &contacts::BLOCK, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn star(&self, call: &Call, request: pb::SwitchRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Star { peer: request.user, on: request.on };
        self.upload(call, &contacts::STAR, request.id.clone(), &request_without_id!(request), verb).await
    }
}
