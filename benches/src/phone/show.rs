//! What the phone says: lists of what it has, and what arrives.

use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction, Relation, change::Body};

use super::Talk;
use super::command::Command;
use crate::limits;
use crate::state::{Applied, Item};

impl Talk {
    /// Commands that need nobody else.
    pub(super) fn show(&mut self, command: &Command) {
        match command {
            Command::Unread => self.show_conversations(),
            Command::Contacts => self.show_contacts(),
            Command::Groups => self.show_groups(),
            Command::Moments => self.show_moments(),
            Command::Profile => {
                let profile = self.book.me().and_then(|me| me.profile.clone()).unwrap_or_default();
                self.say(&format!("-- nick {:?}, {:?}", profile.nick, profile.about));
            }
            Command::Settings => {
                let settings = self.book.me().map(|me| me.settings.clone()).unwrap_or_default();
                let lines = settings.iter().map(|setting| format!("{} {}", setting.key, setting.value));
                self.list(lines.collect(), "nothing is set");
            }
            Command::Devices => self.show_devices(),
            _ => {}
        }
    }

    fn list(&mut self, lines: Vec<String>, none: &str) {
        if lines.is_empty() {
            return self.say(&format!("-- {none}"));
        }
        lines.iter().for_each(|line| self.say(line));
    }

    fn show_conversations(&mut self) {
        let lines = self.book.conversations().into_iter().map(|conversation| {
            format!("{:20} {} unread", self.names.name(conversation.with), conversation.unread)
        });
        self.list(lines.collect(), "no conversations yet");
    }

    fn show_contacts(&mut self) {
        let lines = self.book.peers().into_iter().filter_map(|peer| {
            let is = match peer.relation() {
                Relation::Contact => "contact",
                Relation::Asked => "asked by you",
                Relation::Asks => "asks you",
                Relation::None if peer.blocked => "no contact",
                Relation::None => return None,
            };
            let mut line = format!("{:20} {is}", self.names.name(peer.peer));
            for (is, word) in [(peer.starred, " *"), (peer.blocked, ", blocked")] {
                line.push_str(if is { word } else { "" });
            }
            for text in [&peer.remark, &peer.hello].into_iter().filter(|text| !text.is_empty()) {
                line.push_str(&format!(", {text:?}"));
            }
            Some(line)
        });
        self.list(lines.collect(), "no contacts yet");
    }

    fn show_groups(&mut self) {
        let lines = self.book.groups().into_iter().map(|group| {
            let member = |&id: &u64| {
                let owner = if id == group.owner { " (owner)" } else { "" };
                format!("{}{owner}", self.names.name(id))
            };
            let members: Vec<String> = group.members.iter().map(member).collect();
            format!("{:20} {}", group.name, members.join(", "))
        });
        self.list(lines.collect(), "no groups yet");
    }

    /// Own and contacts' moments, the latest first; the numbers are what other commands name them by.
    fn show_moments(&mut self) {
        let heard =
            self.book.moments().into_iter().map(|(item, heard)| (heard.posted_ms, item, String::new()));
        let own = self.book.posts().into_iter().map(|(item, post)| (post.posted_ms, item, post.text.clone()));
        let mut all: Vec<(u64, Item, String)> = heard.chain(own).collect();
        all.sort_by_key(|(posted_ms, item, _)| (std::cmp::Reverse(*posted_ms), *item));
        self.listed = all.iter().map(|(_, item, _)| *item).collect();
        let lines = all.iter().enumerate().map(|(at, (_, item, text))| {
            let said = self.book.comments(*item).len();
            let text = if text.is_empty() { String::new() } else { format!(": {text} ({said} said)") };
            format!("{:3} {}{text}", at + 1, self.names.name(item.0))
        });
        self.list(lines.collect(), "no moments yet");
    }

    pub(super) fn show_moment(&mut self, moment: Item, read: &pb::Moment) {
        let post = read.post.clone().unwrap_or_default();
        self.say(&format!("{}: {}", self.names.name(moment.0), post.text));
        for image in &post.images {
            self.say(&format!("    [{}]", image.url));
        }
        for said in read.said.iter().take(limits::SHOWN_MAX) {
            let comment = said.comment.clone().unwrap_or_default();
            let text = if comment.like { "likes it".to_owned() } else { comment.text };
            self.say(&format!("    {}: {text}", self.names.name(said.from)));
        }
        if read.said.len() > limits::SHOWN_MAX || !read.next.is_empty() {
            self.say("    and more");
        }
    }

