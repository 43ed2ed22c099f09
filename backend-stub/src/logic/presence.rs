//! Who is connected where: routes by device, leased by gateway process.

use ahash::AHashMap;
use proto_wire::close::Reason;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::{Answer, At};
use super::append::Waiting;
use super::core::Core;
use super::groups::IDLE_SWEEPS;
use super::users::{Device, Place};
use super::values::mark;
use super::verbs::Resume;
use super::{keys, limits};

#[derive(Default)]
pub(super) struct Presence {
    /// Gateways by place; 0 is never used.
    gateways: Vec<Option<Gateway>>,
    places: AHashMap<u64, u16>,
    /// Leases given so far.
    leases: u64,
    reports: AHashMap<u64, Report>,
    next_report: u64,
    /// Sweeps that ended, wrapping.
    sweeps: u16,
    /// Where the sweep goes on.
    swept: Place,
    /// When its next step is due.
    next_step_ms: u64,
    /// Routes seen by the sweep that goes on.
    online: u64,
    /// Groups that the store could not read, for the next step.
    pub read_groups_again: Vec<u64>,
    /// Authors whose moments could not go on.
    pub spread_again: Vec<u64>,
}

struct Gateway {
    id: u64,
    /// Told in every reply: another one than before says that the routes of the one before are gone.
    lease: u64,
    lease_until_ms: u64,
    /// The sweep in which its lease ended. Its routes are gone after the next one.
    ended: Option<u16>,
}

/// A report whose users are being read.
struct Report {
    token: u64,
    reply: pb::ReportReply,
    waits_for: usize,
}

impl Presence {
    pub fn sweep(&self) -> u16 {
        self.sweeps
    }

    /// The id of a gateway whose lease holds.
    pub fn gateway(&self, place: u16) -> Option<u64> {
        let gateway = self.gateways.get(usize::from(place))?.as_ref()?;
        gateway.ended.is_none().then_some(gateway.id)
    }

    /// Renews the lease of a gateway process: its place and the lease. `None`: there are too many.
    fn renew(&mut self, id: u64, now_ms: u64) -> Option<(u16, u64)> {
        let lease_until_ms = now_ms + limits::GATEWAY_LEASE_MS;
        if let Some(place) = self.places.get(&id) {
            let gateway = self.gateways[usize::from(*place)].as_mut()?;
            gateway.lease_until_ms = lease_until_ms;
            return Some((*place, gateway.lease));
        }
        if self.gateways.is_empty() {
            self.gateways.push(None);
        }
        let free = self.gateways.iter().skip(1).position(Option::is_none).map(|at| at + 1);
        let place = free.unwrap_or(self.gateways.len());
        if place > limits::MAX_GATEWAYS {
            return None;
        }
        if place == self.gateways.len() {
            self.gateways.push(None);
        }
        self.leases += 1;
        let lease = self.leases;
        self.gateways[place] = Some(Gateway { id, lease, lease_until_ms, ended: None });
        self.places.insert(id, place as u16);
        Some((place as u16, lease))
    }

    /// Ends leases that ran out. Gives how many.
    fn expire(&mut self, now_ms: u64) -> u64 {
        let mut ended = 0;
        for gateway in self.gateways.iter_mut().flatten() {
            if gateway.ended.is_none() && gateway.lease_until_ms <= now_ms {
                gateway.ended = Some(self.sweeps);
                self.places.remove(&gateway.id);
                ended += 1;
            }
        }
        ended
    }

    /// Frees the places of gateways whose routes two whole sweeps have gone over.
    fn forget_ended(&mut self) {
        let sweeps = self.sweeps;
        for gateway in self.gateways.iter_mut() {
            if gateway
                .as_ref()
                .and_then(|gateway| gateway.ended)
                .is_some_and(|ended| sweeps.wrapping_sub(ended) >= 2)
            {
                *gateway = None;
            }
        }
    }
}

impl Core {
    /// What a shard says of its sessions. Routes are stored first, then the newest numbers are read.
    pub fn report(&mut self, at: At, token: u64, request: &pb::ReportRequest) {
        let Some((gateway, lease)) = self.presence.renew(request.gateway, at.now_ms) else {
            return self.refuse(token, Status::new(Code::Overloaded, "too many gateways"));
        };
        let Ok(shard) = u16::try_from(request.shard) else {
            return self.answer(token, Err(Status::invalid("a shard's number has 16 bits")));
        };
        let mut reply = pb::ReportReply { backend: self.config.backend, lease, ..Default::default() };
        let mut stored = Vec::with_capacity(request.online.len());
        for online in &request.online {
            if online.user == 0
                || self.users.len() >= self.config.max_users && self.users.find(online.user).is_none()
            {
                continue;
            }
            let place = self.user(online.user);
            if self.store_route(place, gateway, shard, online) {
                stored.push((place, online));
            } else {
                let (slot, generation) = (online.slot, online.generation);
                reply.replaced.push(pb::Replaced { slot, generation, close: 0 });
            }
        }
        for offline in &request.offline {
            self.remove_route(gateway, shard, offline);
        }
        for applied in &request.applied {
            self.applied(applied.user, applied.device, Cursor::new(applied.log_epoch, applied.number));
        }
        self.look_up_sessions(at, token, reply, stored);
    }

