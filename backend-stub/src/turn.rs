//! One turn of the core: completions of the store go in, then all that it says is done. The event loop takes turns
//! in real time, the simulator in its own.

use proto_wire::pb;
use proto_wire::status::Status;

use crate::logic::{Action, Answer, At, Core, limits};
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
    core.set_behind(store.is_behind());
    let share = share_of_turn(core, completions);
    for completion in completions.drain(..share) {
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

/// How many completions this turn takes: with thousands of calls in flight one commit after the other is there, and a
/// phone's call would wait for what all of them bring about. A failure is told at once: what is submitted behind one that
/// the core does not know of would be written.
fn share_of_turn(core: &Core, completions: &[Completion]) -> usize {
    let has_failed =
        |completion: &Completion| matches!(completion, Completion::Failed { .. } | Completion::Fenced { .. });
    if completions.iter().any(has_failed) {
        return completions.len();
    }
    let mut work = 0;
    let fits = completions.iter().take_while(|completion| {
        let fits = work < limits::EFFECTS_OF_A_TURN;
        work += core.work_of(completion);
        fits
    });
    fits.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::CoreConfig;
    use crate::storage::memory::Memory;
    use bytes::Bytes;
    use proto_wire::names::UploadId;

    const AT: At = At { now_ms: 1_000_000, unix_ms: 1_800_000_000_000 };

    #[derive(Default)]
    struct Said(Vec<u64>);

    impl Outward for Said {
        fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
            assert!(answer.is_ok(), "{answer:?}");
            self.0.push(token);
        }

        fn notify(&mut self, _: u64, _: u64, _: u16, _: &pb::NotifyRequest) -> Result<(), Status> {
            Ok(())
        }

        fn log(&mut self, line: &str) {
            panic!("{line}");
        }
    }

    /// Each user sends one message to its neighbour.
    #[test]
    fn with_thousands_in_flight_a_turn_takes_a_share_of_them_and_all_are_answered() {
        const USERS: u64 = 5_000;
        let mut store = Memory::eager(1);
        let owner_epoch = store.claim();
        let mut core = Core::new(CoreConfig { owner_epoch, ..CoreConfig::new(1, 1, 1) });
        let (mut completions, mut said) = (Vec::new(), Said::default());
        while !core.is_ready() {
            take(&mut core, &mut store, &mut completions, AT, &mut said);
        }
        for user in 1..=USERS {
            let id = Bytes::copy_from_slice(&UploadId::new(AT.unix_ms, [7; 10]).0);
            let to = 1 + user % USERS;
            let request = pb::SendRequest { id, to, text: "x".into(), ..Default::default() };
            core.send(AT, user, user, 1, &request);
        }
        let (mut left_over, mut most) = (0, 0);
        while (said.0.len() as u64) < USERS || core.counters().duties > 0 {
            let rows = core.counters().rows;
            take(&mut core, &mut store, &mut completions, AT, &mut said);
            most = most.max(core.counters().rows - rows);
            left_over += usize::from(!completions.is_empty());
        }
        said.0.sort_unstable();
        assert_eq!(said.0, (1..=USERS).collect::<Vec<_>>());
        assert!(left_over > 0, "all came in one turn");
        let bound = (limits::EFFECTS_OF_A_TURN + limits::EFFECTS_OF_A_BATCH) as u64;
        assert!(most <= bound, "{most} rows in one turn");
        assert_eq!(core.counters().rows, 2 * USERS);
    }
}
