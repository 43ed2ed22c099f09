//! Whether what was acknowledged arrived: everywhere, once, in order. A pure record; it opens nothing.
//!
//! - **lost**: an acknowledged message that a phone of a receiver, or of its sender, does not have.
//! - **doubled**: a message that stands in a log twice, or that was born twice. (A sender's own row of a message to
//!   a group comes again, as a later version, when the group has numbered it.)
//! - **out of order**: between two users, an earlier message after a later one; in a group, a lower number after a
//!   higher, a number that is two messages, or two messages of one sender numbered the other way round.
//! - **strange**: what no phone sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto_wire::names::GROUP_BIT;
use proto_wire::pb;

use crate::limits;

/// Names a message of a run, and stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u32);

/// What phones sent, what was acknowledged, what came.
#[derive(Debug, Default)]
pub struct History {
    /// Messages before this one were found to be right and forgotten.
    base: u32,
    messages: Vec<Message>,
    groups: HashMap<u64, Group>,
    logs: Vec<Log>,
    acknowledged: u64,
    counts: Counts,
    complaints: Vec<String>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub lost: u64,
    pub doubled: u64,
    pub out_of_order: u64,
    pub strange: u64,
}

/// The end of a run, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub counts: Counts,
    pub acknowledged: u64,
    /// The first of what was wrong, in words.
    pub complaints: Vec<String>,
}

#[derive(Debug)]
struct Message {
    from: u64,
    to: u64,
    /// Its number in the log of its sender; 0: not known yet.
    item: u64,
    is_acknowledged: bool,
}

#[derive(Debug, Default)]
struct Group {
    members: HashSet<u64>,
    /// The message of each number.
    order: HashMap<u64, MessageId>,
    /// For each sender its items by the group's number.
    of_sender: HashMap<u64, BTreeMap<u64, u64>>,
}

/// What one phone has applied.
#[derive(Debug)]
struct Log {
    user: u64,
    is_judged: bool,
    /// It reads the whole log anew, also what is forgotten here.
    is_late: bool,
    last_number: u64,
    /// The messages that are here, with their numbers in their groups.
    has: HashMap<MessageId, u64>,
    /// The latest item that came from a user directly.
    last_item: HashMap<u64, u64>,
    last_group_number: HashMap<u64, u64>,
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    Doubled,
    OutOfOrder,
    Strange,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.counts == Counts::default()
    }
}

impl History {
    /// A phone of `user` that has nothing yet. Gives the number of its log.
    pub fn add_phone(&mut self, user: u64) -> usize {
        self.logs.push(Log {
            user,
            is_judged: true,
            is_late: false,
            last_number: 0,
            has: HashMap::new(),
            last_item: HashMap::new(),
            last_group_number: HashMap::new(),
        });
        self.logs.len() - 1
    }

    /// A phone that is gone for good need not have everything.
    pub fn set_judged(&mut self, log: usize, is_judged: bool) {
        self.logs[log].is_judged = is_judged;
    }

    /// A phone that came after something was forgotten gets that too.
    pub fn set_late(&mut self, log: usize) {
        self.logs[log].is_late = true;
    }

    pub fn add_group(&mut self, group: u64, members: impl IntoIterator<Item = u64>) {
        self.groups.entry(group).or_default().members = members.into_iter().collect();
    }

    /// A message is about to leave; its text must be [`text`] or [`long_text`] of its id.
    pub fn sent(&mut self, from: u64, to: u64) -> MessageId {
        self.messages.push(Message { from, to, item: 0, is_acknowledged: false });
        MessageId(self.base + self.messages.len() as u32 - 1)
    }

    /// The message is on disk as number `item` of its sender's log, said the server.
    pub fn acknowledged(&mut self, id: MessageId, item: u64) {
        let Some(message) = self.message(id) else { return };
        if !message.is_acknowledged {
            message.is_acknowledged = true;
            self.acknowledged += 1;
        }
        self.name(id, item);
    }

    pub fn is_acknowledged(&self, id: MessageId) -> bool {
        id.0 < self.base || self.messages.get((id.0 - self.base) as usize).is_some_and(|m| m.is_acknowledged)
    }

