//! The loop: takes what is next and gives it to whom it concerns, until all is where it belongs.

use super::backend::Backend;
use super::check;
use super::gate::{Gate, Happened};
use super::limits;
use super::net::{Address, ConnId, Input, Node, Side};
use super::phone::{Group, Phone};
use super::queue::Event;
use super::shared::Shared;

/// All machines of a run.
pub struct World {
    pub shared: Shared,
    pub phones: Vec<Phone>,
    pub gates: Vec<Gate>,
    pub backend: Backend,
    pub groups: Vec<Group>,
    groups_asked: usize,
    /// Gateways whose links do not get through until then.
    pub parted_until_us: Vec<u64>,
    pub quiet_until_us: u64,
    pub events: u64,
    /// After so many events load and faults end.
    steps: u64,
    /// Load and faults have ended, or the last step towards the end was made, then.
    calm_us: u64,
    /// Load and faults last at least until then: set once groups and contacts are made.
    load_until_us: u64,
    progress: u64,
    /// Since when all is where it belongs.
    good_us: Option<u64>,
    is_over: bool,
}

/// Users have small numbers: a failure is read by people.
const FIRST_USER: u64 = 1;

impl World {
    pub fn new(mut shared: Shared, steps: u64) -> Self {
        let mut phones = Vec::new();
        for user in FIRST_USER..FIRST_USER + shared.plan.users {
            for device in 1..=shared.random.between(1, shared.plan.devices) {
                phones.push(Phone::new(phones.len(), user, user * 10 + device, &mut shared));
            }
        }
        let gates = (0..shared.plan.gates).map(Gate::new).collect();
        let backend = Backend::new(&shared);
        let parted_until_us = vec![0; shared.plan.gates];
        Self {
            shared,
            phones,
            gates,
            backend,
            groups: Vec::new(),
            groups_asked: 0,
            parted_until_us,
            quiet_until_us: 0,
            events: 0,
            steps,
            calm_us: 0,
            load_until_us: 0,
            progress: 0,
            good_us: None,
            is_over: false,
        }
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        self.begin();
        while let Some((at_us, event)) = self.shared.queue.pop() {
            self.shared.now_us = at_us;
            self.events += 1;
            self.handle(event);
            if self.events == self.steps && !self.shared.is_calm {
                self.calm();
            }
            if self.events > limits::EVENTS_MAX {
                self.shared.complain("the run does not end".to_owned());
                return;
            }
            if self.is_over || self.shared.complaints.len() >= limits::COMPLAINTS_MAX {
                return;
            }
        }
    }

    fn begin(&mut self) {
        let now_us = self.shared.now_us;
        self.backend.start(&mut self.shared);
        self.gates.iter_mut().for_each(|gate| gate.start(&mut self.shared));
        for phone in 0..self.phones.len() {
            let on_us = now_us + self.shared.random.below(2_000_000);
            self.shared.queue.push(on_us, Event::SwitchOn(phone));
            self.shared.queue.push(on_us + 500_000, Event::Act(phone));
        }
        self.shared.queue.push(now_us + self.shared.plan.fault_every_us, Event::Fault);
        let (load_us, quiet_us) = (self.shared.plan.load_us, self.shared.plan.quiet_us);
        if quiet_us > 0 && self.shared.crowd.is_none() {
            self.shared.queue.push(now_us + load_us / 2, Event::Quiet);
        }
        let set_up_us = if self.shared.crowd.is_some() { limits::SET_UP_US } else { 0 };
        self.shared.queue.push(now_us + set_up_us + load_us + quiet_us, Event::Calm);
    }

