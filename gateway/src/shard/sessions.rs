//! Where sessions meet the shard: what a session asks for is noted here and done at the end of the turn.

use std::sync::Arc;

use bytes::Bytes;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Beat, Call, Class};
use proto_wire::names::{Cursor, Route};
use proto_wire::pb;
use proto_wire::rpc::method::Method;
use proto_wire::status::Code;
use proto_wire_token::{Claims, TICKET_BYTES, TokenError};

use super::counters::Counters;
use super::slab::Slab;
use super::wheel::Wheel;
use super::{SharedVerify, io};
use crate::config::Limits;
use crate::limits;
use crate::session::{Answer, Event, News, Owner, Session, State};
use crate::upstream::{Directory, Downward, Link, PhoneCall};

/// What a connection needs only while something is half done.
#[derive(Debug, Default)]
pub struct Extra {
    /// A frame half received.
    pub partial: Vec<u8>,
    /// What waits to be sent.
    pub out: Vec<u8>,
}

/// What sessions act on. `out`, `beat` and `wake_ms` are of the session that runs now.
pub struct Desk {
    pub gateway: u64,
    pub shard: u16,
    pub limits: Arc<Limits>,
    pub verifier: SharedVerify,
    pub counters: Arc<Counters>,
    /// Lent to the shard while one runs.
    pub links: Vec<Option<Box<Link>>>,
    pub extras: Vec<Extra>,
    pub free_extras: Vec<u32>,
    /// Buffers for sends, kept warm.
    pub spare: Vec<Vec<u8>>,
    /// Sessions with something to send.
    pub dirty: Vec<(u32, u32)>,
    pub now_ms: u64,
    pub unix_ms: u64,
    slot: u32,
    out: Vec<u8>,
    beat: bool,
    wake_ms: Option<u64>,
}

impl Desk {
    pub fn new(
        gateway: u64,
        shard: u16,
        limits: Arc<Limits>,
        verifier: SharedVerify,
        counters: Arc<Counters>,
        links: Vec<Option<Box<Link>>>,
    ) -> Self {
        Self {
            gateway,
            shard,
            limits,
            verifier,
            counters,
            links,
            extras: Vec::new(),
            free_extras: Vec::new(),
            spare: Vec::new(),
            dirty: Vec::new(),
            now_ms: 0,
            unix_ms: 0,
            slot: 0,
            out: Vec::new(),
            beat: false,
            wake_ms: None,
        }
    }

    /// Runs a session's step and notes what it gives. `None` when the session is another's by now.
    pub fn with<R>(
        &mut self,
        slab: &mut Slab,
        wheel: &mut Wheel,
        slot: u32,
        generation: u32,
        step: impl FnOnce(&mut Session, &mut Self) -> R,
    ) -> Option<R> {
        let session = slab.current(slot, generation)?;
        self.slot = slot;
        let result = step(session, self);
        self.settle(session, slot);
        if let Some(at_ms) = self.wake_ms.take() {
            wheel.set(slot, at_ms, slab);
        }
        Some(result)
    }

    pub fn extra_of(&mut self, session: &mut Session) -> &mut Extra {
        if session.extra == u32::MAX {
            session.extra = self.free_extras.pop().unwrap_or_else(|| {
                self.extras.push(Extra::default());
                (self.extras.len() - 1) as u32
            });
            self.counters.with_extra.add(1);
        }
        &mut self.extras[session.extra as usize]
    }

    /// Gives the extra back when it holds nothing.
    pub fn release_extra(&mut self, session: &mut Session) {
        let Some(extra) = self.extras.get_mut(session.extra as usize) else { return };
        if extra.partial.is_empty() && extra.out.is_empty() {
            *extra = Extra::default();
            self.free_extras.push(session.extra);
            session.extra = u32::MAX;
            self.counters.with_extra.add(u64::MAX);
            if self.free_extras.len() == self.extras.len() && self.extras.len() > 1024 {
                self.extras = Vec::new();
                self.free_extras = Vec::new();
            }
        }
    }

    pub fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=limits::SPARE_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && self.spare.len() < limits::SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Bytes of this session that wait to be sent.
    pub fn waiting_bytes(&self, session: &Session) -> usize {
        self.extras.get(session.extra as usize).map_or(0, |extra| extra.out.len())
    }