    fn show_devices(&mut self) {
        let devices = self.book.me().map(|me| me.devices.clone()).unwrap_or_default();
        let own = self.phone.device();
        let lines = devices.iter().enumerate().map(|(at, known)| {
            let this = if known.device == own { ", this one" } else { "" };
            let out = if known.out { ", logged out" } else { "" };
            format!("{:3} {:x} {}{this}{out}", at + 1, known.device, known.name)
        });
        self.list(lines.collect(), "no device logged in with a password");
    }

    /// The end of a conversation; of one's own messages how far they came.
    pub(super) fn show_log(&mut self, peer: u64, with: &str) {
        let (delivered, read) =
            self.book.peer(peer).map_or((0, 0), |peer| (peer.delivered_there, peer.read_there));
        let last = self.book.messages(peer).rev().take(limits::SHOWN_MAX);
        let mut lines: Vec<String> = last
            .map(|(_, item, message)| {
                let mark = match item.1 {
                    _ if message.from != self.user || peer & GROUP_BIT != 0 => "",
                    number if number <= read => " (read)",
                    number if number <= delivered => " (delivered)",
                    _ => "",
                };
                format!("{}: {}{mark}", self.names.name(message.from), content(message))
            })
            .collect();
        lines.reverse();
        self.list(lines, &format!("nothing was said with {with}"));
    }

    pub(super) fn arrived(&mut self, change: &pb::Change) {
        let before = match &change.body {
            Some(Body::Peer(peer)) => self.book.relation(peer.peer),
            _ => Relation::None,
        };
        if self.book.apply_change(change) != Applied::Shown {
            return;
        }
        match &change.body {
            // What this user sent comes back into the log; to a group once more, with the group's number.
            Some(Body::Message(message)) if message.from != self.user => {
                let from = self.names.name(message.from);
                let place = match message.to & GROUP_BIT {
                    0 => String::new(),
                    _ => format!(" in {}", self.names.name(message.to)),
                };
                self.say(&format!("{from}{place}: {}", content(message)));
            }
            Some(Body::Group(group)) => {
                self.meet(group.group, &group.name);
                let members: Vec<String> = group.members.iter().map(|&id| self.names.name(id)).collect();
                self.say(&format!("-- you are in group {} with {}", group.name, members.join(", ")));
            }
            Some(Body::Peer(peer)) if peer.relation() != before => self.related(peer),
            Some(Body::Event(event)) if event.group_number > 0 => self.happened(event),
            Some(Body::PostRef(heard)) => {
                let from = self.names.name(heard.from);
                self.say(&format!("-- {from} shows a moment; `moments` lists it"));
            }
            Some(Body::Comment(comment)) if comment.from != self.user => {
                let from = self.names.name(comment.from);
                let what = if comment.like { "likes it".to_owned() } else { comment.text.clone() };
                self.say(&format!("-- to your moment, {from}: {what}"));
            }
            _ => {}
        }
    }

    fn related(&mut self, peer: &pb::Peer) {
        let name = self.names.name(peer.peer);
        let told = match peer.relation() {
            Relation::Asks => {
                let call =
                    if self.names.is_known(peer.peer) { name.clone() } else { format!("#{:x}", peer.peer) };
                format!("{name} asks to be a contact: {:?}; say: accept {call}", peer.hello)
            }
            Relation::Contact => format!("{name} and you are contacts"),
            Relation::None if peer.full => {
                format!("{name} and you are no contacts: one of you has as many as there may be")
            }
            Relation::None => format!("{name} and you are no contacts"),
            Relation::Asked => return,
        };
        self.say(&format!("-- {told}"));
    }

    fn happened(&mut self, event: &pb::GroupEvent) {
        let (group, by) = (self.names.name(event.group), self.names.name(event.by));
        let users: Vec<String> = event.users.iter().map(|&user| self.names.name(user)).collect();
        let users = users.join(", ");
        let what = match event.action() {
            GroupAction::Invite => format!("{by} brought {users}"),
            GroupAction::Leave => format!("{by} left"),
            GroupAction::Remove => format!("{by} removed {users}"),
            GroupAction::Rename => format!("{by} named it {}", event.name),
            GroupAction::Owner => format!("{by} handed it to {users}"),
            GroupAction::Unknown => return,
        };
        self.say(&format!("-- in {group}: {what}"));
    }
}

fn content(message: &pb::Message) -> String {
    if message.recalled {
        return "(taken back)".to_owned();
    }
    match &message.image {
        Some(image) if message.text.is_empty() => format!("[{}]", image.url),
        Some(image) => format!("{} [{}]", message.text, image.url),
        None => message.text.clone(),
    }
}
