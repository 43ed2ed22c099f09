//! Whether what was acknowledged arrived: everywhere, once, in order.
//!
//! A pure record of what phones sent, what was acknowledged, and what came. Of each message it keeps 32 bytes, of
//! each delivery in a group a bit.
//!
//! - **missing**: an acknowledged message that a receiver never got. An unacknowledged one may or may not arrive.
//! - **duplicate**: two numbers of one receiver's log hold one message. (A number that comes again is a repeat;
//!   the phone drops it and it never gets here.)
//! - **out of order**: between two phones, an item of the sender with a lower number in the sender's log came after
//!   one with a higher; in a group, a lower group number after a higher, or two messages of a sender numbered
//!   the other way round.
//! - **disagreement**: a group's number that is one message at one member and another at another.
//! - **misdelivered**: a message where it does not belong, or that says what its sender did not send.

mod group;
mod text;

use std::sync::Arc;

use crate::limits;
use crate::workload::{Destination, Population};
use group::GroupOrder;

pub use text::Text;

/// A change of a phone's log that is a message.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub receiver: u32,
    /// The user in whose log the message was born, as an index of the run; none: no phone of the run.
    pub origin: Option<u32>,
    /// Its number there.
    pub item: u64,
    pub text: Text,
    /// What the message says of its destination; none: nothing that this run knows.
    pub to: Option<Destination>,
    pub group_number: u64,
}

/// What was counted; all but the first four should be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    pub acknowledged: u64,
    /// Copies that receivers other than the sender got, each once.
    pub delivered: u64,
    /// Copies that senders got of their own messages.
    pub own: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub disagreements: u64,
    pub misdelivered: u64,
}

/// What is yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outstanding {
    pub acknowledgements: u64,
    /// Copies of acknowledged messages for receivers, and for senders of their own.
    pub deliveries: u64,
    pub own: u64,
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub counts: Counts,
    pub missing: u64,
    /// Acknowledged messages that the sender's own log never showed.
    pub own_missing: u64,
    pub unacknowledged: u64,
    /// The first of what was wrong, in words.
    pub complaints: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        let counts = &self.counts;
        let wrong = counts.duplicates + counts.out_of_order + counts.disagreements + counts.misdelivered;
        wrong + self.missing + self.own_missing == 0
    }
}

/// A message.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    sender: u32,
    /// A phone, or a group with [`TO_GROUP`].
    to: u32,
    /// In its sender's log; 0: not known yet.
    item: u64,
    /// In its group's order; 0: not known yet.
    group_number: u32,
    /// Receivers that have it.
    delivered: u32,
    flags: u8,
}

const TO_GROUP: u32 = 1 << 31;
const SENT: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const OWN_SEEN: u8 = 4;

#[derive(Debug)]
pub struct Checker {
    population: Arc<Population>,
    run: u32,
    messages: Vec<Record>,
    /// For each phone and contact the highest item that came from there.
    last_item: Vec<u64>,
    groups: Vec<GroupOrder>,
    counts: Counts,
    /// Copies of acknowledged messages, expected and come.
    expected: u64,
    come: u64,
    own_come: u64,
    complaints: Vec<String>,
    /// Messages from this id on belong to the phase.
    phase_from: u32,
    phase: Counts,
}

impl Checker {
    pub fn new(population: Arc<Population>, run: u32) -> Self {
        let last_item = vec![0; population.phones() as usize * population.contacts() as usize];
        let groups = population.groups().iter().map(|group| GroupOrder::new(group.members.len())).collect();
        Self {
            population,
            run,
            messages: Vec::new(),
            last_item,
            groups,
            counts: Counts::default(),
            expected: 0,
            come: 0,
            own_come: 0,
            complaints: Vec::new(),
            phase_from: 0,
            phase: Counts::default(),
        }
    }

    /// Messages from `id` on are counted apart, in [`Checker::phase`].
    pub fn begin_phase(&mut self, id: u32) {
        self.phase_from = id;
        self.phase = Counts::default();
    }

