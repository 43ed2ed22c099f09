//! What a mixed run asked for and what was acknowledged: all that is determined of what phones must show at its end.

use std::collections::VecDeque;

use ahash::{AHashMap, AHashSet};
use proto_wire::status::Code;
use serde::Serialize;

use super::kinds::Kind;
use crate::limits;

/// Of one kind, in the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KindCount {
    pub sent: u64,
    pub acknowledged: u64,
    /// Answered with a status that is final: much of it is as it must be, such as a yes to who asks no more.
    pub refused: u64,
}

/// Whether something was taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Back {
    #[default]
    No,
    /// It was asked for; it may have happened.
    Asked,
    Done,
}

/// By its text's number.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub sender: u32,
    /// The id of a user or group.
    pub to: u64,
    /// In the sender's log; 0: not acknowledged.
    pub item: u64,
    pub acknowledged_us: u64,
    pub back: Back,
}

#[derive(Debug, Clone)]
pub struct Post {
    pub author: u32,
    pub number: u64,
    pub hidden_from: Option<u32>,
    pub back: Back,
}

#[derive(Debug, Clone, Copy)]
pub struct Comment {
    pub from: u32,
    pub number: u64,
    pub author: u32,
    pub post: u64,
    pub back: Back,
}

/// Something that a user sets, of which the last value stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    Blocked(u32),
    Starred(u32),
    Remark(u32),
    Setting(u8),
    Nick,
}

/// The value of a slot as the highest number of the user's log has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    pub number: u64,
    pub value: String,
}

/// What a user's marks of a conversation come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    pub read: u64,
    pub read_item: u64,
}

/// A call of a run, and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Send {
        id: u32,
    },
    Recall {
        id: u32,
    },
    Mark {
        user: u32,
        peer: u64,
        mark: Mark,
    },
    /// A question, a yes, an end.
    Relate,
    Put {
        user: u32,
        slot: Slot,
        value: String,
    },
    Group,
    Publish {
        post: u32,
    },
    Withdraw {
        post: u32,
    },
    Say {
        comment: u32,
    },
    Unsay {
        comment: u32,
    },
    Typing,
}

/// What a user made and may take back.
#[derive(Debug, Clone, Default)]
struct Recent {
    messages: VecDeque<u32>,
    posts: VecDeque<u32>,
    comments: VecDeque<u32>,
}

#[derive(Debug, Default)]
pub struct Model {
    pub messages: Vec<Message>,
    pub posts: Vec<Post>,
    pub comments: Vec<Comment>,
    pub words: AHashMap<(u32, Slot), Word>,
    pub marks: AHashMap<(u32, u64), Mark>,
    /// Who ever asked to block whom.
    blocks: AHashSet<(u32, u32)>,
    /// Pairs of which one ever asked to end the relation.
    ends: AHashSet<(u32, u32)>,
    recent: Vec<Recent>,
    counts: Vec<KindCount>,
    /// Calls that are not answered for good.
    pub outstanding: u64,
    pub badly_refused: u64,
    pub complaints: Vec<String>,
}

impl Model {
    pub fn new(users: u32) -> Self {
        Self {
            recent: vec![Recent::default(); users as usize],
            counts: vec![KindCount::default(); Kind::ALL.len()],
            ..Self::default()
        }
    }

    pub fn count(&self, kind: Kind) -> KindCount {
        self.counts[kind as usize]
    }

    pub fn total(&self) -> KindCount {
        self.counts.iter().fold(KindCount::default(), |sum, count| KindCount {
            sent: sum.sent + count.sent,
            acknowledged: sum.acknowledged + count.acknowledged,
            refused: sum.refused + count.refused,
        })
    }

    pub fn has_blocked(&self, blocker: u32, other: u32) -> bool {
        self.blocks.contains(&(blocker, other))
    }

    /// Whether two who were made contacts have been that all the time, and told each other everything.
    pub fn is_untouched(&self, a: u32, b: u32) -> bool {
        !self.ends.contains(&pair(a, b)) && !self.has_blocked(a, b) && !self.has_blocked(b, a)
    }

