//! What gateways report of their sessions.

use proto_wire::pb;
use proto_wire::services::presence;
use proto_wire::status::Status;

use super::{Services, mismatch};
use crate::logic::Answer;
use crate::rpc::Call;

impl presence::Server<Call> for Services {
    async fn report(&self, call: &Call, request: pb::ReportRequest) -> Result<pb::ReportReply, Status> {
        let shard =
            u16::try_from(request.shard).map_err(|_| Status::invalid("a shard's number has 16 bits"))?;
        self.driver.link(request.gateway, shard, &call.connection)?;
        match self.driver.call(|core, at, token| core.report(at, token, &request)).await? {
            Answer::Report(reply) => Ok(reply),
            other => Err(mismatch(&other)),
        }
    }
}
