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
        let no_way_back = || Status::invalid("reports come over a connection: news goes back over it");
        let connection = call.connection.as_ref().ok_or_else(no_way_back)?;
        self.driver.link(request.gateway, shard, connection)?;
        match self.driver.call(|core, at, token| core.report(at, token, &request)).await? {
            Answer::Report(reply) => Ok(reply),
            other => Err(mismatch(&other)),
        }
    }
}
