//! One thing that a user does: drawn by chance from what the user's phone shows.

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction, Relation};
use proto_wire::rpc::method::Method;
use proto_wire::services::{account, contacts, messages, moments};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::kinds::Kind;
use super::model::{Mark, Model, Op, Slot};
use super::people::People;
use crate::check::Text;
use crate::limits;
use crate::state::Book;
use crate::workload::Destination;

/// A call to be made.
pub struct Drawn {
    pub op: Op,
    pub method: u16,
    pub body: Bytes,
}

/// Who draws, with what.
pub struct Drawer<'a> {
    pub people: &'a People,
    pub user: u32,
    pub book: &'a Book,
    /// The user's strangers.
    pub strangers: &'a [u32],
    /// Groups of the population by index.
    pub groups: &'a [u64],
    /// Groups whose members change.
    pub changing: &'a AHashMap<u64, u32>,
    pub text_bytes: usize,
    pub now_us: u64,
    pub intended_us: u64,
    /// For the upload.
    pub id: Bytes,
}

/// Of a hundred.
const TO_STRANGERS: u32 = 10;
const TO_CHANGING_GROUPS: u32 = 30;
const ENDS_A_CONTACT: u32 = 10;
const HIDES: u32 = 25;

/// Settings that a user has.
const SETTINGS: u8 = 8;

