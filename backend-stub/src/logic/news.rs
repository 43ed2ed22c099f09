//! News for connected phones, gathered by shard: one Notify call carries many, and the newest number of
//! a user is all that counts.

use std::collections::VecDeque;

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::status::Status;

use super::api::{Action, Answer, At};
use super::checks::check_user;
use super::core::Core;
use super::limits;
use super::presence::seconds;
use super::users::Place;
use super::verbs::Resume;

#[derive(Default)]
pub(super) struct Lanes {
    /// Users whose log has grown in this turn.
    users: Vec<Place>,
    /// Answers of writes that take what their senders lack along, at the end of this turn.
    written: Vec<Written>,
    /// By gateway's place and shard.
    lanes: AHashMap<(u16, u16), Lane>,
    /// Calls in flight by token.
    calls: AHashMap<u64, Call>,
    /// News that failed, to be told again: when, user, device.
    retries: VecDeque<(u64, u64, u64)>,
    /// Connections of devices that were logged out, to be ended: when, gateway's place and shard, which.
    ends: VecDeque<(u64, (u16, u16), pb::Replaced)>,
    /// The sweep that goes on is not over before.
    pub sweep_until_ms: u64,
}

#[derive(Default)]
struct Lane {
    in_flight: u8,
    /// User and device.
    due: VecDeque<(u64, u64)>,
}

/// An answer to a device that is to get its own change with it.
pub(super) struct Written {
    pub token: u64,
    pub user: u64,
    pub device: u64,
    /// The connection that the write came over.
    pub counter: u32,
    pub reply: pb::SendReply,
}

struct Call {
    lane: (u16, u16),
    sent: Vec<Sent>,
}

struct Sent {
    user: u64,
    device: u64,
    slot: u32,
    generation: u32,
}

impl Lanes {
    /// When `tell_due` has something to do.
    pub fn next_due_ms(&self) -> Option<u64> {
        let retry = self.retries.front().map(|(at, ..)| *at);
        retry.into_iter().chain(self.ends.front().map(|(at, ..)| *at)).min()
    }
}

impl Core {
    pub(super) fn has_news(&mut self, place: Place) {
        let user = self.users.at(place);
        if !user.has_news && (user.device.is_online() || user.has_more) {
            user.has_news = true;
            self.lanes.users.push(place);
        }
    }

    /// Puts a device into the list of its shard, once.
    pub(super) fn device_due(&mut self, place: Place, device: u64) {
        let user = self.users.peek(place).id;
        let Some(device) = self.users.device(place, device) else { return };
        if device.is_online() && !device.due {
            device.due = true;
            let lane = self.lanes.lanes.entry((device.gateway, device.shard)).or_default();
            lane.due.push_back((user, device.device));
        }
    }

    /// Answers a write with a page, once all commits of this turn are known: what came beside it goes along.
    pub(super) fn reply_with_page(&mut self, written: Written) {
        self.lanes.written.push(written);
    }

    fn flush_written(&mut self, at: At) {
        for mut written in std::mem::take(&mut self.lanes.written) {
            let given = self.page_of(at, &mut written);
            self.answer(written.token, Ok(Answer::Sent(written.reply, given)));
        }
    }

    /// Puts into an answer all that its device has not said it has, so that it fits wherever the device is: it may
    /// have what was told meanwhile, or not. From there on the device counts as told, not as having it: when the
    /// answer is lost the sweep tells it again. Not to a device that has connected anew since: the answer goes to a
    /// connection that is gone.
    fn page_of(&mut self, at: At, written: &mut Written) -> Option<Cursor> {
        let place = self.users.find(written.user)?;
        let newest = self.users.peek(place).visible;
        let device = *self.users.device(place, written.device)?;
        if !device.is_online() || device.counter != written.counter {
            return None;
        }
        written.reply.page = self.inline_page(place, device.applied)?;
        self.counters.pages_in_replies += 1;
        if let Some(known) = self.users.device(place, written.device) {
            known.told = newest;
            known.told_at_s = seconds(at.now_ms);
        }
        Some(Cursor::new(self.config.log_epoch, newest))
    }

