//! What goes wrong, when, and to whom.

use super::gate::Happened;
use super::limits;
use super::queue::Event;
use super::world::World;

impl World {
    /// One fault, and the time of the next.
    pub(super) fn fault(&mut self) {
        if self.shared.is_calm {
            return;
        }
        let every_us = self.shared.plan.fault_every_us;
        let from_us = self.shared.now_us.max(self.quiet_until_us);
        let at_us = from_us + self.shared.random.below(2 * every_us) + 1;
        self.shared.queue.push(at_us, Event::Fault);
        let w = self.shared.plan.weights;
        let faults: [(u64, fn(&mut Self)); 14] = [
            (w.cut_phone, Self::cut_phone),
            (w.cut_link, Self::cut_link),
            (w.hold_phone, Self::hold_phone),
            (w.hold_link, Self::hold_link),
            (w.crash_backend, Self::crash_backend),
            (w.crash_gate, Self::crash_gate),
            (w.restart_phone, Self::restart_phone),
            (w.switch_off, Self::switch_off),
            (w.slow_disk, Self::slow_disk),
            (w.fail_commit, Self::fail_commit),
            (w.race, Self::race),
            (w.drain, Self::drain),
            (w.part, Self::part),
            (w.unreadable, Self::unreadable),
        ];
        self.shared.count("faults", 1);
        let mut at = self.shared.random.below(faults.iter().map(|(weight, _)| weight).sum());
        for (weight, fault) in faults {
            if at < weight {
                return fault(self);
            }
            at -= weight;
        }
    }

    fn any_phone(&mut self) -> usize {
        self.shared.random.below(self.phones.len() as u64) as usize
    }

    fn cut_phone(&mut self) {
        let phone = self.any_phone();
        let Some(conn) = self.phones[phone].conn() else { return };
        let [opener, acceptor] = self.who_learns();
        self.shared.note(
            "the path of phone {a} is cut; it learns {b}, its gateway {c}",
            [phone as u64, u64::from(opener), u64::from(acceptor)],
        );
        self.shared.cut(conn, opener, acceptor);
    }

    fn who_learns(&mut self) -> [bool; 2] {
        let untold = self.shared.plan.untold_permille;
        [(); 2].map(|()| !self.shared.random.chance(untold))
    }

    fn any_link(&mut self) -> Option<usize> {
        let gate = self.shared.random.below(self.gates.len() as u64) as usize;
        let shards = &self.gates[gate].shards;
        let shard = self.shared.random.below(shards.len() as u64) as usize;
        shards.get(shard)?.link()
    }

    fn cut_link(&mut self) {
        let Some(conn) = self.any_link() else { return };
        let [opener, acceptor] = self.who_learns();
        let numbers = [conn as u64, u64::from(opener), u64::from(acceptor)];
        self.shared.note("link {a} is cut; the gateway learns {b}, the backend {c}", numbers);
        self.shared.cut(conn, opener, acceptor);
    }

    fn hold_phone(&mut self) {
        let phone = self.any_phone();
        let Some(conn) = self.phones[phone].conn() else { return };
        let lag_us = self.shared.random.spread(40_000_000);
        self.shared.note("phone {a} is held up for {b} us", [phone as u64, lag_us, 0]);
        self.shared.hold_up(conn, lag_us);
    }

    fn hold_link(&mut self) {
        let Some(conn) = self.any_link() else { return };
        let lag_us = self.shared.random.spread(15_000_000);
        self.shared.note("link {a} is held up for {b} us", [conn as u64, lag_us, 0]);
        self.shared.hold_up(conn, lag_us);
    }

    pub(super) fn crash_backend(&mut self) {
        if !self.backend.is_up() {
            return;
        }
        self.backend.crash(&mut self.shared);
        let at_us = self.shared.now_us + self.shared.random.spread(8_000_000);
        self.shared.queue.push(at_us, Event::BackendStarts);
    }

