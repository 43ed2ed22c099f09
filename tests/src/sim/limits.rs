//! Every bound of the simulator, and why.

/// Lines that a failure shows.
pub const LAST_LINES: usize = 60;

/// Complaints kept in words.
pub const COMPLAINTS_MAX: usize = 30;

/// A run of the usual length has some 100 000 events; one that has this many goes in circles.
pub const EVENTS_MAX: u64 = 20_000_000;

/// How often the end of a run is looked for.
pub const LOOK_EVERY_US: u64 = 500_000;

/// After all is where it belongs time runs on, longer than any call: nothing may come that was not wanted, and nothing may
/// be left over.
pub const AFTER_US: u64 = 20_000_000;

/// Within this everything must have come when ends that were not noticed were made known: the longest back-off of a
/// phone (60 s), its attempts (15 s each), two sweeps of the backend (60 s each), and as much again.
pub const CALM_US: u64 = 400_000_000;

/// What a phone's beat adds when it has to notice by itself that its path is dead.
pub const BEATS: u64 = 3;

/// Slots of a shard; phones are far fewer.
pub const SLOTS: u32 = 4096;

/// The wall clock at the beginning of every run: 2026-01-01.
pub const UNIX_MS: u64 = 1_767_225_600_000;

/// A machine's clock does not begin at 0.
pub const START_US: u64 = 1_000_000;

/// Uploads that a phone's program has out at once: more than may be in flight, and more than may wait in the machine.
pub const UPLOADS_OUT: usize = 80;

/// With so many more nobody types on.
pub const OUTBOX_MAX: usize = 100;

/// How many kinds of deeds are drawn when nobody can do the first.
pub const DRAWS_MAX: usize = 8;

/// Contacts and groups are made within this, whatever goes wrong; else the run ends without deeds.
pub const SET_UP_US: u64 = 900_000_000;

/// Rows older than this go behind a horizon: longer than a message may be taken back, and than duties take.
pub const HORIZON_AGE_MS: u64 = 600_000;

/// Between two walks over all users that are to move horizons: the rows' age, and the time of a walk.
pub const HORIZON_WALK_US: u64 = 700_000_000;

/// So long all phones are off in a run with a horizon: two such walks.
pub const HORIZON_QUIET_US: u64 = 1_500_000_000;
