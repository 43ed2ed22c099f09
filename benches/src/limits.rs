//! Every bound of the bench, and why it is what it is.

/// Phones on one ring, unless the descriptor limit allows fewer: more rings are more threads, and one thread
/// drives this many with room to spare.
pub const PHONES_OF_A_RING_MAX: usize = 19_000;

/// Descriptors of the limit that a ring's table leaves alone.
pub const DESCRIPTORS_RESERVED: usize = 256;

/// Connects of one thread whose WELCOME has not come: enough to keep a gateway's core busy, and all threads
/// together stay below its accept queue.
pub const CONNECTS_OPEN_MAX: usize = 128;

/// Connections from one source address: a fraction of the local ports, since the kernel's search for a free
/// one grows long in a full range.
pub const CONNECTIONS_OF_AN_ADDRESS: u32 = 10_000;

/// Source addresses are 127.1.x.1.
pub const SOURCE_ADDRESSES_MAX: u32 = 256;

/// Completions handled in one turn.
pub const COMPLETIONS_OF_A_TURN_MAX: usize = 2_048;

/// Timers that run in one turn; a heartbeat storm of 100 000 phones spreads over turns.
pub const TIMERS_OF_A_TURN_MAX: usize = 2_048;

/// Messages that one turn starts. At the highest rates a turn of 1 ms has a few dozen.
pub const STARTS_OF_A_TURN_MAX: usize = 1_024;

/// Submissions between two enters: what a turn of the bounds above queues.
pub const SUBMISSIONS: u32 = 8_192;
pub const COMPLETIONS: u32 = 32_768;

/// How often a full submission queue is submitted before the ring counts as stuck.
pub const SUBMIT_TRIES_MAX: u32 = 64;

/// Buffers that a thread receives into. An idle phone owns none.
pub const RECEIVE_BUFFERS: u32 = 2_048;
pub const RECEIVE_BUFFER_BYTES: u32 = 2_048;

/// A turn ends after this, so that commands are seen.
pub const TURN_MS: u64 = 10;

/// Messages of one run: the checker keeps 24 bytes of each.
pub const MESSAGES_MAX: u32 = 64 << 20;

/// Numbers of one group that the checker follows: a number beyond is damage, not load.
pub const GROUP_NUMBERS_MAX: u64 = 1 << 24;

/// Complaints that are printed; all are counted.
pub const COMPLAINTS_MAX: usize = 20;

/// All must be delivered within this after the end of the load.
pub const DELIVERED_WITHIN_MS: u64 = 10_000;

/// After all is delivered the bench listens this much longer for what comes twice.
pub const QUIET_MS: u64 = 500;

/// How long all phones may take to be welcomed, beyond what 2 000 a second take.
pub const SETUP_WITHIN_MS: u64 = 30_000;

/// How long groups may take to be made and seen.
pub const GROUPS_WITHIN_MS: u64 = 60_000;

/// Groups that one thread is making at once.
pub const GROUPS_IN_FLIGHT_MAX: usize = 32;

/// A message that starts later than this after its intended time is a late start.
pub const LATE_START_US: u64 = 10_000;

/// A message whose call ended without an answer is sent again, with the same id, after this.
pub const REPEAT_AFTER_MS: u64 = 250;

/// How long a spawned process may take to say that it is ready: a store may replay its journal.
pub const READY_WITHIN_MS: u64 = 150_000;

/// How long a spawned process may take to stop after SIGTERM.
pub const STOP_WITHIN_MS: u64 = 10_000;

/// What is read of an HTTP answer.
pub const HTTP_ANSWER_MAX: u64 = 4 << 20;
/// A gateway that counts the kernel's connections for its metrics takes longer the more there are.
pub const HTTP_WITHIN_MS: u64 = 5_000;

/// The end of a server's log that is shown when it fails.
pub const LOG_TAIL_BYTES: usize = 4 << 10;

/// What everybody is told: 100 bytes as a notice.
pub const BROADCAST_TEXT: &str =
    "To all who are moored here: this is a notice that stands in no log, and it goes to every phone.";
/// How long a notice may take to reach all phones.
pub const BROADCAST_WITHIN_MS: u64 = 120_000;

/// A storm: rest before it, and how long all may take to come back.
pub const STORM_REST_MS: u64 = 10_000;
pub const STORM_WITHIN_MS: u64 = 300_000;
/// How far the threads of the phones that are cut give way to those that measure: a tenth of their share of a core.
pub const STORM_NICENESS: u8 = 10;
/// The phones of another gateway keep their p99 below this, or below twice what it was.
pub const STORM_P99_MS: f64 = 20.0;
/// Reports of some 500 who came are far less than a call each.
pub const STORM_LOGIC_CALLS: f64 = 0.1;

/// Looks of a conductor that waits.
pub const LOOK_MS: u64 = 20;
/// A phone that has not beaten is waited for so long beyond its interval.
pub const BEAT_LATE_MS: u64 = 10_000;
/// Connections that a spawned gateway has room for beyond the phones: what comes and goes at once.
pub const ROOMS: u32 = 64;
/// Notices of one run.
pub const ROUNDS_MAX: u32 = 10_000;