    pub fn phase(&self) -> &Counts {
        &self.phase
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A message is about to leave.
    pub fn sent(&mut self, id: u32, sender: u32, to: Destination) {
        let at = id as usize;
        if self.messages.len() <= at {
            self.messages.resize(at + 1, Record::default());
        }
        let to = match to {
            Destination::Phone(phone) => phone,
            Destination::Group(group) => group | TO_GROUP,
        };
        self.messages[at] = Record { sender, to, flags: SENT, ..Record::default() };
        self.count(id, |counts| counts.sent += 1);
    }

    /// A message was acknowledged, as number `item` of its sender's log.
    pub fn acknowledged(&mut self, id: u32, item: u64) {
        let Some(record) = self.messages.get_mut(id as usize) else { return };
        if record.flags & ACKNOWLEDGED != 0 {
            return;
        }
        record.flags |= ACKNOWLEDGED;
        let (known, delivered, own) = (record.item, record.delivered, record.flags & OWN_SEEN != 0);
        record.item = item;
        if known != 0 && known != item {
            self.misdelivered(format!("message {id} was acknowledged as number {item} and came as {known}"));
        }
        self.expected += u64::from(self.receivers_of(id));
        self.come += u64::from(delivered);
        self.own_come += u64::from(own);
        self.count(id, |counts| counts.acknowledged += 1);
    }

    /// A message stands in a phone's log. Whether this was the first copy of a receiver other than the sender.
    pub fn delivered(&mut self, delivery: &Delivery) -> bool {
        let before = self.counts.delivered;
        self.take(delivery);
        self.counts.delivered > before
    }

    /// A change stands in a phone's log that no phone of this run can have made.
    pub fn strange(&mut self, receiver: u32, what: &str) {
        self.misdelivered(format!("phone {receiver} got {what}"));
    }

    pub fn outstanding(&self) -> Outstanding {
        Outstanding {
            acknowledgements: self.counts.sent - self.counts.acknowledged,
            deliveries: self.expected - self.come,
            own: self.counts.acknowledged - self.own_come,
        }
    }

    /// Looks for what did not come, and at the orders of groups.
    pub fn finish(mut self) -> Verdict {
        for group in 0..self.groups.len() {
            self.check_senders_order(group);
        }
        let (mut missing, mut own_missing) = (0, 0);
        for id in 0..self.messages.len() as u32 {
            let record = self.messages[id as usize];
            if record.flags & ACKNOWLEDGED == 0 {
                continue;
            }
            let lacking = self.receivers_of(id).saturating_sub(record.delivered);
            if lacking > 0 {
                missing += u64::from(lacking);
                let to = destination(&record);
                let who = self.who_lacks(id);
                self.complain(format!(
                    "message {id} of phone {} to {to:?}, number {} of its log, did not reach {lacking}: {who:?}",
                    record.sender, record.item
                ));
            }
            if record.flags & OWN_SEEN == 0 {
                own_missing += 1;
                self.complain(format!("phone {} never saw its own message {id}", record.sender));
            }
        }
        Verdict {
            missing,
            own_missing,
            unacknowledged: self.counts.sent - self.counts.acknowledged,
            counts: self.counts,
            complaints: self.complaints,
        }
    }

    fn take(&mut self, delivery: &Delivery) {
        let Delivery { receiver, item, text, .. } = *delivery;
        let known = self.messages.get(text.id as usize).filter(|record| record.flags & SENT != 0).copied();
        let Some(record) = known.filter(|_| text.run == self.run) else {
            return self.misdelivered(format!("phone {receiver} got a message that nobody sent: {text:?}"));
        };
        let to = destination(&record);
        if record.sender != text.sender || delivery.origin != Some(record.sender) || delivery.to != Some(to) {
            return self
                .misdelivered(format!("phone {receiver} got message {} distorted: {delivery:?}", text.id));
        }
        if record.item == 0 {
            self.messages[text.id as usize].item = item;
        } else if record.item != item {
            // The upload was applied twice: two items are one message.
            return self.duplicate(
                text.id,
                format!(
                    "message {} of phone {} is number {} and number {item} of its log",
                    text.id, text.sender, record.item
                ),
            );
        }
        match to {
            Destination::Phone(_) if receiver == record.sender => self.own_copy(text.id),
            Destination::Phone(phone) if receiver == phone => self.direct(delivery),
            Destination::Group(_) if receiver == record.sender && delivery.group_number == 0 => {}
            Destination::Group(group) => self.in_group(group, delivery),
            _ => self.misdelivered(format!("phone {receiver} got message {} for {to:?}", text.id)),
        }
    }

    fn direct(&mut self, delivery: &Delivery) {
        let Delivery { receiver, item, text, .. } = *delivery;
        if self.messages[text.id as usize].delivered > 0 {
            return self.duplicate(text.id, format!("phone {receiver} got message {} twice", text.id));
        }
        self.came(text.id);
        let Some(contact) = self.population.contact_index(receiver, text.sender) else { return };
        let at = receiver as usize * self.population.contacts() as usize + contact as usize;
        let last = self.last_item[at];
        self.last_item[at] = last.max(item);
        if item < last {
            self.out_of_order(
                text.id,
                format!("phone {receiver} got number {item} of phone {} after number {last}", text.sender),
            );
        }
    }

    fn in_group(&mut self, group: u32, delivery: &Delivery) {
        let Delivery { receiver, text, group_number: number, .. } = *delivery;
        let id = text.id;
        let Some(member) = self.population.groups()[group as usize].index_of(receiver) else {
            return self.misdelivered(format!("phone {receiver} got message {id} of a group it is not in"));
        };
        if number == 0 || number > limits::GROUP_NUMBERS_MAX {
            return self
                .misdelivered(format!("phone {receiver} got message {id} with group number {number}"));
        }
        let number = number as u32;
        let record = &mut self.messages[id as usize];
        if record.group_number == 0 {
            record.group_number = number;
        } else if record.group_number != number {
            let first = record.group_number;
            let words = format!(
                "message {id} is number {first} and number {number} of group {group} (phone {receiver})"
            );
            if self.groups[group as usize].has(member, first) {
                return self.duplicate(id, words);
            }
            return self.disagreement(id, words);
        }
        let seen = self.groups[group as usize].see(member, number, id);
        if let Some(other) = seen.instead_of {
            self.disagreement(id, format!(
                "number {number} of group {group} is message {id} at phone {receiver} and message {other} elsewhere"
            ));
        }
        if seen.again {
            return self
                .duplicate(id, format!("phone {receiver} got number {number} of group {group} twice"));
        }
        if receiver == text.sender {
            self.own_copy(id)
        } else {
            self.came(id)
        }
        if let Some(last) = seen.behind {
            self.out_of_order(
                id,
                format!("phone {receiver} got number {number} of group {group} after number {last}"),
            );
        }
    }

    fn came(&mut self, id: u32) {
        let record = &mut self.messages[id as usize];
        record.delivered += 1;
        self.come += u64::from(record.flags & ACKNOWLEDGED != 0);
        self.count(id, |counts| counts.delivered += 1);
    }

    fn own_copy(&mut self, id: u32) {
        let record = &mut self.messages[id as usize];
        let flags = record.flags;
        record.flags |= OWN_SEEN;
        if flags & OWN_SEEN != 0 {
            let sender = record.sender;
            return self.duplicate(id, format!("phone {sender} has its own message {id} twice"));
        }
        self.own_come += u64::from(flags & ACKNOWLEDGED != 0);
        self.count(id, |counts| counts.own += 1);
    }

    /// Two messages of one sender must be numbered in the order of the sender's log.
    fn check_senders_order(&mut self, group: usize) {
        let mut last: ahash::AHashMap<u32, u64> = ahash::AHashMap::new();
        for id in std::mem::take(&mut self.groups[group].order).into_iter().flatten() {
            let record = self.messages[id as usize];
            let before = last.entry(record.sender).or_default();
            if record.item < *before {
                let before = *before;
                self.out_of_order(
                    id,
                    format!(
                        "group {group} numbered number {} of phone {} after its number {before}",
                        record.item, record.sender
                    ),
                );
            } else {
                *before = record.item;
            }
        }
    }

    fn receivers_of(&self, id: u32) -> u32 {
        match destination(&self.messages[id as usize]) {
            Destination::Phone(_) => 1,
            Destination::Group(group) => self.population.groups()[group as usize].members.len() as u32 - 1,
        }
    }

    /// Some of those that a message did not reach.
    fn who_lacks(&self, id: u32) -> Vec<u32> {
        let record = &self.messages[id as usize];
        match destination(record) {
            Destination::Phone(phone) => vec![phone],
            Destination::Group(group) => {
                let members = self.population.groups()[group as usize].members.iter().enumerate();
                let order = &self.groups[group as usize];
                let lacks = |&(member, &phone): &(usize, &u32)| {
                    phone != record.sender && !order.has(member, record.group_number)
                };
                members.filter(lacks).map(|(_, &phone)| phone).take(5).collect()
            }
        }
    }

    fn count(&mut self, id: u32, add: impl Fn(&mut Counts)) {
        add(&mut self.counts);
        if id >= self.phase_from {
            add(&mut self.phase);
        }
    }

    fn duplicate(&mut self, id: u32, complaint: String) {
        self.count(id, |counts| counts.duplicates += 1);
        self.complain(complaint);
    }

    fn disagreement(&mut self, id: u32, complaint: String) {
        self.count(id, |counts| counts.disagreements += 1);
        self.complain(complaint);
    }

    fn out_of_order(&mut self, id: u32, complaint: String) {
        self.count(id, |counts| counts.out_of_order += 1);
        self.complain(complaint);
    }

    fn misdelivered(&mut self, complaint: String) {
        self.counts.misdelivered += 1;
        self.phase.misdelivered += 1;
        self.complain(complaint);
    }

    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < limits::COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }
}

fn destination(record: &Record) -> Destination {
    if record.to & TO_GROUP == 0 {
        Destination::Phone(record.to)
    } else {
        Destination::Group(record.to & !TO_GROUP)
    }
}

#[cfg(test)]
mod tests;
