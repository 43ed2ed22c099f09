//! Every bound of the adapters and of the comparison, and why it is what it is.

/// The largest message that a peer may send us: what the benches send is below a tenth of it.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The longest line of a text protocol: NATS allows 4 KiB for a control line, its INFO is longer.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// The head of the answer to a WebSocket upgrade, as browsers bound it.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;

/// Echoes of one raw connection that are out: a schedule keeps one.
pub const ECHOES_OUT_MAX: usize = 1_024;

/// From the connect to the protocol's word that we are in: storms of thousands wait for one core.
pub const CONNECT_WITHIN_MS: u64 = 15_000;
pub const GREET_WITHIN_MS: u64 = 15_000;

/// What is shown of bytes that are no answer.
pub const SHOWN_BYTES: usize = 24;

/// Clients that are asked for a free place before a start counts as dropped.
pub const CLIENTS_ASKED_MAX: usize = 16;

/// Gateways' shards that a stand-in serves: one of one core, and a few while one comes after the other.
pub const LINKS_MAX: usize = 64;
pub const READ_BYTES: usize = 256 << 10;
pub const READS_OF_A_TURN_MAX: usize = 4;
/// Bytes that wait for a gateway that does not read.
pub const OUT_BYTES_MAX: usize = 64 << 20;
/// Calls of a gateway at once: more than its clients have out.
pub const CREDIT: u32 = 65_536;
/// Slots of a shard that are looked up by number: the kernel's own bound.
pub const SLOTS_MAX: usize = 1 << 20;
pub const TELL_EVERY_MS: u8 = 1;
pub const TOLD_OF_A_TURN_MAX: usize = 16_384;
/// News and notices of one call: it stays below the RPC's 4 MiB with 1 KiB each.
pub const NEWS_OF_A_CALL_MAX: usize = 1_000;
pub const NEWS_WAITING_MAX: usize = 1 << 20;
pub const CHANGES_OF_A_PAGE_MAX: u64 = 64;

/// From the start of a server until its port answers, and from SIGTERM until it is killed.
pub const LISTEN_WITHIN_MS: u64 = 15_000;
pub const END_WITHIN_MS: u64 = 5_000;

/// How long the bench's turns gather what came.
pub const GATHER_US: u64 = 50;
/// How long all clients of a side may take to be let in.
pub const CONNECT_ALL_WITHIN_MS: u64 = 60_000;
/// From an order to its first start, from there to the first reading, and from the last reading to the other side.
pub const ROUND_AHEAD_MS: u64 = 60;
pub const ROUND_SETTLE_MS: u64 = 300;
pub const ROUND_DRAIN_MS: u64 = 250;
/// A round of the search for the highest rate.
pub const SEARCH_ROUND_MS: u64 = 1_000;
/// Starts that a round holds at least, where each leads to thousands of deliveries.
pub const STARTS_OF_A_ROUND_MIN: f64 = 4.0;
pub const SEARCH_STEPS_MAX: u32 = 24;
/// A rate is driven when so much of what the schedule wanted is done.
pub const DRIVEN_SHARE: f64 = 0.97;
/// Of the highest rate of the weaker side: a little air, so that both sides do the same.
pub const RATE_SHARE: f64 = 0.9;
/// A generator beyond this was the limit.
pub const BENCH_BUSY_MAX: f64 = 0.95;