    /// Messages acknowledged since the beginning.
    pub fn acknowledged_in_all(&self) -> u64 {
        self.acknowledged
    }

    /// How many phones have the message.
    pub fn copies(&self, id: MessageId) -> usize {
        self.logs.iter().filter(|log| log.has.contains_key(&id)).count()
    }

    pub fn has(&self, log: usize, id: MessageId) -> bool {
        self.logs[log].has.contains_key(&id)
    }

    /// A phone applied a change.
    pub fn applied(&mut self, log: usize, change: &pb::Change) {
        let last = self.logs[log].last_number;
        self.logs[log].last_number = last.max(change.number);
        if change.number <= last {
            self.complain(
                Wrong::OutOfOrder,
                format!("phone {log} got number {} after {last}", change.number),
            );
        }
        let Some(pb::change::Body::Message(message)) = &change.body else { return };
        let id = id_of(&message.text);
        let Some(id) = id.filter(|id| id.0 < self.base + self.messages.len() as u32) else {
            self.complain(Wrong::Strange, format!("phone {log} got {:.40?}", message.text));
            return;
        };
        if id.0 < self.base {
            if self.logs[log].is_late {
                return;
            }
            self.complain(Wrong::Doubled, format!("phone {log} got {id:?} again, long after it was done"));
            return;
        }
        let item = change.item.unwrap_or_default();
        let sent = &self.messages[(id.0 - self.base) as usize];
        if (sent.from, sent.to) != (message.from, message.to) || item.origin != sent.from {
            self.complain(Wrong::Strange, format!("{id:?} does not say what its sender said: {change:?}"));
            return;
        }
        self.name(id, item.number);
        if message.to & GROUP_BIT == 0 {
            self.take_direct(log, id, message, item.number);
        } else {
            self.take_group(log, id, message, item.number);
        }
    }

    /// The messages and phones that are still apart: acknowledged, and not there.
    pub fn missing(&self) -> u64 {
        self.each_missing().count() as u64
    }

    /// What is wrong so far. Everything that should have come is taken to be lost.
    pub fn verdict(&self) -> Verdict {
        let mut counts = self.counts;
        let mut complaints = self.complaints.clone();
        for (id, log) in self.each_missing() {
            counts.lost += 1;
            if complaints.len() < limits::COMPLAINTS_MAX {
                let (message, user) = (&self.messages[(id.0 - self.base) as usize], self.logs[log].user);
                complaints.push(format!("{id:?} never came to phone {log} of user {user:#x}: {message:?}"));
            }
        }
        Verdict { counts, acknowledged: self.acknowledged, complaints }
    }

    /// Lets go of what was judged, so that a long run stays small. What of it comes again is doubled.
    pub fn forget(&mut self) {
        self.base += self.messages.len() as u32;
        self.messages.clear();
        for log in &mut self.logs {
            log.has.clear();
        }
        for group in self.groups.values_mut() {
            group.order.clear();
            for items in group.of_sender.values_mut() {
                // The last of each stays, to hold the next against.
                if let Some(last) = items.pop_last() {
                    items.clear();
                    items.insert(last.0, last.1);
                }
            }
        }
    }

    fn each_missing(&self) -> impl Iterator<Item = (MessageId, usize)> {
        let acknowledged = self.messages.iter().enumerate().filter(|(_, message)| message.is_acknowledged);
        acknowledged.flat_map(|(at, message)| {
            let id = MessageId(self.base + at as u32);
            let members = self.groups.get(&message.to).map(|group| &group.members);
            let logs = self.logs.iter().enumerate();
            logs.filter(move |(_, log)| {
                let wanted = log.user == message.from
                    || log.user == message.to
                    || members.is_some_and(|members| members.contains(&log.user));
                // A sender's own copy is whole only with the group's number.
                let is_here = match log.has.get(&id) {
                    Some(group_number) => message.to & GROUP_BIT == 0 || *group_number > 0,
                    None => false,
                };
                wanted && log.is_judged && !is_here
            })
            .map(move |(log, _)| (id, log))
        })
    }

