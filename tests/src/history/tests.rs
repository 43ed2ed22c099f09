//! The checker can fail: histories with one fault each.

use super::*;

const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;
const GROUP: u64 = GROUP_BIT | 9;

/// Three phones and a group of theirs.
struct Case {
    history: History,
    numbers: [u64; 3],
}

impl Case {
    fn new() -> Self {
        let mut history = History::default();
        for user in [A, B, C] {
            history.add_phone(user);
        }
        history.add_group(GROUP, [A, B, C]);
        Self { history, numbers: [0; 3] }
    }

    /// The next change of a phone's log.
    fn give(&mut self, log: usize, id: MessageId, from: u64, to: u64, item: u64, group_number: u64) {
        self.numbers[log] += 1;
        let message =
            pb::Message { from, to, sent_ms: 1, text: text(id), group_number, ..Default::default() };
        let change = pb::Change {
            number: self.numbers[log],
            item: Some(pb::ItemId { origin: from, number: item }),
            version: 1 + group_number,
            deleted: false,
            body: Some(pb::change::Body::Message(message)),
        };
        self.history.applied(log, &change);
    }

    /// A message that was sent, acknowledged, and is in its sender's log.
    fn sent(&mut self, from: u64, to: u64, item: u64) -> MessageId {
        let id = self.history.sent(from, to);
        self.history.acknowledged(id, item);
        self.give(from as usize - 1, id, from, to, item, 0);
        id
    }

    fn counts(&self) -> Counts {
        self.history.verdict().counts
    }
}

#[test]
fn what_is_right_is_not_complained_of() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    let two = case.sent(A, B, 2);
    let group = case.sent(A, GROUP, 3);
    case.give(1, one, A, B, 1, 0);
    case.give(1, two, A, B, 2, 0);
    for log in 0..3 {
        case.give(log, group, A, GROUP, 3, 1);
    }
    let unacknowledged = case.history.sent(B, C);
    let verdict = case.history.verdict();
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!(verdict.acknowledged, 3);
    assert!(!case.history.is_acknowledged(unacknowledged));
    assert_eq!((case.history.copies(one), case.history.copies(group)), (2, 3));
}

#[test]
fn a_message_that_one_receiver_lacks_is_lost() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    assert_eq!(case.counts(), Counts { lost: 1, ..Counts::default() });
    case.give(1, one, A, B, 1, 0);
    assert!(case.history.verdict().is_good());
    let group = case.sent(A, GROUP, 2);
    case.give(1, group, A, GROUP, 2, 1);
    // C never got it, and A was never told of its number.
    assert_eq!(case.counts(), Counts { lost: 2, ..Counts::default() });
    case.history.set_judged(2, false);
    assert_eq!(case.history.missing(), 1);
}

#[test]
fn a_senders_own_log_may_lose_too() {
    let mut case = Case::new();
    let id = case.history.sent(A, B);
    case.history.acknowledged(id, 1);
    case.give(1, id, A, B, 1, 0);
    assert_eq!(case.counts(), Counts { lost: 1, ..Counts::default() });
}

#[test]
fn two_numbers_with_one_message_are_doubled() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    case.give(1, one, A, B, 1, 0);
    case.give(1, one, A, B, 1, 0);
    assert_eq!(case.counts(), Counts { doubled: 1, ..Counts::default() });
}

#[test]
fn an_upload_that_was_applied_twice_is_doubled() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    case.give(1, one, A, B, 1, 0);
    case.give(0, one, A, B, 2, 0);
    assert!(case.counts().doubled > 0, "{:?}", case.history.verdict());
}

#[test]
fn a_message_of_a_finished_part_that_comes_again_is_doubled() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    case.give(1, one, A, B, 1, 0);
    case.history.forget();
    assert!(case.history.verdict().is_good());
    case.give(1, one, A, B, 1, 0);
    assert_eq!(case.counts(), Counts { doubled: 1, ..Counts::default() });
    let two = case.sent(A, B, 2);
    assert_ne!(one, two);
}

#[test]
fn an_earlier_message_after_a_later_is_out_of_order() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    let two = case.sent(A, B, 2);
    case.give(1, two, A, B, 2, 0);
    case.give(1, one, A, B, 1, 0);
    assert_eq!(case.counts(), Counts { out_of_order: 1, ..Counts::default() });
}

#[test]
fn order_is_kept_across_parts() {
    let mut case = Case::new();
    let two = case.sent(A, B, 2);
    case.give(1, two, A, B, 2, 0);
    case.history.forget();
    let one = case.history.sent(A, B);
    case.give(1, one, A, B, 1, 0);
    assert_eq!(case.counts(), Counts { out_of_order: 1, ..Counts::default() });
}

#[test]
fn members_that_disagree_are_out_of_order() {
    let mut case = Case::new();
    let one = case.sent(A, GROUP, 1);
    let two = case.sent(B, GROUP, 1);
    case.give(2, one, A, GROUP, 1, 1);
    case.give(2, two, B, GROUP, 1, 2);
    case.give(0, two, B, GROUP, 1, 1);
    assert!(case.counts().out_of_order > 0);
}

#[test]
fn a_group_that_turns_a_senders_messages_round_is_out_of_order() {
    let mut case = Case::new();
    let one = case.sent(A, GROUP, 1);
    let two = case.sent(A, GROUP, 2);
    case.give(2, two, A, GROUP, 2, 1);
    case.give(2, one, A, GROUP, 1, 2);
    assert_eq!(case.counts().out_of_order, 1);
}

#[test]
fn numbers_that_fall_are_out_of_order() {
    let mut case = Case::new();
    let one = case.sent(A, B, 1);
    let two = case.sent(A, B, 2);
    case.give(1, one, A, B, 1, 0);
    case.numbers[1] = 0;
    case.give(1, two, A, B, 2, 0);
    assert_eq!(case.counts(), Counts { out_of_order: 1, ..Counts::default() });
}

#[test]
fn what_nobody_sent_or_was_sent_to_another_is_strange() {
    let mut case = Case::new();
    case.give(1, MessageId(7), A, B, 1, 0);
    let one = case.sent(A, B, 1);
    case.give(2, one, A, B, 1, 0);
    case.give(1, one, C, B, 1, 0);
    assert_eq!(case.counts().strange, 3);
}
