//! Calls that a handler makes in the time that its own caller has left.

use bytes::Bytes;
use proto_wire::rpc::method::{Answer, CallOptions, Channel, Method};
use proto_wire::status::{Code, Status};

use super::Client;
use crate::rpc::Call;

/// A client whose calls never take longer than the call that they are made for: nobody would wait for them.
pub struct Within<'a> {
    client: &'a Client,
    deadline_at_ms: u64,
}

impl Client {
    /// The same client, for what is called on behalf of `call`.
    pub fn within(&self, call: &Call) -> Within<'_> {
        Within { client: self, deadline_at_ms: call.deadline_at_ms }
    }
}

impl Channel for Within<'_> {
    async fn call(
        &self,
        method: &'static Method,
        options: CallOptions,
        body: Bytes,
    ) -> Result<Answer, Status> {
        let left_ms = self.deadline_at_ms.saturating_sub(self.client.0.0.clock.now_ms());
        if left_ms == 0 {
            let text = format!("no time was left to call {}.{}", method.service, method.name);
            return Err(Status::new(Code::Deadline, text));
        }
        let asked_ms = if options.deadline_ms == 0 { method.deadline_ms } else { options.deadline_ms };
        let deadline_ms = u64::from(asked_ms).min(left_ms) as u32;
        self.client.call(method, CallOptions { deadline_ms, ..options }, body).await
    }
}