    fn message(&mut self, id: MessageId) -> Option<&mut Message> {
        self.messages.get_mut(id.0.checked_sub(self.base)? as usize)
    }

    /// One message has one number in its sender's log.
    fn name(&mut self, id: MessageId, item: u64) {
        let Some(message) = self.message(id) else { return };
        let known = message.item;
        message.item = item;
        if known != 0 && known != item {
            self.complain(Wrong::Doubled, format!("{id:?} was born as number {known} and as {item}"));
        }
    }

    fn take_direct(&mut self, log: usize, id: MessageId, message: &pb::Message, item: u64) {
        let here = &mut self.logs[log];
        let is_first = here.has.insert(id, 0).is_none();
        let last = here.last_item.insert(message.from, item).unwrap_or(0);
        let (user, is_own) = (here.user, here.user == message.from);
        if !is_first {
            self.complain(Wrong::Doubled, format!("phone {log} got {id:?} twice"));
        } else if !is_own && user != message.to {
            self.complain(
                Wrong::Strange,
                format!("phone {log} of user {user:#x} got {id:?}, which is not its"),
            );
        } else if item < last {
            let text = format!("phone {log} got item {item} of {:#x} after {last}", message.from);
            self.complain(Wrong::OutOfOrder, text);
        }
    }

    fn take_group(&mut self, log: usize, id: MessageId, message: &pb::Message, item: u64) {
        let (here, number) = (&mut self.logs[log], message.group_number);
        let before = here.has.insert(id, number);
        let (user, is_own) = (here.user, here.user == message.from);
        let is_later_version = is_own && before == Some(0) && number > 0;
        if before.is_some() && !is_later_version {
            self.complain(Wrong::Doubled, format!("phone {log} got {id:?} twice"));
            return;
        }
        let group = self.groups.entry(message.to).or_default();
        if !group.members.contains(&user) || (number == 0 && !is_own) {
            self.complain(Wrong::Strange, format!("phone {log} of user {user:#x} got {id:?}: {message:?}"));
            return;
        }
        if number == 0 {
            return;
        }
        let last = self.logs[log].last_group_number.insert(message.to, number).unwrap_or(0);
        let other = *group.order.entry(number).or_insert(id);
        let items = group.of_sender.entry(message.from).or_default();
        items.insert(number, item);
        let earlier = items.range(..number).next_back().is_none_or(|(_, earlier)| *earlier < item);
        let later = items.range(number + 1..).next().is_none_or(|(_, later)| *later > item);
        let sender = if earlier && later { String::new() } else { format!("{id:?} among {items:?}") };
        if number <= last {
            self.complain(
                Wrong::OutOfOrder,
                format!("phone {log} got {id:?}, number {number}, after {last}"),
            );
        }
        if other != id {
            self.complain(Wrong::OutOfOrder, format!("number {number} of a group is {other:?} and {id:?}"));
        }
        if !(earlier && later) {
            self.complain(Wrong::OutOfOrder, format!("a group turned a sender's messages round: {sender}"));
        }
    }

    fn complain(&mut self, wrong: Wrong, text: String) {
        *match wrong {
            Wrong::Doubled => &mut self.counts.doubled,
            Wrong::OutOfOrder => &mut self.counts.out_of_order,
            Wrong::Strange => &mut self.counts.strange,
        } += 1;
        if self.complaints.len() < limits::COMPLAINTS_MAX {
            self.complaints.push(format!("{wrong:?}: {text}"));
        }
    }
}

/// The text of a message.
pub fn text(id: MessageId) -> String {
    format!("m{}", id.0)
}

/// The text of a message that is longer by so many bytes.
pub fn long_text(id: MessageId, more_bytes: usize) -> String {
    let mut text = text(id);
    if more_bytes > 0 {
        text.push(' ');
        text.extend(std::iter::repeat_n('x', more_bytes - 1));
    }
    text
}

fn id_of(text: &str) -> Option<MessageId> {
    let id = text.strip_prefix('m')?.split(' ').next()?;
    id.parse().ok().map(MessageId)
}

#[cfg(test)]
mod tests;