/// Connections of the warm-up of `hold`.
pub const WARM_UP_CONNECTIONS: u32 = 1_000;

/// How long the gateway gets to let go of the warm-up's memory.
pub const SETTLE_MS: u64 = 1_500;
/// Looks at a server's memory until it no longer falls.
pub const SETTLE_ROUNDS_MAX: usize = 20;

/// A search for the highest rate begins here and gives up beyond the second.
pub const SEARCH_FROM: f64 = 1_000.0;
pub const SEARCH_TO: f64 = 1_000_000.0;
/// One trial, and the time after it in which all must be acknowledged and delivered.
pub const TRIAL_MS: u64 = 4_000;
pub const TRIAL_DRAIN_MS: u64 = 1_000;
/// Steps of the bisection: the answer is good to some 3 %.
pub const SEARCH_STEPS: u32 = 4;
/// A trial holds while 99 of 100 acknowledgements and deliveries come within this.
pub const TRIAL_P99_MS: u64 = 1_000;

/// The interactive phone: lines typed ahead, and names it remembers.
pub const TYPED_AHEAD_MAX: usize = 1_024;

/// A mixed run without a rate: changes a second.
pub const MIX_RATE: f64 = 1_000.0;
/// One of so many users has more than one device.
pub const USERS_OF_A_SECOND_DEVICE: u32 = 10;
/// A backend keeps routes of 8 devices of a user.
pub const DEVICES_OF_A_USER_MAX: u32 = 8;
/// Strangers stand behind the contacts in the circle; so many to each side.
pub const STRANGERS: u32 = 3;
/// One changing group for so many users, and the members that it begins with; nobody invites beyond the last.
pub const USERS_OF_A_CHANGING_GROUP: u32 = 20;
pub const CHANGING_GROUP_BEGINS_WITH: u32 = 8;
pub const CHANGING_GROUP_MEMBERS_MAX: usize = 24;
/// Set-up calls that one thread has out.
pub const SET_UP_IN_FLIGHT_MAX: usize = 256;
/// Own messages and moments that a user may still take back, and comments to be taken away.
pub const RECENT_MAX: usize = 32;
/// A message is taken back within this after its acknowledgement: well before the server's two minutes.
pub const RECALL_WITHIN_US: u64 = 60_000_000;
/// A recall that is refused later than this is late: the server's two minutes, but for the grain of clocks.
pub const RECALL_LATE_US: u64 = 119_000_000;
/// How many users are asked whether they can do a thing, and how often another kind is drawn when none can.
pub const USERS_ASKED_MAX: usize = 6;
pub const DRAWS_MAX: usize = 8;
/// At the end of a mixed run nothing may have come for this long.
pub const MIX_QUIET_MS: u64 = 2_000;
pub const NAMES_COMPLETED_MAX: usize = 10_000;
/// Lines that the prompt remembers from one start to the next.
pub const HISTORY_LINES_MAX: usize = 1_000;
/// Messages of a conversation that are shown, and what was said to a moment.
pub const SHOWN_MAX: usize = 20;

/// Points of a timeline: a long run merges neighbours, so that a report stays readable by a browser.
pub const TIMELINE_POINTS_MAX: usize = 3_600;
/// Seconds that threads may still add to: a thread that is held up hands over late.
pub const OPEN_SECONDS: usize = 4;
/// Looks, 2 ms apart, whether all threads have handed over: a turn ends after 10 ms.
pub const GATHER_LOOKS_MAX: usize = 250;
/// Phases of a run: a ramp has one a step. Each operation of a phase has 80 KiB of histogram.
pub const PHASES_MAX: usize = 128;

/// Calls of one phone in flight: what a gateway allows a phone (`proto_wire::limits::MAX_PHONE_CALLS_IN_FLIGHT`).
pub const CALLS_OF_A_PHONE_MAX: usize = proto_wire::limits::MAX_PHONE_CALLS_IN_FLIGHT;
/// Phones asked for a free place before a start waits for the next turn.
pub const PHONES_ASKED_MAX: usize = 16;
/// After a load its calls may be answered for so long.
pub const CALL_DRAIN_MS: u64 = 5_000;

/// A target is asked for a WELCOME before the run, and must give it within this.
pub const PROBE_WITHIN_MS: u64 = 3_000;
/// What is shown of an answer that is no Moorgate's.
pub const PROBE_SHOWN_BYTES: usize = 60;

/// Source addresses of a `--source` list.
pub const SOURCES_MAX: u64 = 1 << 24;

/// The load before a search, whose outcome is not looked at.
pub const FIND_WARM_UP_MS: u64 = 1_000;
/// A rate that held in a short trial and not in the long one is lowered by so much, so often.
pub const CONFIRM_STEP_DOWN: f64 = 0.95;
pub const CONFIRMATIONS_MAX: usize = 10;
/// Steps of a ramp: one phase each, beside the connecting ones.
pub const STEPS_MAX: usize = PHASES_MAX / 2 - 2;
