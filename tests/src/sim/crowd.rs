//! A run of all services: who the users are, what they do, and what must be there at its end. What a person may do, what
//! must come of it and the judgement are those of the bench's mixed chat (`benches::mixed`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use benches::identity::Identities;
use benches::mixed::draw::Drawer;
use benches::mixed::judge::{Judge, Verdict};
use benches::mixed::model::{Model, Op};
use benches::mixed::owner::Owner;
use benches::mixed::people::People;
use benches::mixed::{Kind, Weights};
use benches::state::Book;
use benches::workload::Population;
use bytes::Bytes;
use prost::Message;
use proto_wire::pb::{self, Relation, change::Body};
use proto_wire::phone::PhoneConfig;
use proto_wire::rpc::method::Method;
use proto_wire::services::{account, contacts, messages};
use proto_wire::status::Code;
use proto_wire_token::IssuerKey;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::limits;

/// What a call is about.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Drawn, and sent for the first time then.
    Mixed(Kind, Op, u64),
    /// Of the set-up: a group, by its place among all groups.
    MakeGroup(usize),
    /// Of the set-up: a question, or a yes.
    Befriend,
    /// The device of a phone.
    LogOut(usize),
}

/// A call to be made, with the id it keeps.
pub struct Call {
    pub deed: Deed,
    pub method: u16,
    pub body: Bytes,
}

/// What a user's first phone is to do before the others begin.
enum SetUp {
    Group(usize),
    Ask(u64),
    Accept(u64),
}

/// The users of a run, by index, with their phones.
pub struct Crowd {
    people: People,
    pub model: Model,
    /// By phone.
    owners: Vec<Owner>,
    /// The first phone of each user.
    first: Vec<usize>,
    weights: Weights,
    random: StdRng,
    set_up: Vec<VecDeque<SetUp>>,
    /// Groups of the population, then those whose members change; 0: not made yet.
    groups: Vec<u64>,
    statics: AHashMap<u64, u32>,
    changing: AHashMap<u64, u32>,
    is_ready: bool,
    /// Phones whose device is logged out, or will be: nothing more is done with them.
    leaving: BTreeSet<usize>,
    pub out: BTreeSet<usize>,
}

impl Crowd {
    pub fn new(seed: u64, users: u64, neighbours: u64, weights: Weights) -> Self {
        // The number of the run is 0, so users have small numbers.
        let who = Identities::new(Arc::new(IssuerKey::generate()), 0, seed, PhoneConfig::default());
        let population = Population::with_neighbours(users as u32, neighbours as u32, seed);
        let people = People::new(who, Arc::new(population), 1);
        let groups = people.population.groups().len() + people.changing_groups().len();
        Self {
            model: Model::new(people.users()),
            people,
            owners: Vec::new(),
            first: Vec::new(),
            weights,
            random: StdRng::seed_from_u64(seed),
            set_up: Vec::new(),
            groups: vec![0; groups],
            statics: AHashMap::new(),
            changing: AHashMap::new(),
            is_ready: false,
            leaving: BTreeSet::new(),
            out: BTreeSet::new(),
        }
    }

    /// Phones come in the order of their users.
    pub fn add_phone(&mut self, phone: usize, user: u64) {
        // Users are numbered from 1.
        let user = (user - 1) as u32;
        self.owners.push(Owner::new(phone as u32, user, &self.people));
        if self.first.len() > user as usize {
            return;
        }
        self.first.push(phone);
        let asks =
            self.people.asks_first(user).into_iter().map(|other| SetUp::Ask(self.people.who.user(other)));
        let makes = (0..self.groups.len()).filter(|&index| self.members(index)[0] == user).map(SetUp::Group);
        let set_up: VecDeque<SetUp> = makes.chain(asks).collect();
        self.set_up.push(set_up);
    }

    /// The members that a group begins with, its owner first.
    fn members(&self, index: usize) -> Vec<u32> {
        let statics = self.people.population.groups();
        match statics.get(index) {
            Some(group) => {
                let others = group.members.iter().copied().filter(|&member| member != group.owner);
                std::iter::once(group.owner).chain(others).collect()
            }
            None => self.people.changing_groups().swap_remove(index - statics.len()),
        }
    }

    pub fn book(&self, phone: usize) -> &Book {
        &self.owners[phone].book
    }