    fn settle(&mut self, session: &mut Session, slot: u32) {
        let beat = std::mem::take(&mut self.beat);
        if self.out.is_empty() && !beat {
            return;
        }
        if beat {
            session.io |= io::BEAT;
        }
        if !self.out.is_empty() {
            let mut out = std::mem::take(&mut self.out);
            let spare = self.spare_buffer();
            self.counters.queued_bytes.add(out.len() as u64);
            let extra = self.extra_of(session);
            if extra.out.is_empty() {
                extra.out = out;
                self.out = spare;
            } else {
                extra.out.extend_from_slice(&out);
                out.clear();
                self.out = out;
                self.keep_buffer(spare);
            }
        }
        if session.io & io::DIRTY == 0 {
            session.io |= io::DIRTY;
            self.dirty.push((slot, session.generation));
        }
    }

    fn route(&self, session: &Session) -> Route {
        Route { gateway: self.gateway, shard: self.shard, slot: self.slot, generation: session.generation }
    }

    fn link_of(&mut self, user: u64) -> Option<&mut Link> {
        let at = Link::index_for(user, self.links.len());
        self.links.get_mut(at)?.as_deref_mut()
    }

    /// # Panics
    /// While the link is lent: its own steps go through what they were given.
    pub fn link(&mut self, at: usize) -> &mut Link {
        self.links[at].as_deref_mut().expect("a link is back when its step has ended")
    }

    /// Lends a link for one step, so that it can act on the desk.
    pub fn lend_link(&mut self, at: usize) -> Box<Link> {
        self.links[at].take().expect("a link is lent to one step at a time")
    }

    pub fn take_back(&mut self, at: usize, link: Box<Link>) {
        self.links[at] = Some(link);
    }

    /// A session ended.
    pub fn offline(&mut self, slot: u32, session: &Session) {
        if session.is_announced()
            && let Some(link) = self.link_of(session.user)
        {
            link.reports.push_offline(slot, session);
        }
    }
}

impl Owner for Desk {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    fn verify(&self, token: &[u8]) -> Result<Claims, TokenError> {
        self.verifier.verify(token, self.unix_ms / 1000)
    }

    fn resume(&self, ticket: &[u8]) -> Result<Claims, TokenError> {
        self.verifier.resume(ticket, self.unix_ms / 1000)
    }

    fn ticket(&self, claims: &Claims, device: u64) -> Option<([u8; TICKET_BYTES], u64)> {
        self.verifier.ticket(claims, device, self.unix_ms / 1000)
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn beat(&mut self) {
        self.beat = true;
    }

    fn call(&mut self, session: &Session, call: &Call<'_>, method: &'static Method) -> Result<(), Code> {
        let (route, now_ms) = (self.route(session), self.now_ms);
        let link = self.link_of(session.user).ok_or(Code::Unavailable)?;
        link.call(session, route, call, method, now_ms)?;
        self.counters.calls_in_flight.add(1);
        Ok(())
    }

    fn online(&mut self, session: &Session) {
        self.counters.live.add(1);
        let slot = self.slot;
        if let Some(link) = self.link_of(session.user) {
            link.reports.push_online(slot, session.generation);
        }
    }

    fn applied(&mut self, session: &mut Session) {
        let slot = self.slot;
        // Once in the list until it is reported.
        if session.io & io::APPLIED_WAITS == 0
            && let Some(link) = self.link_of(session.user)
        {
            link.reports.push_applied(slot, session.generation);
            session.io |= io::APPLIED_WAITS;
        }
    }

    fn wake_at(&mut self, now_ms: u64) {
        self.wake_ms = Some(now_ms);
    }

    fn counted(&mut self, event: Event) {
        let counters = &self.counters;
        match event {
            Event::Hello => counters.hellos.add(1),
            Event::Anonymous => counters.anonymous.add(1),
            Event::Resumed => counters.resumed.add(1),
            Event::Beat => counters.beats.add(1),
            Event::Call => counters.calls.add(1),
            Event::CallRefused(code) => {
                counters.calls_refused.add(1);
                counters.reply(code);
            }
            Event::Notified => counters.notified.add(1),
            Event::NotifiedInline => {
                counters.notified.add(1);
                counters.notified_inline.add(1);
            }
            Event::NotifiedAgain => counters.notified_again.add(1),
            Event::Coalesced => counters.coalesced.add(1),
            Event::Skipped => counters.skipped.add(1),
            Event::Notice => counters.notices.add(1),
        }
    }
}

/// The sessions of one shard as one of its links sees them: those whose user the link carries.
pub struct Book<'a> {
    pub slab: &'a mut Slab,
    pub link: usize,
    pub links: usize,
}

