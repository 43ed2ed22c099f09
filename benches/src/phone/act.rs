//! What a command asks the server for, and what is said when the answer comes.

use bytes::Bytes;
use prost::Message;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction};
use proto_wire::phone::CallHandle;
use proto_wire::rpc::method::Method;
use proto_wire::services::{account, contacts, messages, moments};
use proto_wire::status::Code;

use super::command::Command;
use super::{Talk, Waiting};
use crate::state::Item;

/// A call that is out.
pub(super) enum Asked {
    /// Who a name is, and what to do then.
    Find {
        name: String,
        then: u64,
    },
    Send {
        to: String,
        text: String,
    },
    Group {
        name: String,
    },
    Look {
        moment: Item,
    },
    Who {
        user: String,
    },
    /// What was to be done, and what to say when it was.
    Change {
        what: String,
        done: String,
    },
    /// Nothing to say unless it fails.
    Quiet {
        what: String,
    },
}

impl Talk {
    /// Asks who the names of a command are, and does it when all are known.
    pub(super) fn resolve(&mut self, command: Command) {
        let names = command.names();
        let mut unknown: Vec<String> = names
            .iter()
            .filter(|name| self.names.id(name).is_none())
            .map(|name| (*name).to_owned())
            .collect();
        unknown.dedup();
        if let Some(id) = unknown.iter().find(|name| name.starts_with('#')) {
            return self.say(&format!("-- {id} is no id"));
        }
        if unknown.is_empty() {
            return self.perform(command);
        }
        let key = self.next_waiting;
        self.next_waiting += 1;
        self.waiting.insert(key, Waiting { command, missing: unknown.len() });
        for name in unknown {
            let request = pb::FindRequest { name: name.clone() };
            self.call(&account::FIND, &request, Asked::Find { name, then: key });
        }
    }

    fn call(&mut self, method: &Method, request: &impl Message, asked: Asked) {
        let handle = self.phone.call_method(method, request, self.clock.now_ms());
        self.asked.insert(handle, asked);
    }

    fn change(&mut self, method: &Method, request: &impl Message, what: String, done: String) {
        self.call(method, request, Asked::Change { what, done });
    }