    pub fn new_message(&mut self, sender: u32, to: u64) -> Option<u32> {
        let id = u32::try_from(self.messages.len()).ok().filter(|&id| id < limits::MESSAGES_MAX)?;
        self.messages.push(Message { sender, to, item: 0, acknowledged_us: 0, back: Back::No });
        Some(id)
    }

    pub fn new_post(&mut self, author: u32, hidden_from: Option<u32>) -> u32 {
        self.posts.push(Post { author, number: 0, hidden_from, back: Back::No });
        self.posts.len() as u32 - 1
    }

    pub fn new_comment(&mut self, from: u32, author: u32, post: u64) -> u32 {
        self.comments.push(Comment { from, number: 0, author, post, back: Back::No });
        self.comments.len() as u32 - 1
    }

    /// A message of the user that can be taken back; nobody else gets it.
    pub fn take_message(&mut self, user: u32, now_us: u64) -> Option<u32> {
        let id = self.recent[user as usize].messages.pop_front()?;
        let message = &mut self.messages[id as usize];
        if message.acknowledged_us + limits::RECALL_WITHIN_US < now_us {
            return None;
        }
        message.back = Back::Asked;
        Some(id)
    }

    pub fn take_post(&mut self, user: u32) -> Option<u32> {
        let id = self.recent[user as usize].posts.pop_front()?;
        self.posts[id as usize].back = Back::Asked;
        Some(id)
    }

    pub fn take_comment(&mut self, user: u32) -> Option<u32> {
        let id = self.recent[user as usize].comments.pop_front()?;
        self.comments[id as usize].back = Back::Asked;
        Some(id)
    }

    pub fn note_end(&mut self, a: u32, b: u32) {
        self.ends.insert(pair(a, b));
    }

    /// A call leaves for the first time.
    pub fn sent(&mut self, kind: Kind, op: &Op) {
        self.counts[kind as usize].sent += 1;
        self.outstanding += 1;
        if let Op::Put { user, slot: Slot::Blocked(other), .. } = op {
            self.blocks.insert((*user, *other));
        }
    }

    /// A call was done, as number `number` of the caller's log.
    pub fn acknowledged(&mut self, kind: Kind, op: &Op, number: u64, now_us: u64) {
        self.counts[kind as usize].acknowledged += 1;
        self.outstanding -= 1;
        match op {
            Op::Send { id } => {
                let message = &mut self.messages[*id as usize];
                (message.item, message.acknowledged_us) = (number, now_us);
                let sender = message.sender;
                keep(&mut self.recent[sender as usize].messages, *id);
            }
            Op::Recall { id } => self.messages[*id as usize].back = Back::Done,
            Op::Mark { user, peer, mark } => {
                let known = self.marks.entry((*user, *peer)).or_default();
                known.read = known.read.max(mark.read);
                known.read_item = known.read_item.max(mark.read_item);
            }
            Op::Put { user, slot, value } => {
                let known = self.words.entry((*user, *slot)).or_default();
                if number > known.number {
                    *known = Word { number, value: value.clone() };
                }
            }
            Op::Publish { post } => {
                let at = &mut self.posts[*post as usize];
                at.number = number;
                let author = at.author;
                keep(&mut self.recent[author as usize].posts, *post);
            }
            Op::Withdraw { post } => self.posts[*post as usize].back = Back::Done,
            Op::Say { comment } => {
                let at = &mut self.comments[*comment as usize];
                at.number = number;
                let from = at.from;
                keep(&mut self.recent[from as usize].comments, *comment);
            }
            Op::Unsay { comment } => self.comments[*comment as usize].back = Back::Done,
            Op::Relate | Op::Group | Op::Typing => {}
        }
    }

    /// A call was refused for good. `user_of` tells whose id a message went to.
    pub fn refused(
        &mut self,
        kind: Kind,
        op: &Op,
        code: Code,
        told: &str,
        now_us: u64,
        user_of: impl Fn(u64) -> Option<u32>,
    ) {
        self.counts[kind as usize].refused += 1;
        self.outstanding -= 1;
        match op {
            // It was not taken back.
            Op::Recall { id } => self.messages[*id as usize].back = Back::No,
            Op::Withdraw { post } => self.posts[*post as usize].back = Back::No,
            Op::Unsay { comment } => self.comments[*comment as usize].back = Back::No,
            _ => {}
        }
        if !self.may_be_refused(op, code, now_us, user_of) {
            self.badly_refused += 1;
            self.complain(format!("{op:?} ({}) was refused: {}: {told}", kind.name(), code.name()));
        }
    }