impl Drawer<'_> {
    /// None: nobody can do this now.
    pub fn draw(&self, kind: Kind, model: &mut Model, random: &mut StdRng) -> Option<Drawn> {
        match kind {
            Kind::Message | Kind::Image => {
                let to = self.peer(random)?;
                self.send(model, self.people.who.user(to), kind == Kind::Image)
            }
            Kind::GroupMessage => {
                let to = self.group(random)?;
                self.send(model, to, false)
            }
            Kind::Recall => {
                let id = model.take_message(self.user, self.now_us)?;
                let number = model.messages[id as usize].item;
                self.call(Op::Recall { id }, &messages::RECALL, &pb::RecallRequest { id: self.id(), number })
            }
            Kind::Mark => self.mark(random),
            Kind::Typing => {
                let to = self.people.who.user(self.peer(random)?);
                self.call(Op::Typing, &messages::TYPING, &pb::TypingRequest { to })
            }
            Kind::Ask | Kind::Accept | Kind::Remove => self.relate(kind, model, random),
            Kind::Block | Kind::Star | Kind::Remark => self.put_peer(kind, random),
            Kind::GroupChange => self.change_group(random),
            Kind::Publish => self.publish(model, random),
            Kind::Withdraw => {
                let post = model.take_post(self.user)?;
                let number = model.posts[post as usize].number;
                let request = pb::WithdrawRequest { id: self.id(), number };
                self.call(Op::Withdraw { post }, &moments::WITHDRAW, &request)
            }
            Kind::Comment | Kind::Like => self.say(model, random, kind == Kind::Like),
            Kind::Unsay => {
                let comment = model.take_comment(self.user)?;
                let said = model.comments[comment as usize];
                let request = pb::UnsayRequest {
                    id: self.id(),
                    author: self.people.who.user(said.author),
                    post: said.post,
                    from: self.people.who.user(said.from),
                    number: said.number,
                };
                self.call(Op::Unsay { comment }, &moments::UNSAY, &request)
            }
            Kind::Setting => {
                let (at, value) = (random.random_range(0..SETTINGS), format!("{:x}", random.random::<u32>()));
                let request =
                    pb::SetSettingRequest { id: self.id(), key: setting_key(at), value: value.clone() };
                self.call(self.put(Slot::Setting(at), value), &account::SET_SETTING, &request)
            }
            Kind::Profile => {
                let nick = format!("user {} {:x}", self.user, random.random::<u32>());
                let profile = pb::Profile { nick: nick.clone(), ..Default::default() };
                let request = pb::SetProfileRequest { id: self.id(), profile: Some(profile) };
                self.call(self.put(Slot::Nick, nick), &account::SET_PROFILE, &request)
            }
        }
    }

    fn id(&self) -> Bytes {
        self.id.clone()
    }

    fn call(&self, op: Op, method: &Method, request: &impl prost::Message) -> Option<Drawn> {
        Some(Drawn { op, method: method.id, body: request.encode_to_vec().into() })
    }

    fn put(&self, slot: Slot, value: String) -> Op {
        Op::Put { user: self.user, slot, value }
    }

    fn contact(&self, random: &mut StdRng) -> u32 {
        self.people.population.contact(self.user, random.random_range(0..self.people.population.contacts()))
    }

    /// A contact, or now and then a stranger.
    fn peer(&self, random: &mut StdRng) -> Option<u32> {
        if random.random_range(0..100) < TO_STRANGERS
            && let Some(&stranger) = self.strangers.choose(random)
        {
            return Some(stranger);
        }
        Some(self.contact(random))
    }

    fn group(&self, random: &mut StdRng) -> Option<u64> {
        if random.random_range(0..100) < TO_CHANGING_GROUPS {
            return self.changing_group(random).map(|group| group.group);
        }
        // As in a chat without a mix: mostly small groups.
        let class = match random.random_range(0..100) {
            0..80 => 0,
            80..95 => 1,
            _ => 2,
        };
        let group = self.people.population.group_of(self.user, class)?;
        self.groups.get(group as usize).copied()
    }

    fn changing_group(&self, random: &mut StdRng) -> Option<&pb::GroupState> {
        let mut groups = self.book.groups();
        groups.retain(|group| self.changing.contains_key(&group.group));
        groups.choose(random).copied()
    }

    fn send(&self, model: &mut Model, to: u64, with_image: bool) -> Option<Drawn> {
        let id = model.new_message(self.user, to)?;
        let text = Text { run: self.people.who.run, sender: self.user, id, intended_us: self.intended_us };
        let image = with_image.then(|| pb::Image {
            url: format!("https://images.example/{id:x}"),
            sha256: vec![id as u8; 32].into(),
            width: 640,
            height: 480,
            bytes: 50_000,
        });
        let request =
            pb::SendRequest { id: self.id(), to, text: text.write(self.text_bytes), wants_page: true, image };
        self.call(Op::Send { id }, &messages::SEND, &request)
    }

    /// Reads a conversation to its end.
    fn mark(&self, random: &mut StdRng) -> Option<Drawn> {
        let mut unread = self.book.conversations();
        unread.retain(|conversation| conversation.unread > 0);
        let conversation = unread.choose(random)?;
        let peer = conversation.with;
        let read_item = if peer & GROUP_BIT == 0 { self.book.last_item_of(peer) } else { 0 };
        let read = conversation.last;
        let request = pb::MarkRequest { peer, read, delivered_item: read_item, read_item };
        let op = Op::Mark { user: self.user, peer, mark: Mark { read, read_item } };
        self.call(op, &messages::MARK, &request)
    }

    fn relate(&self, kind: Kind, model: &mut Model, random: &mut StdRng) -> Option<Drawn> {
        let relations = |wanted: Relation| {
            let peers = self.strangers.iter().copied();
            let is = move |&other: &u32| self.book.relation(self.people.who.user(other)) == wanted;
            peers.filter(is).collect::<Vec<u32>>()
        };
        let other = match kind {
            Kind::Ask => *relations(Relation::None).choose(random)?,
            Kind::Accept => *relations(Relation::Asks).choose(random)?,
            _ if random.random_range(0..100) < ENDS_A_CONTACT => self.contact(random),
            _ => {
                let all = [Relation::Contact, Relation::Asked, Relation::Asks].map(relations).concat();
                *all.choose(random)?
            }
        };
        let user = self.people.who.user(other);
        match kind {
            Kind::Ask => {
                let request = pb::AskRequest { id: self.id(), user, hello: format!("it is {}", self.user) };
                self.call(Op::Relate, &contacts::ASK, &request)
            }
            Kind::Accept => {
                self.call(Op::Relate, &contacts::ACCEPT, &pb::PeerRequest { id: self.id(), user })
            }
            _ => {
                model.note_end(self.user, other);
                self.call(Op::Relate, &contacts::REMOVE, &pb::PeerRequest { id: self.id(), user })
            }
        }
    }

    fn put_peer(&self, kind: Kind, random: &mut StdRng) -> Option<Drawn> {
        let other = match kind {
            // Mostly a stranger, so that most contacts go on to hear of each other.
            Kind::Block if random.random_range(0..100) >= ENDS_A_CONTACT => *self.strangers.choose(random)?,
            _ => self.contact(random),
        };
        let user = self.people.who.user(other);
        let known = self.book.peer(user);
        let switch = |on: bool| (on, if on { "1" } else { "" }.to_owned());
        match kind {
            Kind::Block => {
                let (on, value) = switch(!known.is_some_and(|peer| peer.blocked));
                let request = pb::SwitchRequest { id: self.id(), user, on };
                self.call(self.put(Slot::Blocked(other), value), &contacts::BLOCK, &request)
            }
            Kind::Star => {
                let (on, value) = switch(!known.is_some_and(|peer| peer.starred));
                let request = pb::SwitchRequest { id: self.id(), user, on };
                self.call(self.put(Slot::Starred(other), value), &contacts::STAR, &request)
            }
            _ => {
                let remark = format!("{:x}", random.random::<u16>());
                let request = pb::RemarkRequest { id: self.id(), user, remark: remark.clone() };
                self.call(self.put(Slot::Remark(other), remark), &contacts::REMARK, &request)
            }
        }
    }

    fn change_group(&self, random: &mut StdRng) -> Option<Drawn> {
        let state = self.changing_group(random)?;
        let me = self.people.who.user(self.user);
        let (mut users, mut name) = (Vec::new(), String::new());
        let others: Vec<u64> = state.members.iter().copied().filter(|&member| member != me).collect();
        let action = match random.random_range(0..100) {
            0..35 if state.members.len() < limits::CHANGING_GROUP_MEMBERS_MAX => {
                let near = self.people.population.around(self.user, random.random_range(1..40));
                users.push(self.people.who.user(near));
                GroupAction::Invite
            }
            35..50 if state.owner == me => {
                users.push(*others.choose(random)?);
                GroupAction::Remove
            }
            50..60 if state.owner == me => {
                users.push(*others.choose(random)?);
                GroupAction::Owner
            }
            60..70 if !others.is_empty() => GroupAction::Leave,
            _ => {
                name = format!("group {:x}", random.random::<u16>());
                GroupAction::Rename
            }
        };
        let request =
            pb::ChangeGroupRequest { id: self.id(), group: state.group, action: action.into(), users, name };
        self.call(Op::Group, &messages::CHANGE_GROUP, &request)
    }

    fn publish(&self, model: &mut Model, random: &mut StdRng) -> Option<Drawn> {
        let hidden = (random.random_range(0..100) < HIDES).then(|| self.contact(random));
        let post = model.new_post(self.user, hidden);
        let request = pb::PublishRequest {
            id: self.id(),
            text: format!("moment {post} of {}", self.user),
            images: Vec::new(),
            hidden_from: hidden.map(|other| self.people.who.user(other)).into_iter().collect(),
        };
        self.call(Op::Publish { post }, &moments::PUBLISH, &request)
    }

    fn say(&self, model: &mut Model, random: &mut StdRng, like: bool) -> Option<Drawn> {
        let moments = self.book.moments();
        let ((author, post), _) = moments.choose(random).copied()?;
        let comment = model.new_comment(self.user, self.people.who.phone_of(author)?, post);
        let text = if like { String::new() } else { format!("comment {comment}") };
        let request = pb::SayRequest { id: self.id(), author, post, text, like };
        self.call(Op::Say { comment }, &moments::SAY, &request)
    }
}

pub fn setting_key(at: u8) -> String {
    format!("key {at}")
}

/// Where an id leads: to a phone or to a group of the population.
pub fn destination(people: &People, static_groups: &AHashMap<u64, u32>, to: u64) -> Option<Destination> {
    match static_groups.get(&to) {
        Some(&group) => Some(Destination::Group(group)),
        None => people.who.phone_of(to).map(Destination::Phone),
    }
}
