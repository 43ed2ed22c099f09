//! A phone for a person: lines in, lines out. It signs up or logs in by name, sends what is typed, shows what arrives,
//! can be cut off and comes back.

mod book;
mod command;
mod login;
mod wire;

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb;
use proto_wire::phone::{CallHandle, CloseReason, Device, Ended, Phone, PhoneConfig, PhoneEvent};
use proto_wire::services::{account, messages};
use proto_wire::status::Code;

use crate::clock::Clock;
use crate::limits;
use book::Book;
use command::Command;
use login::LoggedIn;
use wire::Wire;

pub use login::LoginError;

#[derive(Debug, Clone)]
pub struct PhoneOptions {
    pub user: String,
    pub password: Option<String>,
    pub target: SocketAddr,
}

/// What the phone waits for.
pub(crate) enum Input {
    Line(String),
    /// Nothing more is typed.
    End,
    /// From the socket of that number.
    Connected(u64),
    Bytes(u64, Vec<u8>),
    Closed(u64, Ended),
}

/// Signs up or logs in, then talks until `quit` or the end of the input.
pub fn run(options: &PhoneOptions) -> Result<(), LoginError> {
    let (sender, inputs) = mpsc::sync_channel(limits::TYPED_AHEAD_MAX);
    let clock = Clock::start();
    let logged_in = login::log_in(options, clock, &sender, &inputs)?;
    let mut talk = Talk::new(options, logged_in, clock);
    read_lines(sender);
    talk.say(&format!("you are {}; `help` tells what you can do", options.user));
    talk.phone.connect(clock.now_ms());
    talk.run(&inputs);
    Ok(())
}

/// Reads what is typed on a thread of its own; the full channel holds it back.
fn read_lines(sender: SyncSender<Input>) {
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Input::End);
    });
}

/// A call that is out.
enum Asked {
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
}

/// A command that waits until all its names are known.
struct Waiting {
    command: Command,
    missing: usize,
}

struct Talk {
    phone: Phone,
    clock: Clock,
    wire: Wire,
    book: Book,
    user: u64,
    asked: AHashMap<CallHandle, Asked>,
    waiting: AHashMap<u64, Waiting>,
    next_waiting: u64,
    is_terminal: bool,
    /// `quit` was said or the input ended: what is under way may finish.
    is_leaving: bool,
    was_up: bool,
}

/// How long what is under way may take after `quit`.
const LEAVE_WITHIN_MS: u64 = 10_000;

impl Talk {
    fn new(options: &PhoneOptions, logged_in: LoggedIn, clock: Clock) -> Self {
        let LoggedIn { user, token, wire } = logged_in;
        // A device of its own for each start: it has nothing, and is sent all that the user has.
        let device = Device { id: rand::random(), token: Box::from(&token[..]), ..Device::default() };
        let mut book = Book::default();
        book.learn(user, &options.user);
        Self {
            phone: Phone::new(Arc::new(PhoneConfig::default()), device, rand::random()),
            clock,
            wire,
            book,
            user,
            asked: AHashMap::new(),
            waiting: AHashMap::new(),
            next_waiting: 0,
            is_terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
            is_leaving: false,
            was_up: false,
        }
    }

    fn run(&mut self, inputs: &Receiver<Input>) {
        let mut leave_by_ms = u64::MAX;
        loop {
            self.flush();
            let now_ms = self.clock.now_ms();
            if self.is_leaving {
                leave_by_ms = leave_by_ms.min(now_ms + LEAVE_WITHIN_MS);
                if (self.asked.is_empty() && self.waiting.is_empty()) || now_ms >= leave_by_ms {
                    break;
                }
            }
            let due_ms = self.phone.poll_timeout().unwrap_or(u64::MAX).min(leave_by_ms);
            let wait_ms = due_ms.saturating_sub(now_ms).min(60_000);
            match inputs.recv_timeout(Duration::from_millis(wait_ms)) {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now_ms = self.clock.now_ms();
            if self.phone.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms) {
                self.phone.handle_timeout(now_ms);
            }
        }
        self.phone.close();
        self.flush();
    }

    fn handle(&mut self, input: Input) {
        let now_ms = self.clock.now_ms();
        match input {
            Input::Line(line) => self.typed(&line),
            Input::End => self.is_leaving = true,
            Input::Connected(number) if self.wire.is_current(number) => self.phone.handle_connected(now_ms),
            Input::Bytes(number, bytes) if self.wire.is_current(number) => {
                self.phone.handle_bytes(&bytes, now_ms)
            }
            Input::Closed(number, ended) if self.wire.is_current(number) => {
                self.wire.drop_socket();
                self.phone.handle_closed(now_ms, ended);
            }
            Input::Connected(_) | Input::Bytes(..) | Input::Closed(..) => {}
        }
    }

    /// Events first, then what is to be sent.
    fn flush(&mut self) {
        while let Some(event) = self.phone.poll_event() {
            self.event(event);
        }
        let mut out = Vec::new();
        if self.phone.poll_transmit(&mut out) {
            self.wire.send(out);
        }
    }

