//! Moments: published once, read at their author.

use proto_wire::pb;
use proto_wire::services::moments;
use proto_wire::status::Status;

use super::{Services, mismatch};
use crate::logic::{Answer, Verb};
use crate::rpc::Call;

impl moments::Server<Call> for Services {
    async fn publish(&self, call: &Call, request: pb::PublishRequest) -> Result<pb::ChangeReply, Status> {
        let post = pb::Post {
            posted_ms: 0,
            text: request.text.clone(),
            images: request.images.clone(),
            hidden_from: request.hidden_from.clone(),
        };
        let verb = Verb::Publish { post };
        self.upload(call, &moments::PUBLISH, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn withdraw(&self, call: &Call, request: pb::WithdrawRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::Withdraw { moment: request.number };
        self.upload(call, &moments::WITHDRAW, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn say(&self, call: &Call, request: pb::SayRequest) -> Result<pb::ChangeReply, Status> {
        let comment = pb::Comment {
            author: request.author,
            post: request.post,
            text: request.text.clone(),
            like: request.like,
            ..Default::default()
        };
        let verb = Verb::Say { comment };
        self.upload(call, &moments::SAY, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn unsay(&self, call: &Call, request: pb::UnsayRequest) -> Result<pb::ChangeReply, Status> {
        let pb::UnsayRequest { author, post, from, number, .. } = request;
        let verb = Verb::Unsay { author, moment: post, from, number };
        self.upload(call, &moments::UNSAY, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn get(&self, call: &Call, request: pb::GetMomentRequest) -> Result<pb::Moment, Status> {
        self.admit(call).await?;
        let reader = call.user();
        match self.driver.call(|core, _, token| core.moment(token, reader, &request)).await? {
            Answer::Moment(moment) => Ok(moment),
            other => Err(mismatch(&other)),
        }
    }
}