    /// What others did meanwhile explains some refusals.
    fn may_be_refused(&self, op: &Op, code: Code, now_us: u64, user_of: impl Fn(u64) -> Option<u32>) -> bool {
        match op {
            Op::Send { id } => {
                let message = &self.messages[*id as usize];
                let blocked = user_of(message.to).is_some_and(|to| self.has_blocked(to, message.sender));
                // None: a group, whose members change.
                code == Code::Denied && (blocked || user_of(message.to).is_none())
            }
            Op::Relate => matches!(code, Code::NotFound | Code::Exists),
            Op::Group => matches!(code, Code::NotFound | Code::Exists | Code::Denied | Code::Invalid),
            Op::Say { .. } | Op::Unsay { .. } => code == Code::NotFound,
            // It waited too long for an answer; behind a horizon the message's first version may be gone. Who has
            // left a group changes nothing in it.
            Op::Recall { id } => {
                let message = &self.messages[*id as usize];
                let late = now_us > message.acknowledged_us + limits::RECALL_LATE_US;
                let left = user_of(message.to).is_none();
                late && matches!(code, Code::Limit | Code::NotFound) || left && code == Code::Denied
            }
            Op::Mark { .. } | Op::Put { .. } => false,
            Op::Publish { .. } | Op::Withdraw { .. } | Op::Typing => false,
        }
    }

    pub fn complain(&mut self, complaint: String) {
        if self.complaints.len() < limits::COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }
}

fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

fn keep(recent: &mut VecDeque<u32>, id: u32) {
    if recent.len() == limits::RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_of_a_log_has_the_last_word() {
        let mut model = Model::new(2);
        let put = |value: &str| Op::Put { user: 0, slot: Slot::Remark(1), value: value.to_owned() };
        for (op, number) in [(put("second"), 9), (put("first"), 4)] {
            model.sent(Kind::Remark, &op);
            model.acknowledged(Kind::Remark, &op, number, 0);
        }
        assert_eq!(model.words[&(0, Slot::Remark(1))], Word { number: 9, value: "second".to_owned() });
        assert_eq!((model.outstanding, model.count(Kind::Remark).acknowledged), (0, 2));
    }

    #[test]
    fn a_message_is_taken_back_once_and_not_after_its_time() {
        let mut model = Model::new(2);
        for at_us in [0, 1_000] {
            let op = Op::Send { id: model.new_message(0, 5).expect("room") };
            model.sent(Kind::Message, &op);
            model.acknowledged(Kind::Message, &op, 1 + at_us, at_us);
        }
        assert_eq!(model.take_message(0, limits::RECALL_WITHIN_US + 1), None, "the first is too old");
        assert_eq!(model.take_message(0, limits::RECALL_WITHIN_US + 1), Some(1));
        assert_eq!(model.take_message(0, 0), None);
        assert_eq!(model.messages[1].back, Back::Asked);
    }

    #[test]
    fn only_what_others_explain_may_be_refused() {
        let mut model = Model::new(2);
        let send = Op::Send { id: model.new_message(0, 1).expect("room") };
        let user_of = |id: u64| Some(id as u32);
        model.sent(Kind::Message, &send);
        model.refused(Kind::Message, &send, Code::Denied, "no", 0, user_of);
        assert_eq!((model.badly_refused, model.complaints.len()), (1, 1));
        let block = Op::Put { user: 1, slot: Slot::Blocked(0), value: "1".to_owned() };
        model.sent(Kind::Block, &block);
        model.sent(Kind::Message, &send);
        model.refused(Kind::Message, &send, Code::Denied, "no", 0, user_of);
        assert_eq!((model.badly_refused, model.outstanding), (1, 1));
        assert!(!model.is_untouched(0, 1));
    }
}