    /// Whether groups and contacts are made and known, so that deeds may be drawn.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub fn is_leaving(&self, phone: usize) -> bool {
        self.leaving.contains(&phone)
    }

    /// What is left of the set-up for a phone.
    pub fn set_up_call(&mut self, phone: usize, id: Bytes) -> Option<Call> {
        let user = self.owners[phone].user as usize;
        if self.first[user] != phone {
            return None;
        }
        let call =
            |deed, method: &Method, body: Vec<u8>| Some(Call { deed, method: method.id, body: body.into() });
        match self.set_up[user].pop_front()? {
            SetUp::Group(index) => {
                let members =
                    self.members(index)[1..].iter().map(|&member| self.people.who.user(member)).collect();
                let request = pb::CreateGroupRequest { id, name: format!("group {index}"), members };
                call(Deed::MakeGroup(index), &messages::CREATE_GROUP, request.encode_to_vec())
            }
            SetUp::Ask(user) => {
                let request = pb::AskRequest { id, user, hello: "hello".to_owned() };
                call(Deed::Befriend, &contacts::ASK, request.encode_to_vec())
            }
            SetUp::Accept(user) => {
                call(Deed::Befriend, &contacts::ACCEPT, pb::PeerRequest { id, user }.encode_to_vec())
            }
        }
    }

    /// Looks whether the set-up has just ended.
    pub fn becomes_ready(&mut self) -> bool {
        if self.is_ready || self.groups.contains(&0) {
            return false;
        }
        let knows_all = |user: u32| {
            let book = &self.owners[self.first[user as usize]].book;
            let contacts =
                (0..self.people.population.contacts()).map(|n| self.people.population.contact(user, n));
            let is_in = |index: usize| {
                !self.members(index).contains(&user) || book.group(self.groups[index]).is_some()
            };
            contacts.into_iter().all(|other| book.is_contact(self.people.who.user(other)))
                && (0..self.groups.len()).all(is_in)
        };
        self.is_ready = (0..self.people.users()).all(knows_all);
        let statics = self.people.population.groups().len();
        let by_id = |ids: &[u64]| (0..).zip(ids).map(|(at, &id)| (id, at)).collect();
        (self.statics, self.changing) = (by_id(&self.groups[..statics]), by_id(&self.groups[statics..]));
        self.is_ready
    }

    /// Something that the phone's user may do now.
    pub fn draw(&mut self, phone: usize, id: Bytes, now_us: u64) -> Option<Call> {
        let statics = self.people.population.groups().len();
        let owner = &self.owners[phone];
        let drawer = Drawer {
            people: &self.people,
            user: owner.user,
            book: &owner.book,
            strangers: &owner.strangers,
            groups: &self.groups[..statics],
            changing: &self.changing,
            text_bytes: 0,
            now_us,
            intended_us: now_us,
            id,
        };
        for _ in 0..limits::DRAWS_MAX {
            let kind = self.weights.draw(&mut self.random);
            if let Some(drawn) = drawer.draw(kind, &mut self.model, &mut self.random) {
                self.model.sent(kind, &drawn.op);
                let deed = Deed::Mixed(kind, drawn.op, now_us);
                return Some(Call { deed, method: drawn.method, body: drawn.body });
            }
        }
        None
    }

    /// Another device of the user, which has nothing to say any more, is to be logged out.
    pub fn log_out(&mut self, other: usize, device: u64, id: Bytes) -> Call {
        self.leaving.insert(other);
        let body = pb::LogOutRequest { id, device }.encode_to_vec().into();
        Call { deed: Deed::LogOut(other), method: account::LOG_OUT.id, body }
    }

    /// A snapshot begins.
    pub fn forget(&mut self, phone: usize) {
        self.owners[phone].forget();
    }

    /// A phone applied a change. Gives what is wrong with it.
    pub fn take(&mut self, phone: usize, change: &pb::Change) -> Vec<String> {
        let taken = self.owners[phone].take(change);
        let user = self.owners[phone].user as usize;
        if let Some(Body::Peer(peer)) = &change.body
            && !self.is_ready
            && self.first[user] == phone
            && peer.relation() == Relation::Asks
        {
            self.set_up[user].push_back(SetUp::Accept(peer.peer));
        }
        taken.wrong.into_iter().map(|(wrong, told)| format!("{wrong:?} at phone {phone}: {told}")).collect()
    }

    /// A call has its final answer. Gives what is wrong with it.
    pub fn replied(&mut self, deed: Deed, status: Code, body: Bytes, now_us: u64) -> Option<String> {
        let told = String::from_utf8_lossy(&body).into_owned();
        match deed {
            Deed::Mixed(kind, op, sent_us) if status == Code::Ok => {
                // The answers of all writes say their number in one way; a mark's and a notice's have none.
                let number = pb::ChangeReply::decode(body).ok()?.number.map_or(0, |cursor| cursor.number);
                if number == 0 && !matches!(op, Op::Mark { .. } | Op::Typing) {
                    return Some(format!("the acknowledgement of {op:?} names nothing"));
                }
                // From the first attempt on, as the server counts, and not from the answer.
                self.model.acknowledged(kind, &op, number, sent_us);
            }
            Deed::Mixed(kind, op, _) => {
                let who = self.people.who.clone();
                self.model.refused(kind, &op, status, &told, now_us, |id| who.phone_of(id));
            }
            Deed::MakeGroup(index) if status == Code::Ok => {
                self.groups[index] = pb::CreateGroupReply::decode(body).map_or(0, |reply| reply.group);
            }
            Deed::LogOut(phone) if status == Code::Ok => drop(self.out.insert(phone)),
            // A yes that crossed another.
            Deed::Befriend if matches!(status, Code::Ok | Code::Exists | Code::NotFound) => {}
            other => return Some(format!("{other:?} was answered {status:?}: {told}")),
        }
        None
    }

    /// What was done, by kind.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts = vec![("devices logged out".to_owned(), self.out.len() as u64)];
        counts.push(("runs of all services".to_owned(), u64::from(self.is_ready)));
        for &kind in Kind::ALL {
            let count = self.model.count(kind);
            counts.push((format!("deeds: {}", kind.name()), count.acknowledged));
            counts.push((format!("deeds refused: {}", kind.name()), count.refused));
        }
        counts
    }

    /// The phones that are still used, against each other and the model.
    pub fn judge(&self) -> Verdict {
        let stays = |owner: &&Owner| !self.leaving.contains(&(owner.line as usize));
        let owners = self.owners.iter().filter(stays);
        let mut verdict =
            Judge::new(&self.people, &self.model, &self.statics, &self.changing, owners).judge();
        verdict.complaints.extend(self.model.complaints.iter().cloned());
        verdict
    }
}