    pub(super) fn flush_news(&mut self, at: At) {
        self.flush_written(at);
        for place in std::mem::take(&mut self.lanes.users) {
            let user = self.users.at(place);
            user.has_news = false;
            let (id, visible) = (user.id, user.visible);
            let lanes = &mut self.lanes.lanes;
            self.users.each_device(place, |device| {
                // An answer that is being committed takes all of it along: no second copy goes before it.
                let is_answered = device.answers > 0;
                let lacks = device.applied.max(device.told) < visible;
                if device.is_online() && !device.due && !is_answered && lacks {
                    device.due = true;
                    lanes
                        .entry((device.gateway, device.shard))
                        .or_default()
                        .due
                        .push_back((id, device.device));
                }
            });
        }
        let ready =
            |(_, lane): &(_, &Lane)| !lane.due.is_empty() && lane.in_flight < limits::MAX_NOTIFIES_IN_FLIGHT;
        let mut ready: Vec<(u16, u16)> = self.lanes.lanes.iter().filter(ready).map(|(key, _)| *key).collect();
        // In an order of their own, so that a run can be repeated.
        ready.sort_unstable();
        for lane in ready {
            self.flush_lane(at, lane);
        }
        if self.lanes.lanes.len() > limits::MAX_GATEWAYS {
            self.lanes.lanes.retain(|_, lane| lane.in_flight > 0 || !lane.due.is_empty());
        }
    }

    fn flush_lane(&mut self, at: At, key: (u16, u16)) {
        let Some(lane) = self.lanes.lanes.get_mut(&key) else { return };
        let due: Vec<(u64, u64)> = lane.due.drain(..limits::MAX_NEWS.min(lane.due.len())).collect();
        let gateway = self.presence.gateway(key.0);
        let mut news = Vec::with_capacity(due.len());
        let mut sent = Vec::with_capacity(due.len());
        for (user, device) in due {
            let Some(place) = self.users.find(user) else { continue };
            let Some(of) = self.users.device(place, device).filter(|device| device.due) else { continue };
            if (of.gateway, of.shard) != key {
                // It has moved since; its mark belongs to the list where it is now.
                of.due = false;
                self.device_due(place, device);
                continue;
            }
            of.due = false;
            if gateway.is_none() {
                continue;
            }
            if let Some((item, is)) = self.news_of(at, place, device) {
                news.push(item);
                sent.push(is);
            }
        }
        let Some(gateway) = gateway.filter(|_| !news.is_empty()) else { return };
        if let Some(lane) = self.lanes.lanes.get_mut(&key) {
            lane.in_flight += 1;
        }
        self.counters.news += news.len() as u64;
        let token = self.token();
        self.lanes.calls.insert(token, Call { lane: key, sent });
        let request = pb::NotifyRequest { gateway, shard: u32::from(key.1), news, ..Default::default() };
        self.actions.push_back(Action::Notify { token, gateway, shard: key.1, request });
    }

    /// Ends a connection a moment from now: an answer that is on its way over it arrives first. Too many wait: the
    /// oldest ends at once.
    pub(super) fn end_soon(&mut self, at: At, shard: (u16, u16), session: pb::Replaced) {
        if self.lanes.ends.len() >= limits::MAX_ENDS_WAITING
            && let Some((_, shard, session)) = self.lanes.ends.pop_front()
        {
            self.tell_replaced(shard, session);
        }
        self.lanes.ends.push_back((at.now_ms + limits::LOGGED_OUT_GRACE_MS, shard, session));
    }

    /// Tells the shard of a session that a newer connection of its device is there, or that the device was logged
    /// out. The result is no matter: an announcement of the session is answered the same.
    pub(super) fn tell_replaced(&mut self, (gateway, shard): (u16, u16), replaced: pb::Replaced) {
        let Some(gateway) = self.presence.gateway(gateway) else { return };
        let (token, replaced) = (self.token(), vec![replaced]);
        let request = pb::NotifyRequest { gateway, shard: u32::from(shard), replaced, ..Default::default() };
        self.actions.push_back(Action::Notify { token, gateway, shard, request });
    }

    /// Tells a user's connected devices something that stands in no log. Lost, it is lost.
    fn tell_notice(&mut self, place: Place, notice: &pb::Notice) {
        let notice: Bytes = notice.encode_to_vec().into();
        let mut routes = Vec::new();
        self.users.each_device(place, |device| {
            if device.is_online() {
                routes.push((device.gateway, device.shard, device.slot, device.generation));
            }
        });
        for (gateway, shard, slot, generation) in routes {
            let Some(gateway) = self.presence.gateway(gateway) else { continue };
            let (token, events) =
                (self.token(), vec![pb::Event { slot, generation, notice: notice.clone() }]);
            let request =
                pb::NotifyRequest { gateway, shard: u32::from(shard), events, ..Default::default() };
            self.actions.push_back(Action::Notify { token, gateway, shard, request });
        }
    }

