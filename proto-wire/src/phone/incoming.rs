//! What the server sends: cut into frames, and what each does.

use prost::Message;

use super::event::{CloseReason, PhoneEvent};
use super::link::{State, Up};
use super::{After, Phone};
use crate::close::Reason;
use crate::frame::{self, Beat, Frame, FrameError, Notify, Reply, kind};
use crate::limits;
use crate::pb;
use crate::services;

/// Why reading stops.
enum Stop {
    /// The connection was ended by what was read.
    Over,
    Bad(CloseReason),
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        Stop::Bad(CloseReason::BadFrame(error))
    }
}

impl Phone {
    /// Reads `bytes` behind what is held, and holds what is no whole frame yet.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let mut held = std::mem::take(&mut self.held).into_vec();
        let mut input = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held[..]
        };
        match self.read_frames(&mut input) {
            Ok(()) => {
                self.held = Box::from(input);
                self.note_traffic();
            }
            Err(Stop::Over) => {}
            Err(Stop::Bad(reason)) => self.end(reason, String::new(), After::Return(None)),
        }
    }

    fn read_frames(&mut self, input: &mut &[u8]) -> Result<(), Stop> {
        while let Some(frame) = frame::next_frame(input, limits::MAX_FRAME_BODY_BYTES)? {
            self.handle_frame(frame)?;
        }
        Ok(())
    }

    /// The path is alive; and after GOAWAY this may have been the last answer.
    fn note_traffic(&mut self) {
        let (now_ms, quiet) = (self.now_ms, self.is_quiet());
        let Some(up) = self.link.up() else { return };
        up.handle_traffic(now_ms, !quiet, &self.config);
        if up.is_draining() && quiet {
            self.end_drained();
        }
    }

    fn handle_frame(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        let greeted = self.is_up();
        match frame.kind {
            kind::WELCOME if !greeted => self.handle_welcome(decode(&frame)?),
            kind::CLOSE => self.handle_close(decode(&frame)?),
            kind::GOAWAY if greeted => self.handle_goaway(decode(&frame)?),
            kind::BEAT if greeted => {
                Beat::parse(frame.body)?;
                let answers = self.link.up().is_some_and(Up::handle_beat);
                self.stats.beats_answered += u32::from(answers);
                Ok(())
            }
            kind::REPLY if greeted => {
                self.handle_reply(&Reply::parse(frame.body)?);
                Ok(())
            }
            kind::NOTIFY if greeted => {
                let notify = Notify::parse(frame.body)?;
                self.sync.handle_notify(&notify, &mut self.stats, &mut self.events);
                Ok(())
            }
            kind::EVENT if greeted => {
                match pb::Notice::decode(frame.body) {
                    Ok(notice) => self.events.push(PhoneEvent::Notice { notice }),
                    // One of a later version: it may be skipped like a frame that is not known.
                    Err(_) => self.stats.frames_skipped += 1,
                }
                Ok(())
            }
            kind if kind::is_skippable(kind) => {
                self.stats.frames_skipped += 1;
                Ok(())
            }
            kind => Err(Stop::Bad(CloseReason::OutOfPlace(kind))),
        }
    }

    fn handle_welcome(&mut self, welcome: pb::Welcome) -> Result<(), Stop> {
        if welcome.version_major != frame::VERSION_MAJOR {
            self.end(CloseReason::Version, String::new(), After::Stay);
            return Err(Stop::Over);
        }
        let interval_ms = match self.config.heartbeat_override_ms {
            Some(ms) => ms.max(1),
            None => welcome.interval_ms.max(limits::MIN_HEARTBEAT_MS),
        };
        let allowed = match welcome.max_calls_in_flight {
            0 => limits::MAX_PHONE_CALLS_IN_FLIGHT,
            most => self.config.max_in_flight.min(most as usize),
        };
        let max_in_flight = u8::try_from(allowed.max(1)).unwrap_or(u8::MAX);
        self.link.state = State::Up(Up::new(interval_ms, max_in_flight, self.now_ms));
        self.calls.limit_body(welcome.max_body_bytes, &mut self.events);
        self.user = welcome.user;
        self.server_offset_ms = Some(welcome.server_time_ms.wrapping_sub(self.now_ms) as i64);
        if welcome.ticket.len() <= limits::MAX_TICKET_BYTES {
            self.ticket = Box::from(&welcome.ticket[..]);
            self.ticket_until_ms = self.now_ms + u64::from(welcome.ticket_good_s) * 1_000;
        }
        // Of what a phone does not know of the server tells it by itself: a storm of those that come back asks nothing.
        let asks = self.sync.is_behind() || (self.stats.welcomes == 0 && self.config.sync_on_connect);
        if welcome.user != 0 && asks {
            self.sync.want_pull();
        }
        self.stats.welcomes += 1;
        self.events.push(PhoneEvent::Welcomed {
            user: welcome.user,
            interval_ms,
            server_time_ms: welcome.server_time_ms,
        });
        Ok(())
    }

    fn handle_reply(&mut self, reply: &Reply<'_>) {
        let (now_ms, config) = (self.now_ms, &self.config);
        let (random, stats, events) = (&mut self.random, &mut self.stats, &mut self.events);
        if self.sync.handle_reply(reply, now_ms, config, random, stats, events) {
            return;
        }
        let method = self.calls.handle_reply(reply, now_ms, config, random, stats, events);
        if let Some(given) = reply.given {
            // An answer that came late has its page too, but nobody knows any more of what method it is.
            let wrote = method == Some(services::messages::SEND.id);
            let answer = if wrote { pb::SendReply::decode(reply.body).ok() } else { None };
            let page = answer.filter(|answer| !answer.page.is_empty());
            let page = page.and_then(|answer| pb::Page::decode(answer.page).ok());
            self.sync.handle_given(given, page, stats, events);
        }
    }

    fn handle_goaway(&mut self, goaway: pb::GoAway) -> Result<(), Stop> {
        let now_ms = self.now_ms;
        if let Some(up) = self.link.up() {
            up.drain(goaway.reconnect_after_ms, now_ms);
        }
        self.to = address(goaway.to);
        self.events
            .push(PhoneEvent::GoAway { reconnect_after_ms: goaway.reconnect_after_ms, to: self.to.clone() });
        Ok(())
    }

    fn handle_close(&mut self, close: pb::Close) -> Result<(), Stop> {
        let code = u16::try_from(close.code).unwrap_or(u16::MAX);
        self.to = address(close.to);
        if code == Reason::Ticket as u16 {
            self.ticket = Box::default();
        }
        let asked_ms = (close.reconnect_after_ms > 0).then_some(u64::from(close.reconnect_after_ms));
        let after = if Reason::code_is_terminal(code) { After::Stay } else { After::Return(asked_ms) };
        self.end(CloseReason::Server(code), close.text, after);
        Err(Stop::Over)
    }
}

fn decode<M: Message + Default>(frame: &Frame<'_>) -> Result<M, FrameError> {
    M::decode(frame.body)
        .map_err(|_| FrameError::Malformed { kind: frame.kind, what: "it is no such message" })
}

/// An address that is too long to be one is none.
fn address(to: String) -> Option<Box<str>> {
    (!to.is_empty() && to.len() <= limits::MAX_ADDRESS_BYTES).then(|| to.into_boxed_str())
}
