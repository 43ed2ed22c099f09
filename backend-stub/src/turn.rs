//! One turn of the core: completions of the store go in, then all that it says is done. The event loop takes turns
//! in real time, the simulator in its own.

use proto_wire::pb;
use proto_wire::status::Status;

use crate::logic::{Action, Answer, At, Core};
use crate::storage::{ChangeLog, Completion, Full, ReadError};

/// What the core says to others than its store.
pub trait Outward {
    /// The verb that was called with this token has ended.
    fn answer(&mut self, token: u64, answer: Result<Answer, Status>);
    /// Calls a gateway's shard. Its end goes to `Core::handle_notify_result`, unless it is refused here.
    fn notify(
        &mut self,
        token: u64,
        gateway: u64,
        shard: u16,
        request: &pb::NotifyRequest,
    ) -> Result<(), Status>;
    /// A line for the operator.
    fn log(&mut self, line: &str);
}

/// Takes a turn. `completions` is the caller's buffer: what is left in it belongs to the next turn, which must come
/// at once then.
pub fn take(
    core: &mut Core,
    store: &mut dyn ChangeLog,
    completions: &mut Vec<Completion>,
    at: At,
    outward: &mut impl Outward,
) {
    store.poll(completions);
    core.set_full(store.is_full());
    for completion in completions.drain(..) {
        core.handle_completion(at, completion);
    }
    while let Some(action) = core.poll_action(at) {
        match action {
            Action::Answer { token, answer } => outward.answer(token, answer),
            Action::Submit { partition, batch } => {
                if let Err(Full(batch)) = store.submit(partition, batch) {
                    let reason = "the store's queue is full".to_owned();
                    completions.push(Completion::Failed { token: batch.token, reason });
                }
            }
            Action::Read { partition, read } => {
                if let Err(Full(read)) = store.read(partition, read) {
                    let answer = Err(ReadError("its queue is full".to_owned()));
                    completions.push(Completion::Read { token: read.token, answer });
                }
            }
            Action::Notify { token, gateway, shard, request } => {
                if let Err(status) = outward.notify(token, gateway, shard, &request) {
                    core.handle_notify_result(at, token, Err(&status));
                }
            }
            Action::Log(line) => outward.log(&line),
        }
    }
}
