//! What a seed means: how many of everything, how slow, what goes wrong and how often. Each run leaves some kinds of
//! faults out, so that a fault that hides another is absent in some runs.

use benches::mixed::{self, Kind};

use super::limits;
use super::random::Random;

/// Kinds of faults, and how likely each is beside the others; 0: not in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weights {
    pub cut_phone: u64,
    pub cut_link: u64,
    pub hold_phone: u64,
    pub hold_link: u64,
    pub crash_backend: u64,
    pub crash_gate: u64,
    pub restart_phone: u64,
    pub switch_off: u64,
    pub slow_disk: u64,
    pub fail_commit: u64,
    pub race: u64,
    pub drain: u64,
    pub part: u64,
    pub unreadable: u64,
}

/// What a run of all services has beyond that.
#[derive(Debug, Clone)]
pub struct Services {
    /// Contacts of a user to each side.
    pub neighbours: u64,
    pub weights: mixed::Weights,
    /// Of what is done a device's log-out.
    pub log_out_permille: u64,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub gates: usize,
    pub shards: usize,
    pub users: u64,
    /// Devices of a user at most.
    pub devices: u64,
    pub groups: usize,
    pub partitions: u16,
    pub hot_bytes: usize,
    pub heartbeat_ms: u64,
    pub phone_delay_us: (u64, u64),
    pub link_delay_us: (u64, u64),
    pub read_delay_us: u64,
    /// A turn of a loop takes along what came within this.
    pub turn_us: u64,
    pub commit_us: (u64, u64),
    /// What a slow disk adds at most.
    pub slow_us: u64,
    pub disk_read_us: (u64, u64),
    /// From the end of something in the store to the word of it.
    pub told_us: u64,
    pub split_permille: u64,
    /// A connect that is refused or never answered.
    pub refused_permille: u64,
    /// Of a death or a cut a side does not learn.
    pub untold_permille: u64,
    pub unacknowledged_us: u64,
    /// A phone's person waits up to this between two messages.
    pub act_every_us: u64,
    /// Messages sent at once, at most.
    pub burst: u64,
    pub to_group_permille: u64,
    pub fault_every_us: u64,
    pub weights: Weights,
    /// In the midst of it all phones are off for so long; 0: they are not.
    pub quiet_us: u64,
    /// Load and faults last so long.
    pub load_us: u64,
    /// At the end cuts that were not noticed are made known, so that all must be well without a beat.
    pub tells_cuts: bool,
    pub sync_on_connect: bool,
    pub pull_max_changes: u32,
    pub services: Option<Services>,
    /// Rows of a log that stay as written, whatever their age.
    pub horizon: Option<u64>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        // Apart from the run's own source, so that a plan can grow without another run.
        let mut random = Random::new(seed ^ 0x706c_616e);
        let r = &mut random;
        let tells_cuts = r.chance(700);
        let mut weight = |most: u64| if r.chance(500) { r.between(1, most) } else { 0 };
        let weights = Weights {
            cut_phone: weight(20),
            cut_link: weight(6),
            hold_phone: weight(12),
            hold_link: weight(8),
            crash_backend: weight(8),
            crash_gate: weight(6),
            restart_phone: weight(8),
            switch_off: weight(8),
            slow_disk: weight(6),
            fail_commit: weight(4),
            race: weight(8),
            drain: weight(3),
            part: weight(4),
            unreadable: weight(3),
        };
        let delay = |r: &mut Random, most: u64| {
            let from = r.spread(most);
            (from, from + r.spread(most))
        };
        let users = r.between(2, 8);
        let plan = Self {
            gates: r.between(1, 3) as usize,
            shards: r.between(1, 2) as usize,
            users,
            // Many devices of few users: a run stays small.
            devices: if users <= 3 { r.pick(&[1, 2, 8]) } else { r.between(1, 2) },
            groups: r.below(4) as usize,
            partitions: r.pick(&[1, 1, 2, 4]),
            hot_bytes: r.pick(&[0, 2_000, 32 << 20, 32 << 20]),
            heartbeat_ms: if tells_cuts { 600_000 } else { r.pick(&[10_000, 30_000, 60_000]) },
            phone_delay_us: delay(r, 200_000),
            link_delay_us: delay(r, 20_000),
            read_delay_us: 1 + r.spread(5_000),
            turn_us: 1 + r.spread(3_000),
            slow_us: r.pick(&[500_000, 3_000_000, 20_000_000]),
            commit_us: delay(r, 30_000),
            disk_read_us: delay(r, 30_000),
            told_us: 1 + r.spread(30_000),
            split_permille: r.pick(&[0, 50, 300, 700]),
            refused_permille: r.pick(&[0, 0, 50, 200]),
            untold_permille: r.pick(&[0, 200, 500, 1000]),
            unacknowledged_us: r.pick(&[5_000_000, 60_000_000]),
            act_every_us: r.pick(&[300_000, 1_000_000, 4_000_000]),
            burst: r.pick(&[1, 4, 4, 4, 4, 40]),
            to_group_permille: r.pick(&[100, 300, 700]),
            fault_every_us: r.pick(&[200_000, 1_000_000, 3_000_000]),
            weights,
            quiet_us: if r.chance(150) { r.between(60, 2_000) * 1_000_000 } else { 0 },
            load_us: r.pick(&[3_000_000, 8_000_000, 20_000_000, 40_000_000]),
            tells_cuts,
            sync_on_connect: r.chance(200),
            pull_max_changes: r.pick(&[0, 0, 1, 3]),
            services: None,
            horizon: None,
        };
        if r.chance(400) { plan.with_services(r) } else { plan }
    }

    fn with_services(mut self, r: &mut Random) -> Self {
        let mut weights = String::new();
        for kind in Kind::ALL {
            let most = match kind {
                Kind::Message | Kind::GroupMessage => &[1, 5, 20],
                // What can seldom be done.
                Kind::Accept | Kind::Comment | Kind::Like | Kind::Unsay | Kind::Mark => &[1, 8, 20],
                _ => &[0, 1, 4],
            };
            weights += &format!("{} = {}\n", kind.name(), r.pick(most));
        }
        self.users = r.between(4, 8);
        self.devices = r.between(1, 3);
        self.groups = 0;
        self.services = Some(Services {
            neighbours: r.between(1, 2),
            // Messages always have a weight.
            weights: mixed::Weights::parse(&weights).unwrap_or_default(),
            log_out_permille: r.pick(&[0, 10, 50]),
        });
        if r.chance(500) {
            self.horizon = Some(r.pick(&[1, 5, 20]));
            self.quiet_us = limits::HORIZON_QUIET_US;
        }
        self
    }
}