    fn handle(&mut self, event: Event) {
        let shared = &mut self.shared;
        match event {
            Event::Opened(conn) => self.opened(conn),
            Event::Answered { conn, accepted } => self.answered(conn, accepted),
            Event::Arrive { conn, side, bytes } => shared.arrived(conn, side, &bytes),
            Event::Over { conn, side, reset } => shared.ended(conn, side, reset),
            Event::Read { conn, side } => {
                if let Some((node, input)) = shared.read(conn, side) {
                    self.input(conn, node, input);
                }
            }
            Event::PhoneTimer(phone) => self.phones[phone].timer(shared),
            Event::Act(phone) => self.act(phone),
            Event::Again { phone, upload } => self.phones[phone].again(upload, shared),
            Event::SwitchOn(phone) => {
                if self.phones[phone].is_off {
                    self.phones[phone].switch_on(shared);
                }
            }
            Event::GateTurn { gate, shard, life } => {
                if let Some(shard) = self.shard(gate, shard, life) {
                    shard.0.turn(shard.1);
                }
            }
            Event::Sent { gate, shard, life, slot, generation } => {
                if let Some(shard) = self.shard(gate, shard, life) {
                    shard.0.happen(Happened::Sent { slot, generation }, shard.1);
                }
            }
            Event::GateStarts(gate) => self.gates[gate].start(shared),
            Event::BackendTurn { life } if life == self.backend.life => self.backend.turn(shared),
            Event::BackendStarts => self.backend.start(shared),
            Event::BackendCrashes => self.crash_backend(),
            Event::Commit { partition, life } if life == self.backend.life && self.backend.is_up() => {
                self.backend.disk.commit(partition, life, shared);
            }
            Event::AnswerReads { partition, life } if life == self.backend.life && self.backend.is_up() => {
                self.backend.disk.answer_reads(partition, life, shared);
            }
            Event::Told { completion, life } if life == self.backend.life && self.backend.is_up() => {
                self.backend.told(*completion, shared);
            }
            // Of a process that is no more.
            Event::BackendTurn { .. }
            | Event::Commit { .. }
            | Event::AnswerReads { .. }
            | Event::Told { .. } => {}
            Event::Fault => self.fault(),
            Event::Quiet if self.shared.is_calm => {}
            Event::Quiet => self.quiet(),
            // The bound of a set-up that ended in time.
            Event::Calm if self.shared.now_us < self.load_until_us => {}
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    fn shard(
        &mut self,
        gate: usize,
        shard: usize,
        life: u32,
    ) -> Option<(&mut super::gate::Shard, &mut Shared)> {
        let gate = &mut self.gates[gate];
        if gate.life != life {
            return None;
        }
        Some((gate.shards.get_mut(shard)?, &mut self.shared))
    }

    fn opened(&mut self, conn: ConnId) {
        let shared = &mut self.shared;
        let refused = !shared.is_calm && shared.random.chance(shared.plan.refused_permille);
        let parted = match shared.node(conn, Side::Opener) {
            Some(Node::Link { gate, .. }) => self.parted_until_us[gate] > shared.now_us,
            _ => false,
        };
        match shared.to(conn) {
            // Nothing comes back: the opener waits until it has had enough.
            _ if parted => {}
            _ if refused => {
                if shared.random.chance(500) {
                    shared.answer(conn, None);
                }
            }
            Address::Backend => self.backend.connected(conn, shared),
            Address::Gate(gate) => {
                let gate = &mut self.gates[gate];
                if !gate.is_up() {
                    return shared.answer(conn, None);
                }
                let shard = shared.random.below(gate.shards.len() as u64) as usize;
                gate.shards[shard].happen(Happened::Accepted(conn), shared);
            }
        }
    }

    fn answered(&mut self, conn: ConnId, accepted: bool) {
        let shared = &mut self.shared;
        match shared.node(conn, Side::Opener) {
            Some(Node::Phone(phone)) => self.phones[phone].answered(conn, accepted, shared),
            Some(Node::Link { gate, shard, .. }) => {
                if let Some(shard) = self.gates[gate].shards.get_mut(shard) {
                    shard.happen(Happened::LinkAnswered { conn, accepted }, shared);
                }
            }
            _ => {}
        }
    }

    fn input(&mut self, conn: ConnId, node: Node, input: Input) {
        let shared = &mut self.shared;
        match node {
            Node::Phone(phone) => self.phones[phone].input(conn, input, shared),
            Node::Peer(peer) => self.backend.input(peer, input, shared),
            Node::Session { gate, shard, slot, generation } => {
                if let Some(shard) = self.gates[gate].shards.get_mut(shard) {
                    shard.happen(Happened::Phone { slot, generation, input }, shared);
                }
            }
            Node::Link { gate, shard, .. } => {
                if let Some(shard) = self.gates[gate].shards.get_mut(shard) {
                    shard.happen(Happened::Link { conn, input }, shared);
                }
            }
        }
    }

    /// A person sends something, sometimes a few things at once.
    fn act(&mut self, phone: usize) {
        if self.shared.is_calm {
            return;
        }
        let every_us = self.shared.plan.act_every_us;
        let from_us = self.shared.now_us.max(self.quiet_until_us);
        let at_us = from_us + self.shared.random.below(2 * every_us) + 1;
        self.shared.queue.push(at_us, Event::Act(phone));
        self.take_groups();
        if self.phones[phone].is_off || self.phones[phone].is_stuck() {
            return;
        }
        if self.shared.crowd.is_some() {
            return self.act_in_crowd(phone);
        }
        if self.groups_asked < self.shared.plan.groups && self.make_group(phone) {
            return;
        }
        for _ in 0..self.shared.random.spread(self.shared.plan.burst).max(1) {
            let to = self.receiver(phone);
            self.phones[phone].send(to, &mut self.shared);
        }
    }

    /// One of all services' deeds; before that, what makes the groups and contacts.
    fn act_in_crowd(&mut self, phone: usize) {
        let shared = &mut self.shared;
        let Some(crowd) = &mut shared.crowd else { return };
        if crowd.becomes_ready() {
            self.begin_deeds();
        } else if !crowd.is_ready() {
            return self.set_up(phone);
        }
        let Some(services) = self.shared.plan.services.clone() else { return };
        if self.shared.random.chance(services.log_out_permille) && self.log_out_another(phone) {
            return;
        }
        for _ in 0..self.shared.random.spread(self.shared.plan.burst).max(1) {
            let now_us = self.shared.now_us;
            let Some(id) = self.phones[phone].upload_id(&self.shared) else { return };
            let crowd = self.shared.crowd.as_mut().filter(|crowd| !crowd.is_leaving(phone));
            let Some(call) = crowd.and_then(|crowd| crowd.draw(phone, id, now_us)) else { return };
            self.phones[phone].call(call, &mut self.shared);
        }
    }

    fn set_up(&mut self, phone: usize) {
        while let Some(id) = self.phones[phone].upload_id(&self.shared) {
            let Some(call) = self.shared.crowd.as_mut().and_then(|crowd| crowd.set_up_call(phone, id)) else {
                return;
            };
            self.phones[phone].call(call, &mut self.shared);
        }
    }

    /// The set-up has ended. Before a long quiet some phones go to sleep, so that they wake behind the horizon.
    fn begin_deeds(&mut self) {
        let (load_us, quiet_us, now_us) =
            (self.shared.plan.load_us, self.shared.plan.quiet_us, self.shared.now_us);
        self.shared.note("groups and contacts are made", [0; 3]);
        self.load_until_us = now_us + load_us + quiet_us;
        self.shared.queue.push(self.load_until_us, Event::Calm);
        if quiet_us == 0 {
            return;
        }
        self.shared.queue.push(now_us + load_us / 2, Event::Quiet);
        for phone in 0..self.phones.len() {
            if self.shared.random.chance(300) && !self.phones[phone].is_off {
                self.phones[phone].switch_off(&mut self.shared);
            }
        }
    }

    /// A user logs another of its devices out, which has nothing to say any more.
    fn log_out_another(&mut self, phone: usize) -> bool {
        let user = self.phones[phone].user;
        let Some(crowd) = &self.shared.crowd else { return false };
        let is_good = |other: &&Phone| {
            other.user == user && other.index != phone && other.is_idle() && !crowd.is_leaving(other.index)
        };
        let others: Vec<(usize, u64)> =
            self.phones.iter().filter(is_good).map(|other| (other.index, other.device)).collect();
        if others.is_empty() || crowd.is_leaving(phone) {
            return false;
        }
        let (other, device) = self.shared.random.pick(&others);
        let Some(id) = self.phones[phone].upload_id(&self.shared) else { return false };
        let Some(call) = self.shared.crowd.as_mut().map(|crowd| crowd.log_out(other, device, id)) else {
            return false;
        };
        self.shared.note("phone {a} logs out phone {b}", [phone as u64, other as u64, 0]);
        self.phones[phone].call(call, &mut self.shared);
        true
    }

    fn receiver(&mut self, phone: usize) -> u64 {
        let user = self.phones[phone].user;
        let groups: Vec<u64> =
            self.groups.iter().filter(|group| group.members.contains(&user)).map(|group| group.id).collect();
        let random = &mut self.shared.random;
        if !groups.is_empty() && random.chance(self.shared.plan.to_group_permille) {
            return random.pick(&groups);
        }
        // Sometimes to oneself.
        FIRST_USER + random.below(self.shared.plan.users)
    }

    fn make_group(&mut self, phone: usize) -> bool {
        let user = self.phones[phone].user;
        let members = (FIRST_USER..FIRST_USER + self.shared.plan.users).filter(|&other| other != user);
        let members: Vec<u64> = members.collect();
        let members = members.into_iter().filter(|_| self.shared.random.chance(700)).collect();
        // One at a time: a phone knows its group by the members it asked for last.
        let is_free = self.phones[phone].is_idle();
        let asked = is_free && self.phones[phone].make_group(members, &mut self.shared);
        self.groups_asked += usize::from(asked);
        asked
    }

    fn take_groups(&mut self) {
        for phone in &mut self.phones {
            for group in std::mem::take(&mut phone.made) {
                self.shared.history.add_group(group.id, group.members.iter().copied());
                self.groups.push(group);
            }
        }
    }

    /// Load and faults are over; what is down comes back.
    fn calm(&mut self) {
        if std::mem::replace(&mut self.shared.is_calm, true) {
            return;
        }
        self.shared.note("load and faults end", [0; 3]);
        self.calm_us = self.shared.now_us;
        self.backend.disk.is_slow = false;
        self.backend.disk.unreadable_permille = 0;
        self.parted_until_us.fill(0);
        if self.shared.plan.tells_cuts {
            self.shared.tell_cut();
        }
        self.shared.queue.push(self.shared.now_us + limits::LOOK_EVERY_US, Event::Look);
    }

    /// All where it belongs? Then time runs on a little. Not so for too long? Then somebody waits for ever.
    fn look(&mut self) {
        self.take_groups();
        let now_us = self.shared.now_us;
        let waits = check::waits(self);
        if waits.is_empty() {
            let since_us = *self.good_us.get_or_insert(now_us);
            if now_us >= since_us + limits::AFTER_US {
                check::at_the_end(self);
                self.is_over = true;
                return;
            }
        } else {
            self.good_us = None;
            let cursors = self.phones.iter().map(|phone| phone.cursor().number);
            let progress = cursors.sum::<u64>() + self.shared.acknowledged();
            if progress > self.progress {
                self.progress = progress;
                self.calm_us = now_us;
            }
            let beats_us = match self.shared.plan.tells_cuts {
                true => 0,
                false => limits::BEATS * self.shared.plan.heartbeat_ms * 1000,
            };
            if now_us > self.calm_us + limits::CALM_US + beats_us {
                waits.into_iter().for_each(|words| self.shared.complain(words));
                check::at_the_end(self);
                self.is_over = true;
                return;
            }
        }
        self.shared.queue.push(now_us + limits::LOOK_EVERY_US, Event::Look);
    }
}