    /// A user is typing to another. Answered at once; a blocked one types to nobody.
    pub fn typing(&mut self, token: u64, user: u64, to: u64) {
        if let Err(refusal) = check_user(to) {
            return self.answer(token, Err(refusal));
        }
        // Who is not in memory is not connected.
        if let Some(place) = self.users.find(to).filter(|place| self.users.peek(*place).loaded) {
            let keys = self.block_keys(place, user);
            if self.need(&keys, Resume::Typing { token, user, to }).is_none() {
                return;
            }
            if !self.blocks(place, user) {
                let typing = pb::notice::What::Typing(pb::Typing { from: user });
                self.tell_notice(place, &pb::Notice { what: Some(typing) });
            }
        }
        self.answer(token, Ok(Answer::Done));
    }

    /// What a device is told. Changes that it was not told yet go along when they are small: a phone
    /// whose cursor is at `prev` needs no sync; the gateway knows whether it is.
    fn news_of(&mut self, at: At, place: Place, device: u64) -> Option<(pb::News, Sent)> {
        let user = self.users.peek(place);
        let (id, newest) = (user.id, user.visible);
        let device = *self.users.device(place, device)?;
        let prev = device.told.max(device.applied);
        // It has them, or was told meanwhile. Whoever tells again has set back what counts as told.
        if prev >= newest {
            return None;
        }
        let page = self.inline_page(place, prev);
        self.counters.news_inline += u64::from(page.is_some());
        if let Some(known) = self.users.device(place, device.device) {
            known.told = newest;
            known.told_at_s = seconds(at.now_ms);
        }
        let news = pb::News {
            slot: device.slot,
            generation: device.generation,
            class: 2,
            log_epoch: self.config.log_epoch,
            newest,
            prev: if page.is_some() { prev } else { 0 },
            page: page.unwrap_or_default(),
        };
        let sent = Sent { user: id, device: device.device, slot: device.slot, generation: device.generation };
        Some((news, sent))
    }

    /// How a Notify call ended. Stale routes are looked up again; what failed is told again.
    pub fn handle_notify_result(&mut self, at: At, token: u64, result: Result<&pb::NotifyReply, &Status>) {
        let Some(Call { lane: key, sent }) = self.lanes.calls.remove(&token) else { return };
        if let Some(lane) = self.lanes.lanes.get_mut(&key) {
            lane.in_flight -= 1;
        }
        match result {
            Ok(reply) => {
                for index in &reply.stale {
                    if let Some(sent) = sent.get(*index as usize) {
                        self.route_is_stale(key, sent);
                    }
                }
            }
            Err(_) => {
                self.counters.notify_failures += 1;
                for sent in sent {
                    self.untold(&sent);
                    if self.lanes.retries.len() < limits::MAX_NOTIFY_RETRIES {
                        self.lanes.retries.push_back((
                            at.now_ms + limits::NOTIFY_RETRY_MS,
                            sent.user,
                            sent.device,
                        ));
                    }
                }
            }
        }
    }

    /// The gateway has another session there: the route goes unless it changed meanwhile, in which case
    /// the news go to the new one.
    fn route_is_stale(&mut self, key: (u16, u16), sent: &Sent) {
        self.counters.stale_routes += 1;
        let Some(place) = self.users.find(sent.user) else { return };
        let Some(device) = self.users.device(place, sent.device) else { return };
        let is_same = (device.gateway, device.shard, device.slot, device.generation)
            == (key.0, key.1, sent.slot, sent.generation);
        if is_same {
            device.gateway = 0;
            self.counters.online = self.counters.online.saturating_sub(1);
        } else if device.applied < self.users.peek(place).visible {
            self.tell_again(place, sent.device);
        }
    }

    fn untold(&mut self, sent: &Sent) {
        let Some(place) = self.users.find(sent.user) else { return };
        if let Some(device) = self.users.device(place, sent.device) {
            device.told = device.applied;
        }
    }

    /// What was told may be lost: it is told from what the phone itself said it has.
    pub(super) fn tell_again(&mut self, place: Place, device: u64) {
        if let Some(known) = self.users.device(place, device) {
            known.told = known.applied;
        }
        self.device_due(place, device);
    }

    /// What was put off until now: connections that end, news that failed.
    pub(super) fn tell_due(&mut self, at: At) {
        while self.lanes.ends.front().is_some_and(|(due, ..)| *due <= at.now_ms) {
            let Some((_, shard, session)) = self.lanes.ends.pop_front() else { return };
            self.tell_replaced(shard, session);
        }
        while self.lanes.retries.front().is_some_and(|(due, ..)| *due <= at.now_ms) {
            let Some((_, user, device)) = self.lanes.retries.pop_front() else { return };
            if let Some(place) = self.users.find(user) {
                self.device_due(place, device);
            }
        }
    }
}