    fn crash_gate(&mut self) {
        let gate = self.shared.random.below(self.gates.len() as u64) as usize;
        if !self.gates[gate].is_up() {
            return;
        }
        self.gates[gate].crash(&mut self.shared);
        let at_us = self.shared.now_us + self.shared.random.spread(40_000_000);
        self.shared.queue.push(at_us, Event::GateStarts(gate));
    }

    fn restart_phone(&mut self) {
        let phone = self.any_phone();
        if !self.phones[phone].is_off {
            self.shared.note("phone {a} is started anew", [phone as u64, 0, 0]);
            self.phones[phone].restart(&mut self.shared);
        }
    }

    fn switch_off(&mut self) {
        let phone = self.any_phone();
        if self.phones[phone].is_off {
            return;
        }
        let for_us = self.shared.random.spread(60_000_000);
        self.shared.note("phone {a} is switched off for {b} us", [phone as u64, for_us, 0]);
        self.phones[phone].switch_off(&mut self.shared);
        self.shared.queue.push(self.shared.now_us + for_us, Event::SwitchOn(phone));
    }

    fn slow_disk(&mut self) {
        self.backend.disk.is_slow = !self.backend.disk.is_slow;
        self.shared.note("the disk is slow: {a}", [u64::from(self.backend.disk.is_slow), 0, 0]);
    }

    /// Reads fail, until they do not.
    fn unreadable(&mut self) {
        let permille = self.shared.random.pick(&[0, 0, 30, 300, 1000]);
        self.shared.note("of a thousand reads {a} fail", [permille, 0, 0]);
        self.backend.disk.unreadable_permille = permille;
    }

    fn fail_commit(&mut self) {
        let partition = self.shared.random.below(u64::from(self.shared.plan.partitions)) as u16;
        let life = self.backend.life;
        if self.backend.is_up() && self.backend.disk.fail(partition, life, &mut self.shared) {
            self.shared.note("commits of partition {a} fail", [u64::from(partition), 0, 0]);
        }
    }

    fn race(&mut self) {
        let phone = self.any_phone();
        if !self.phones[phone].is_off {
            self.shared.note("phone {a} connects beside itself", [phone as u64, 0, 0]);
            self.phones[phone].race(&mut self.shared);
        }
    }

    /// A gateway and the backend cannot reach each other for a while, and learn of it by their own means.
    fn part(&mut self) {
        let gate = self.shared.random.below(self.gates.len() as u64) as usize;
        let for_us = self.shared.random.spread(90_000_000);
        self.shared.note("gateway {a} and the backend are parted for {b} us", [gate as u64, for_us, 0]);
        self.parted_until_us[gate] = self.shared.now_us + for_us;
        for shard in &self.gates[gate].shards {
            if let Some(conn) = shard.link() {
                self.shared.cut(conn, false, false);
            }
        }
    }

    /// Everybody sleeps: what is in memory for the phones' sake may go.
    pub(super) fn quiet(&mut self) {
        let for_us = self.shared.plan.quiet_us;
        self.shared.note("all phones are off for {a} us", [for_us, 0, 0]);
        self.quiet_until_us = self.shared.now_us + for_us;
        if self.shared.plan.horizon.is_some() {
            // Each start walks over all users: the first of these notes how far logs are, the second moves horizons there.
            for walk in 1..=2 {
                let at_us = self.shared.now_us + walk * limits::HORIZON_WALK_US;
                self.shared.queue.push(at_us, Event::BackendCrashes);
            }
        }
        for phone in 0..self.phones.len() {
            self.phones[phone].switch_off(&mut self.shared);
            let on_us = self.quiet_until_us + self.shared.random.below(2_000_000);
            self.shared.queue.push(on_us, Event::SwitchOn(phone));
        }
    }

    fn drain(&mut self) {
        let gate = self.shared.random.below(self.gates.len() as u64) as usize;
        self.shared.note("gateway {a} sends its phones away", [gate as u64, 0, 0]);
        for shard in &mut self.gates[gate].shards {
            shard.happen(Happened::Drain, &mut self.shared);
        }
    }
}
