//! Gives back what it got.

use proto_wire::pb;
use proto_wire::services::echo;
use proto_wire::status::{Code, Status};

use super::{Services, limits};
use crate::rpc::Call;

impl echo::Server<Call> for Services {
    async fn say(&self, _: &Call, request: pb::EchoRequest) -> Result<pb::EchoReply, Status> {
        if request.payload.len() > limits::MAX_ECHO_BYTES {
            return Err(Status::new(Code::Limit, "the payload is over 64 KiB"));
        }
        Ok(pb::EchoReply { payload: request.payload })
    }
}