    /// All names are known here.
    fn perform(&mut self, command: Command) {
        let Some(upload) = self.phone.upload_id(self.clock.now_ms()) else {
            return self.say("-- not connected yet, try again");
        };
        let id = Bytes::copy_from_slice(&upload.0);
        let ids: Vec<u64> = command.names().iter().filter_map(|name| self.names.id(name)).collect();
        let first = ids.first().copied().unwrap_or(0);
        match command {
            Command::Send { to, text, image } => self.send(id, first, to, text, image),
            Command::Recall { to } => self.recall(id, first, &to),
            Command::Typing { to } => {
                let what = format!("{to} was not told that you are typing");
                self.call(&messages::TYPING, &pb::TypingRequest { to: first }, Asked::Quiet { what });
            }
            Command::Log { with } => self.show_log(first, &with),
            Command::Read { with } => self.read(first, &with),
            Command::Ask { user, hello } => {
                let request = pb::AskRequest { id, user: first, hello };
                self.change(&contacts::ASK, &request, format!("ask {user}"), format!("{user} is asked"));
            }
            Command::Accept { user } => {
                let request = pb::PeerRequest { id, user: first };
                let done = format!("{user} is your contact");
                self.change(&contacts::ACCEPT, &request, format!("accept {user}"), done);
            }
            Command::Remove { user } => {
                let request = pb::PeerRequest { id, user: first };
                let done = format!("you and {user} have nothing to do with each other");
                self.change(&contacts::REMOVE, &request, format!("remove {user}"), done);
            }
            Command::Remark { user, remark } => {
                let done = format!("you call {user} {remark:?}");
                let request = pb::RemarkRequest { id, user: first, remark };
                self.change(&contacts::REMARK, &request, format!("remark {user}"), done);
            }
            Command::Block { user, on } => {
                let done = format!("{user} is {}", if on { "blocked" } else { "not blocked" });
                let request = pb::SwitchRequest { id, user: first, on };
                self.change(&contacts::BLOCK, &request, format!("block {user}"), done);
            }
            Command::Star { user, on } => {
                let done = format!("{user} has {} star", if on { "a" } else { "no" });
                let request = pb::SwitchRequest { id, user: first, on };
                self.change(&contacts::STAR, &request, format!("star {user}"), done);
            }
            Command::Group { name, .. } => {
                let request = pb::CreateGroupRequest { id, name: name.clone(), members: ids };
                self.call(&messages::CREATE_GROUP, &request, Asked::Group { name });
            }
            Command::Invite { group, .. } => self.change_group(id, &group, &ids, GroupAction::Invite, ""),
            Command::Kick { group, .. } => self.change_group(id, &group, &ids, GroupAction::Remove, ""),
            Command::Leave { group } => self.change_group(id, &group, &ids, GroupAction::Leave, ""),
            Command::Owner { group, .. } => self.change_group(id, &group, &ids, GroupAction::Owner, ""),
            Command::Rename { group, name } => {
                self.change_group(id, &group, &ids, GroupAction::Rename, &name);
            }
            Command::Post { text, .. } => {
                let request = pb::PublishRequest { id, text, hidden_from: ids, ..Default::default() };
                let done = "your contacts hear of it".to_owned();
                self.change(&moments::PUBLISH, &request, "show the moment".to_owned(), done);
            }
            Command::Look { moment }
            | Command::Comment { moment, .. }
            | Command::Like { moment }
            | Command::Unsay { moment }
            | Command::Withdraw { moment } => match self.moment(moment) {
                Some(item) => self.at_moment(id, item, command),
                None => self.say("-- `moments` has no such number"),
            },
            Command::SetProfile { nick, about } => {
                let picture = self.book.me().and_then(|me| me.profile.clone()?.picture);
                let profile = Some(pb::Profile { nick, about, picture });
                let request = pb::SetProfileRequest { id, profile };
                let done = "your profile is set".to_owned();
                self.change(&account::SET_PROFILE, &request, "set the profile".to_owned(), done);
            }
            Command::Who { user } => {
                self.call(&account::GET_PROFILE, &pb::GetProfileRequest { user: first }, Asked::Who { user });
            }
            Command::Set { key, value } => {
                let done = format!("{key} is {value:?}");
                let request = pb::SetSettingRequest { id, key, value };
                self.change(&account::SET_SETTING, &request, "set it".to_owned(), done);
            }
            Command::LogOut { device } => self.log_out(id, device),
            other => self.show(&other),
        }
    }

    fn send(&mut self, id: Bytes, to_id: u64, to: String, text: String, image: Option<String>) {
        let image = image.map(|url| pb::Image { url, ..Default::default() });
        let shown = image.as_ref().map_or_else(|| text.clone(), |image| format!("{text} [{}]", image.url));
        let request = pb::SendRequest { id, to: to_id, text, wants_page: true, image };
        self.call(&messages::SEND, &request, Asked::Send { to, text: shown });
    }

    fn recall(&mut self, id: Bytes, with: u64, to: &str) {
        let user = self.user;
        let is_own = |message: &pb::Message| message.from == user && !message.recalled;
        let own = self.book.messages(with).rev().find(|(_, _, message)| is_own(message));
        let Some(number) = own.map(|(_, (_, number), _)| number) else {
            return self.say(&format!("-- no message of yours to {to} is here"));
        };
        let request = pb::RecallRequest { id, number };
        let done = format!("your last message to {to} is taken back");
        self.change(&messages::RECALL, &request, "take it back".to_owned(), done);
    }

    /// Up to the last message that is here; the writer is told.
    fn read(&mut self, peer: u64, with: &str) {
        let last = self.book.messages(peer).next_back().map(|(place, ..)| place);
        let Some(read) = last else { return self.say(&format!("-- nothing is here from {with}")) };
        let item = if peer & GROUP_BIT == 0 { self.book.last_item_of(peer) } else { 0 };
        let request = pb::MarkRequest { peer, read, delivered_item: item, read_item: item };
        self.change(&messages::MARK, &request, format!("mark {with}"), format!("{with} is read"));
    }

    fn change_group(&mut self, id: Bytes, group: &str, ids: &[u64], action: GroupAction, name: &str) {
        let Some((&group_id, users)) = ids.split_first() else { return };
        let request = pb::ChangeGroupRequest {
            id,
            group: group_id,
            action: action.into(),
            users: users.to_vec(),
            name: name.to_owned(),
        };
        if !name.is_empty() {
            self.meet(group_id, name);
        }
        let done = format!("{group} hears of it");
        self.change(&messages::CHANGE_GROUP, &request, format!("change {group}"), done);
    }