    /// Says which of the stored sessions are behind; waits for users whose tails are not in memory.
    fn look_up_sessions(
        &mut self,
        at: At,
        token: u64,
        reply: pb::ReportReply,
        stored: Vec<(Place, &pb::Online)>,
    ) {
        let report = self.presence.next_report;
        self.presence.next_report += 1;
        self.presence.reports.insert(report, Report { token, reply, waits_for: stored.len() + 1 });
        for (place, online) in stored {
            if let Some(device) = self.users.device(place, online.device) {
                device.told_at_s = seconds(at.now_ms);
            }
            if self.users.peek(place).loaded {
                self.session_looked_up(report, online, Some(place));
            } else {
                self.wait(place, Waiting::Report { report, online: *online });
            }
        }
        self.report_part_done(report);
    }

    /// The newest number of a session's user was read, or could not be.
    pub(super) fn session_looked_up(&mut self, report: u64, online: &pb::Online, place: Option<Place>) {
        let log_epoch = self.config.log_epoch;
        let user = place.map(|place| (place, self.users.peek(place)));
        if let Some((_, user)) = user.filter(|(_, user)| user.marks & mark::DEVICES != 0) {
            let key = keys::peer(user.id, user.id);
            if self.need(&[key], Resume::Report { report, online: *online }).is_none() {
                return;
            }
        }
        if let Some(place) = place.filter(|place| self.is_out(*place, online.device) == Ok(true)) {
            // The token is still good, but nothing is told to this device any more. The answer closes its session.
            self.take_route(place, online.device);
            if let Some(pending) = self.presence.reports.get_mut(&report) {
                let (slot, generation, close) = (online.slot, online.generation, Reason::LoggedOut as u32);
                pending.reply.replaced.push(pb::Replaced { slot, generation, close });
            }
        } else if let Some(place) = place {
            let newest = self.users.peek(place).visible;
            let has_all = if online.log_epoch == log_epoch { online.applied >= newest } else { newest == 0 };
            let pending = self.presence.reports.get_mut(&report);
            if let (false, Some(pending)) = (has_all, pending) {
                let (slot, generation) = (online.slot, online.generation);
                pending.reply.behind.push(pb::Behind { slot, generation, log_epoch, newest });
                if let Some(device) = self.users.device(place, online.device) {
                    device.told = device.told.max(newest);
                }
            }
        }
        self.report_part_done(report);
    }

    fn report_part_done(&mut self, id: u64) {
        let Some(report) = self.presence.reports.get_mut(&id) else { return };
        report.waits_for -= 1;
        if report.waits_for > 0 {
            return;
        }
        if let Some(report) = self.presence.reports.remove(&id) {
            self.answer(report.token, Ok(Answer::Report(report.reply)));
        }
    }

    /// Stores a session's route unless a newer connection of the device is known.
    fn store_route(&mut self, place: Place, gateway: u16, shard: u16, online: &pb::Online) -> bool {
        let applied = if online.log_epoch == self.config.log_epoch { online.applied } else { 0 };
        let device = self.users.device_or_new(place, online.device, limits::MAX_DEVICES);
        if online.counter < device.counter {
            return false;
        }
        let was_online = device.is_online();
        let is_repeat = has_route(device, gateway, shard, online.slot, online.generation);
        let before = (device.gateway, device.shard);
        let older = pb::Replaced { slot: device.slot, generation: device.generation, close: 0 };
        device.counter = online.counter;
        device.gateway = gateway;
        device.shard = shard;
        device.slot = online.slot;
        device.generation = online.generation;
        if is_repeat {
            device.applied = device.applied.max(applied);
        } else {
            device.applied = applied;
            device.told = applied;
            // A mark for another shard's list: that list skips what is not on its shard.
            device.due = false;
        }
        self.counters.online += u64::from(!was_online);
        if was_online && !is_repeat {
            self.tell_replaced(before, older);
        }
        true
    }

    fn remove_route(&mut self, gateway: u16, shard: u16, offline: &pb::Offline) {
        let Some(place) = self.users.find(offline.user) else { return };
        let Some(device) = self.users.device(place, offline.device) else { return };
        if has_route(device, gateway, shard, offline.slot, offline.generation) {
            device.gateway = 0;
            self.counters.online = self.counters.online.saturating_sub(1);
        }
    }

    /// A device is logged out, on disk. From here on nothing is told to it, even if the gateway does not hear of the
    /// end of its connection. That is put off a little: the device may have asked for this itself, and its answer
    /// goes over that connection.
    pub(super) fn logged_out(&mut self, at: At, user: u64, device: u64) {
        let Some(place) = self.users.find(user) else { return };
        if let Some((shard, session)) = self.take_route(place, device) {
            self.end_soon(at, shard, session);
        }
    }

