//! A phone for a person: lines in, lines out. It signs up or logs in by name, sends what is typed, shows what arrives,
//! can be cut off and comes back.

mod act;
mod command;
mod login;
mod names;
mod prompt;
mod show;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use ahash::AHashMap;
use proto_wire::close::Reason;
use proto_wire::pb;
use proto_wire::phone::{CallHandle, CloseReason, Device, Ended, Phone, PhoneConfig, PhoneEvent};

use crate::clock::Clock;
use crate::limits;
use crate::state::{Book, Item};
use act::Asked;
use command::Command;
use login::LoggedIn;
use names::Names;
use prompt::{Known, Screen};
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
    let known = Known::default();
    let screen = prompt::read_lines(sender, &known);
    let mut talk = Talk::new(options, logged_in, clock, known, screen);
    talk.say(&format!("you are {}; `help` tells what you can do", options.user));
    talk.phone.connect(clock.now_ms());
    talk.run(&inputs);
    Ok(())
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
    names: Names,
    known: Known,
    screen: Screen,
    /// What the user's log gave.
    book: Book,
    /// The moments that were listed last.
    listed: Vec<Item>,
    user: u64,
    asked: AHashMap<CallHandle, Asked>,
    waiting: AHashMap<u64, Waiting>,
    next_waiting: u64,
    /// `quit` was said or the input ended: what is under way may finish.
    is_leaving: bool,
    was_up: bool,
}

/// Somebody logged this device out, perhaps it itself. It does not come back with the token it has.
const LOGGED_OUT: CloseReason = CloseReason::Server(Reason::LoggedOut as u16);

/// How long what is under way may take after `quit`.
const LEAVE_WITHIN_MS: u64 = 10_000;

impl Talk {
    fn new(options: &PhoneOptions, logged_in: LoggedIn, clock: Clock, known: Known, screen: Screen) -> Self {
        let LoggedIn { user, device, token, wire } = logged_in;
        let device = Device { id: device, token: Box::from(&token[..]), ..Device::default() };
        let mut names = Names::default();
        names.learn(user, &options.user);
        Self {
            phone: Phone::new(Arc::new(PhoneConfig::default()), device, rand::random()),
            clock,
            wire,
            names,
            known,
            screen,
            book: Book::new(user),
            listed: Vec::new(),
            user,
            asked: AHashMap::new(),
            waiting: AHashMap::new(),
            next_waiting: 0,
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
            PhoneEvent::Closed { reason: LOGGED_OUT, .. } => {
                self.say("-- this device was logged out: start `phone` again to log in");
            }
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
            PhoneEvent::Page { page } => page.changes.iter().for_each(|change| self.arrived(change)),
            PhoneEvent::Snapshot { page, first, .. } => {
                if first {
                    self.book.apply_snapshot(&pb::Page::default(), true);
                }
                page.changes.iter().for_each(|change| self.arrived(change));
            }
            PhoneEvent::Notice { notice } => {
                self.noticed(notice);
            }
            PhoneEvent::SyncFailed { status, text, .. } => {
                self.say(&format!("-- sync failed: {}: {text}", status.name()))
            }
            PhoneEvent::GoAway { .. } => self.say("-- the server is going away"),
            PhoneEvent::Gap { .. } | PhoneEvent::Repeat { .. } => {}
        }
    }

    fn noticed(&mut self, notice: pb::Notice) {
        match notice.what {
            Some(pb::notice::What::Typing(typing)) => {
                let from = self.names.name(typing.from);
                self.say(&format!("-- {from} is typing"));
            }
            Some(pb::notice::What::Announcement(said)) => self.say(&format!("-- to all: {}", said.text)),
            // Of a later version.
            None => {}
        }
    }

    fn typed(&mut self, line: &str) {
        let command = match Command::parse(line) {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(told) => return self.say(&told),
        };
        match command {
            Command::Help => self.say(&command::help()),
            Command::Quit => self.is_leaving = true,
            Command::Cut => {
                self.wire.drop_socket();
                self.phone.handle_closed(self.clock.now_ms(), Ended::Reset);
            }
            Command::Back => self.phone.connect(self.clock.now_ms()),
            Command::Unread
            | Command::Contacts
            | Command::Groups
            | Command::Moments
            | Command::Profile
            | Command::Settings
            | Command::Devices => self.show(&command),
            command => self.resolve(command),
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.screen.say(text);
    }

    /// Learns a name, for the lines and for the completion.
    fn meet(&mut self, id: u64, name: &str) {
        self.names.learn(id, name);
        self.known.add(name);
    }
}