    /// A moment of the list that was shown last, counted from 1.
    fn moment(&self, number: usize) -> Option<Item> {
        self.listed.get(number.checked_sub(1)?).copied()
    }

    fn at_moment(&mut self, id: Bytes, moment: Item, command: Command) {
        let (author, post) = moment;
        match command {
            Command::Look { .. } => {
                let request = pb::GetMomentRequest { author, post, ..Default::default() };
                self.call(&moments::GET, &request, Asked::Look { moment });
            }
            Command::Comment { text, .. } => {
                let request = pb::SayRequest { id, author, post, text, like: false };
                self.change(&moments::SAY, &request, "say it".to_owned(), "you said it".to_owned());
            }
            Command::Like { .. } => {
                let request = pb::SayRequest { id, author, post, text: String::new(), like: true };
                self.change(&moments::SAY, &request, "like it".to_owned(), "you like it".to_owned());
            }
            Command::Unsay { .. } => {
                let said = self.book.comments(moment);
                let own = said.iter().rev().find(|(item, _)| item.0 == self.user);
                let Some(&((from, number), _)) = own else {
                    return self.say("-- you said nothing to it");
                };
                let request = pb::UnsayRequest { id, author, post, from, number };
                self.change(&moments::UNSAY, &request, "take it away".to_owned(), "it is gone".to_owned());
            }
            _ if author != self.user => self.say("-- only its author takes a moment away"),
            _ => {
                let request = pb::WithdrawRequest { id, number: post };
                self.change(&moments::WITHDRAW, &request, "take it away".to_owned(), "it is gone".to_owned());
            }
        }
    }

    fn log_out(&mut self, id: Bytes, device: usize) {
        let devices = self.book.me().map(|me| &me.devices[..]).unwrap_or_default();
        let Some(device) = device.checked_sub(1).and_then(|at| devices.get(at)).map(|known| known.device)
        else {
            return self.say("-- `devices` has no such number");
        };
        let request = pb::LogOutRequest { id, device };
        let done = format!("device {device:x} is logged out");
        self.change(&account::LOG_OUT, &request, "log it out".to_owned(), done);
    }

    pub(super) fn answered(&mut self, handle: CallHandle, status: Code, body: Bytes) {
        let Some(asked) = self.asked.remove(&handle) else { return };
        if status != Code::Ok {
            let text = String::from_utf8_lossy(&body).into_owned();
            let what = match &asked {
                Asked::Find { name, then } => {
                    self.waiting.remove(then);
                    format!("{name} is not known")
                }
                Asked::Send { to, text } => format!("not sent to {to}: {text:?}"),
                Asked::Group { name } => format!("group {name} was not made"),
                Asked::Look { .. } => "it cannot be read".to_owned(),
                Asked::Who { user } => format!("{user} cannot be shown"),
                Asked::Change { what, .. } => format!("could not {what}"),
                Asked::Quiet { what } => what.clone(),
            };
            return self.say(&format!("-- {what} ({}: {text})", status.name()));
        }
        match asked {
            Asked::Find { name, then } => {
                let user = pb::FindReply::decode(body).map_or(0, |reply| reply.user);
                self.meet(user, &name);
                let Some(waiting) = self.waiting.get_mut(&then) else { return };
                waiting.missing -= 1;
                if waiting.missing == 0
                    && let Some(waiting) = self.waiting.remove(&then)
                {
                    self.perform(waiting.command);
                }
            }
            Asked::Send { to, text } => self.say(&format!("-- sent to {to}, on disk: {text}")),
            Asked::Group { name } => {
                let group = pb::CreateGroupReply::decode(body).map_or(0, |reply| reply.group);
                self.meet(group, &name);
                self.say(&format!("-- group {name} is made"));
            }
            Asked::Look { moment } => match pb::Moment::decode(body) {
                Ok(read) => self.show_moment(moment, &read),
                Err(_) => self.say("-- the server's answer cannot be read"),
            },
            Asked::Who { user } => {
                let profile = pb::GetProfileReply::decode(body).ok().and_then(|reply| reply.profile);
                let profile = profile.unwrap_or_default();
                self.say(&format!("-- {user}: nick {:?}, {:?}", profile.nick, profile.about));
            }
            Asked::Change { done, .. } => self.say(&format!("-- {done}")),
            Asked::Quiet { .. } => {}
        }
    }
}