    fn event(&mut self, event: PhoneEvent) {
        match event {
            PhoneEvent::Connect { to } => self.wire.connect(to.as_deref()),
            PhoneEvent::Disconnect => self.wire.drop_socket(),
            PhoneEvent::Welcomed { .. } => {
                self.say(if self.was_up { "-- connected again" } else { "-- connected" });
                self.was_up = true;
            }
            PhoneEvent::Closed { reason: CloseReason::ByOwner, .. } => {}
            PhoneEvent::Closed { reason, text, reconnect_at_ms, .. } => {
                let next = match reconnect_at_ms {
                    Some(at_ms) => {
                        format!("again in {:.1} s", at_ms.saturating_sub(self.clock.now_ms()) as f64 / 1e3)
                    }
                    None => "it does not come back by itself: say `back`".to_owned(),
                };
                let text = if text.is_empty() { String::new() } else { format!(": {text}") };
                self.say(&format!("-- cut off ({reason:?}{text}), {next}"));
            }
            PhoneEvent::Reply { handle, status, body, .. } => self.answered(handle, status, body),
            PhoneEvent::Page { page } | PhoneEvent::Snapshot { page, .. } => {
                page.changes.iter().for_each(|change| self.arrived(change));
            }
            PhoneEvent::SyncFailed { status, text, .. } => {
                self.say(&format!("-- sync failed: {}: {text}", status.name()))
            }
            PhoneEvent::GoAway { .. } => self.say("-- the server is going away"),
            PhoneEvent::Notice { .. } | PhoneEvent::Gap { .. } | PhoneEvent::Repeat { .. } => {}
        }
    }

    fn typed(&mut self, line: &str) {
        let command = match Command::parse(line) {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(told) => return self.say(&told),
        };
        match command {
            Command::Help => self.say(command::HELP),
            Command::Quit => self.is_leaving = true,
            Command::Cut => {
                self.wire.drop_socket();
                self.phone.handle_closed(self.clock.now_ms(), Ended::Reset);
            }
            Command::Back => self.phone.connect(self.clock.now_ms()),
            Command::Send { .. } | Command::Group { .. } => self.resolve(command),
        }
    }

    /// Asks who the names of a command are, and does it when all are known.
    fn resolve(&mut self, command: Command) {
        let unknown: Vec<String> = command
            .names()
            .iter()
            .filter(|name| self.book.id(name).is_none())
            .map(|name| (*name).to_owned())
            .collect();
        if unknown.is_empty() {
            return self.perform(command);
        }
        let key = self.next_waiting;
        self.next_waiting += 1;
        self.waiting.insert(key, Waiting { command, missing: unknown.len() });
        for name in unknown {
            let request = pb::FindRequest { name: name.clone() };
            let handle = self.phone.call_method(&account::FIND, &request, self.clock.now_ms());
            self.asked.insert(handle, Asked::Find { name, then: key });
        }
    }

    fn perform(&mut self, command: Command) {
        let now_ms = self.clock.now_ms();
        let Some(id) = self.phone.upload_id(now_ms) else {
            return self.say("-- not connected yet, try again");
        };
        let id = Bytes::copy_from_slice(&id.0);
        match command {
            Command::Send { to, text } => {
                let Some(to_id) = self.book.id(&to) else { return };
                let request = pb::SendRequest {
                    id,
                    to: to_id,
                    text: text.clone(),
                    wants_page: true,
                    ..Default::default()
                };
                let handle = self.phone.call_method(&messages::SEND, &request, now_ms);
                self.asked.insert(handle, Asked::Send { to, text });
            }
            Command::Group { name, members } => {
                let members = members.iter().filter_map(|name| self.book.id(name)).collect();
                let request = pb::CreateGroupRequest { id, name: name.clone(), members };
                let handle = self.phone.call_method(&messages::CREATE_GROUP, &request, now_ms);
                self.asked.insert(handle, Asked::Group { name });
            }
            Command::Help | Command::Quit | Command::Cut | Command::Back => {}
        }
    }

    fn answered(&mut self, handle: CallHandle, status: Code, body: Bytes) {
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
            };
            return self.say(&format!("-- {what} ({}: {text})", status.name()));
        }
        match asked {
            Asked::Find { name, then } => {
                let user = pb::FindReply::decode(body).map_or(0, |reply| reply.user);
                self.book.learn(user, &name);
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
                self.book.learn(group, &name);
                self.say(&format!("-- group {name} is made"));
            }
        }
    }

    fn arrived(&mut self, change: &pb::Change) {
        match &change.body {
            Some(pb::change::Body::Message(message)) => {
                // What this user sent comes back into the log; to a group once more, with the group's number.
                if message.from == self.user {
                    return;
                }
                let from = self.book.name(message.from);
                let place = match message.to & GROUP_BIT {
                    0 => String::new(),
                    _ => format!(" in {}", self.book.name(message.to)),
                };
                self.say(&format!("{from}{place}: {}", message.text));
            }
            Some(pb::change::Body::Group(group)) => {
                self.book.learn(group.group, &group.name);
                let members: Vec<String> = group.members.iter().map(|&id| self.book.name(id)).collect();
                self.say(&format!("-- you are in group {} with {}", group.name, members.join(", ")));
            }
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        let mark = if self.is_terminal { "\r" } else { "" };
        // Nobody to tell: the next read of the input ends the phone.
        let _ = writeln!(stdout, "{mark}{text}").and_then(|()| stdout.flush());
    }
}