impl Directory for Book<'_> {
    fn session(&mut self, slot: u32, generation: u32) -> Option<&mut Session> {
        self.slab.current(slot, generation).filter(|session| session.state() == State::Live)
    }

    fn scan(&mut self, from: u32, limit: u32, take: &mut dyn FnMut(u32, &Session)) -> Option<u32> {
        let end = self.slab.end();
        let to = (from + limit).min(end);
        for slot in from..to {
            if let Some(session) = self.slab.get_mut(slot)
                && session.state() == State::Live
                && Link::index_for(session.user, self.links) == self.link
            {
                take(slot, session);
            }
        }
        (to < end).then_some(to)
    }
}

/// What a link brings down, for the sessions of the shard.
pub struct Down<'a> {
    pub desk: &'a mut Desk,
    pub slab: &'a mut Slab,
    pub wheel: &'a mut Wheel,
    /// Sessions that the logic tier wants closed: the shard does it.
    pub ended: &'a mut Vec<Ended>,
    /// EVENT frames for all phones of the gateway: the shard hands them to its peers.
    pub broadcasts: &'a mut Vec<Bytes>,
}

/// A session that a newer connection of its device replaced, or whose device was logged out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub slot: u32,
    pub generation: u32,
    pub reason: Reason,
}

impl Ended {
    /// What the phone is told.
    pub fn text(&self) -> &'static str {
        match self.reason {
            Reason::LoggedOut => "this device was logged out",
            _ => "a newer connection of this device took over",
        }
    }
}

impl Downward for Down<'_> {
    fn answer(&mut self, call: PhoneCall, answer: &Answer<'_>) {
        self.desk.counters.calls_in_flight.add(u64::MAX);
        self.desk.counters.reply(answer.code);
        self.desk.with(self.slab, self.wheel, call.slot, call.generation, |session, desk| {
            session.handle_reply(call.id, call.is_sync, answer, desk);
        });
    }

    fn news(&mut self, request: &pb::NotifyRequest) -> Vec<u32> {
        let mut stale = Vec::new();
        for (at, news) in request.news.iter().enumerate() {
            let Some(class) = u8::try_from(news.class).ok().and_then(Class::from_u8) else { continue };
            let newest = Cursor::new(news.log_epoch, news.newest);
            let told = News { class, newest, prev: news.prev, page: &news.page };
            if !self.tell(news.slot, news.generation, &told) {
                self.desk.counters.stale_routes.add(1);
                stale.push(at as u32);
            }
        }
        for event in &request.events {
            self.desk.with(self.slab, self.wheel, event.slot, event.generation, |session, desk| {
                session.handle_event(&event.notice, desk);
            });
        }
        self.close_later(&request.replaced);
        stale
    }

    fn broadcast(&mut self, notice: &[u8]) -> bool {
        let has_place = self.broadcasts.len() < limits::BROADCASTS_MAX;
        if has_place {
            let mut frame = Vec::with_capacity(notice.len() + 4);
            frame::put_header(&mut frame, frame::kind::EVENT, notice.len());
            frame.extend_from_slice(notice);
            self.broadcasts.push(frame.into());
        }
        has_place
    }

    fn reported(&mut self, reply: &pb::ReportReply) {
        self.desk.counters.reports.add(1);
        for behind in &reply.behind {
            let newest = Cursor::new(behind.log_epoch, behind.newest);
            // A session that has gone since needs no news; its end is reported by itself.
            self.tell(
                behind.slot,
                behind.generation,
                &News { class: Class::Now, newest, prev: 0, page: &[] },
            );
        }
        self.close_later(&reply.replaced);
    }
}

impl Down<'_> {
    fn close_later(&mut self, ended: &[pb::Replaced]) {
        self.ended.extend(ended.iter().map(|&pb::Replaced { slot, generation, close }| Ended {
            slot,
            generation,
            reason: Reason::of_ended(close),
        }));
    }

    fn tell(&mut self, slot: u32, generation: u32, news: &News<'_>) -> bool {
        let now_ms = self.desk.now_ms;
        self.desk
            .with(self.slab, self.wheel, slot, generation, |session, desk| {
                let live = session.state() == State::Live;
                session.handle_news(news, now_ms, desk);
                live
            })
            .unwrap_or(false)
    }
}

/// The beat as it is sent when nothing else is.
pub const BEAT_FRAME: &[u8] = &Beat::EMPTY;