    /// The same at once, when it shows later that a device with a route is logged out.
    pub(super) fn cut_off(&mut self, place: Place, device: u64) {
        if let Some((shard, session)) = self.take_route(place, device) {
            self.tell_replaced(shard, session);
        }
    }

    /// Takes the route of a device that was logged out, wherever it is: nothing is told to it any more.
    fn take_route(&mut self, place: Place, device: u64) -> Option<((u16, u16), pb::Replaced)> {
        let device = self.users.device(place, device).filter(|device| device.is_online())?;
        let shard = (device.gateway, device.shard);
        device.gateway = 0;
        let close = Reason::LoggedOut as u32;
        let session = pb::Replaced { slot: device.slot, generation: device.generation, close };
        self.counters.online = self.counters.online.saturating_sub(1);
        Some((shard, session))
    }

    /// A phone says what it has applied: the only reason to count it as told.
    pub fn applied(&mut self, user: u64, device: u64, cursor: Cursor) {
        if cursor.log_epoch != self.config.log_epoch {
            return;
        }
        let Some(place) = self.users.find(user) else { return };
        let (loaded, visible) = (self.users.peek(place).loaded, self.users.peek(place).visible);
        if let Some(device) = self.users.device(place, device) {
            let number = if loaded { cursor.number.min(visible) } else { cursor.number };
            device.applied = device.applied.max(number);
        }
    }

    /// Steps of the sweep, leases, and what is to be tried again.
    pub fn handle_timeout(&mut self, at: At) {
        self.tell_due(at);
        if at.now_ms < self.presence.next_step_ms {
            return;
        }
        self.presence.next_step_ms = at.now_ms + limits::SWEEP_STEP_MS;
        self.counters.hot_bytes = self.hot.bytes() as u64;
        self.counters.leases_ended += self.presence.expire(at.now_ms);
        self.load_again(at);
        self.read_groups_again(at);
        self.spread_again(at);
        self.read_states_again(at);
        self.recover_again(at);
        self.expire_uploads(at);
        self.sweep_step(at);
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<u64> {
        Some(
            self.lanes
                .next_due_ms()
                .map_or(self.presence.next_step_ms, |due| due.min(self.presence.next_step_ms)),
        )
    }

    fn sweep_step(&mut self, at: At) {
        let places = self.users.places();
        let step = places.div_ceil((limits::SWEEP_MS / limits::SWEEP_STEP_MS) as Place).max(64);
        let end = places.min(self.presence.swept.saturating_add(step));
        for place in self.presence.swept..end {
            if self.users.is_used(place) {
                self.sweep_user(at, place);
            }
        }
        self.presence.swept = end;
        // A whole sweep takes its time even when there are few users: news are told again once in it.
        let is_over = end == places && at.now_ms >= self.lanes.sweep_until_ms;
        if is_over {
            self.lanes.sweep_until_ms = at.now_ms + limits::SWEEP_MS;
            self.presence.swept = 0;
            self.presence.sweeps = self.presence.sweeps.wrapping_add(1);
            self.presence.forget_ended();
            self.groups.sweep(self.presence.sweeps, IDLE_SWEEPS);
            self.counters.online = std::mem::take(&mut self.presence.online);
        }
    }

    /// Ends routes of dead gateways, tells again what a phone did not apply, lets idle users go.
    fn sweep_user(&mut self, at: At, place: Place) {
        let visible = self.users.peek(place).visible;
        let presence = &self.presence;
        let (mut online, mut again, mut waits) = (0, Vec::new(), false);
        self.users.each_device(place, |device| {
            if device.is_online() && presence.gateway(device.gateway).is_none() {
                device.gateway = 0;
            }
            online += u64::from(device.is_online());
            waits |= device.due;
            let told_long_ago =
                u64::from(seconds(at.now_ms).wrapping_sub(device.told_at_s)) * 1000 >= limits::SWEEP_MS;
            if device.is_online() && device.applied < visible && told_long_ago && !device.due {
                again.push(device.device);
            }
        });
        self.presence.online += online;
        for device in again {
            self.counters.news_swept += 1;
            self.tell_again(place, device);
            waits = true;
        }
        let user = self.users.at(place);
        if online > 0 {
            user.touched = self.presence.sweeps;
        }
        let is_idle = self.presence.sweeps.wrapping_sub(user.touched) > IDLE_SWEEPS;
        if is_idle && user.pins == 0 && !user.has_news && !waits && user.loaded {
            self.users.remove(place);
            self.counters.users = self.users.len() as u64;
        }
    }
}

fn has_route(device: &Device, gateway: u16, shard: u16, slot: u32, generation: u32) -> bool {
    (device.gateway, device.shard, device.slot, device.generation) == (gateway, shard, slot, generation)
}

pub(super) fn seconds(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32
}
