//! The event loop of one core: accept, receive, send, close, timers, mailbox. Moves bytes, decides nothing.
//!
//! A shard is a value: [`Shard::turn`] runs one turn and nothing of it lives in a thread-local. It shares nothing
//! with other shards but its mailbox, its counters and tables that are swapped whole.

mod accept;
pub mod addresses;
mod broadcast;
mod close;
pub mod counters;
mod gather;
mod links;
mod receive;
mod send;
pub mod sessions;
pub mod slab;
mod streams;
pub mod table;
mod thread;
mod turn;
pub mod wheel;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use gateway_ring::{
    BufferRing, BufferRingError, Doorbell, EnterError, Family, Full, ListenError, ListenOptions, PollEvents,
    Ring, RingConfig, SetupError, StreamOptions, Token, listener,
};
use proto_wire::close::Reason;
use proto_wire_token::Verify;

use crate::config::Limits;
use crate::limits;
use crate::upstream::Link;
use addresses::Addresses;
use counters::Counters;
use links::LinkIo;
use sessions::Desk;
use table::Table;

pub use broadcast::{Mailbox, Peers};
pub use thread::{ShardHandle, SpawnError, spawn};

/// The keys that tokens are checked with, as shards share them.
pub type SharedVerify = Arc<dyn Verify + Send + Sync>;

/// What a shard is made with.
pub struct ShardConfig {
    pub index: u16,
    /// How many the gateway has: each keeps its share of what an address may do.
    pub shards: u16,
    /// The core that its thread is pinned to.
    pub core: Option<usize>,
    /// This gateway process.
    pub gateway: u64,
    pub max_connections: u32,
    pub listen: SocketAddr,
    pub backends: Vec<SocketAddr>,
    pub limits: Arc<Limits>,
    pub verifier: SharedVerify,
    pub counters: Arc<Counters>,
    /// Where refusals are told.
    pub refusals: SyncSender<RefusalLine>,
    /// The mailboxes of all shards.
    pub peers: Peers,
    /// Feeds jitter only.
    pub seed: u64,
}

/// What the control thread asks of a shard.
pub enum Command {
    /// Stop accepting; ask every phone to go elsewhere, spread over this time.
    Drain { over_ms: u64 },
    /// Close everything and end within this time.
    Stop { grace_ms: u64 },
    /// Check tokens with these keys from now on.
    ReloadKeys(SharedVerify),
    /// Hand this EVENT frame to every phone.
    Broadcast(bytes::Bytes),
}

/// A refused connection, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalLine {
    pub peer: Option<SocketAddr>,
    pub reason: Reason,
    pub text: String,
    /// The first bytes of what came last.
    pub first: Vec<u8>,
    /// Refusals before this one that were not told.
    pub suppressed: u64,
}

/// Bits of `Session::io`, the shard's own.
pub mod io {
    /// A send is in flight.
    pub const SENDING: u8 = 1;
    /// A receive is in flight or queued.
    pub const RECEIVING: u8 = 2;
    /// More may be there than that receive takes.
    pub const RECEIVE_AGAIN: u8 = 4;
    /// An empty beat is to be sent.
    pub const BEAT: u8 = 8;
    /// Stands in the list of those with something to send.
    pub const DIRTY: u8 = 16;
    /// Its applied number waits for a report.
    pub const APPLIED_WAITS: u8 = 32;
    /// The poll is armed.
    pub const ARMED: u8 = 64;
    /// Its receive stays armed, in place of the poll.
    pub const STREAMS: u8 = 128;
}

/// What completions are of.
mod op {
    pub const ACCEPT: u8 = 1;
    pub const POLL: u8 = 2;
    pub const RECEIVE: u8 = 3;
    pub const SEND: u8 = 4;
    pub const CLOSE: u8 = 5;
    pub const PEER: u8 = 6;
    pub const DOORBELL: u8 = 7;
    pub const LINK_CONNECT: u8 = 8;
    pub const LINK_RECEIVE: u8 = 9;
    pub const LINK_SEND: u8 = 10;
    pub const LINK_CLOSE: u8 = 11;
    pub const STREAM: u8 = 12;
    pub const CAME: u8 = 13;
    pub const FAILED_HELLO: u8 = 14;
}

/// Why a shard cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Ring(#[from] SetupError),
    #[error(transparent)]
    Buffers(#[from] BufferRingError),
    #[error("no memory for a new shard's first requests")]
    Full(#[from] Full),
    #[error("an eventfd cannot be made: {0}")]
    Doorbell(std::io::Error),
}

/// The event loop.
pub struct Shard {
    pub(self) ring: Ring,
    pub(self) listener: TcpListener,
    pub(self) family: Family,
    /// Whether the accept is armed, and whether it should be.
    pub(self) accept_armed: bool,
    pub(self) accepting: bool,
    pub(self) max_connections: u32,
    pub(self) phone_buffers: BufferRing,
    pub(self) link_buffers: BufferRing,
    /// The sessions, and what they act on.
    pub(self) table: Table,
    pub(self) link_io: Vec<LinkIo>,
    pub(self) peers: Peers,
    pub(self) broadcasts: broadcast::Broadcasts,
    pub(self) streams: streams::Streams,
    /// Sessions whose receive waits for a buffer.
    pub(self) to_receive: VecDeque<(u32, u32)>,
    pub(self) refusals: Vec<close::PendingRefusal>,
    pub(self) refusal_lines: SyncSender<RefusalLine>,
    pub(self) refusals_told: close::PerSecond,
    /// What addresses did, where they are limited, and how many are being asked for.
    pub(self) addresses: Option<Addresses>,
    pub(self) names_in_flight: u32,
    pub(self) told_off: close::PerSecond,
    pub(self) suppressed: u64,
    pub(self) mailbox: Receiver<Command>,
    pub(self) doorbell: Doorbell,
    pub(self) start: Instant,
    pub(self) gather: gather::Gather,
    pub(self) life: turn::Life,
    /// Work was left over by a bound: do not wait.
    pub(self) hurry: bool,
}

impl Shard {
    /// Makes the shard on the thread that will run it.
    pub fn new(
        config: ShardConfig,
        mailbox: Receiver<Command>,
        doorbell: Doorbell,
    ) -> Result<Self, ShardError> {
        let accept_slots = config.max_connections + limits::RESERVE_SLOTS;
        let link_slots = config.backends.len() as u32;
        let mut ring = Ring::new(RingConfig {
            sq_entries: limits::SUBMISSIONS,
            cq_entries: limits::COMPLETIONS,
            direct_slots: accept_slots + link_slots,
            automatic_slots: Some(0..accept_slots),
            in_flight_max: accept_slots + link_slots + limits::NAMES_IN_FLIGHT_MAX + 64,
        })?;
        let phone_buffers = ring.buffer_ring(limits::RECEIVE_BUFFERS, limits::RECEIVE_BUFFER_BYTES)?;
        let link_buffers = ring.buffer_ring(limits::UPSTREAM_BUFFERS, limits::UPSTREAM_BUFFER_BYTES)?;
        let listener = listener(config.listen, &listen_options(&config.limits))?;
        ring.poll_multi(std::os::fd::AsFd::as_fd(&doorbell), PollEvents::IN, Token::new(op::DOORBELL, 0, 0))?;
        let addresses = Addresses::new(&config.limits.addresses, config.shards, &config.listen);
        let gather = gather::Gather::new(config.limits.gather_us);
        let link_io = config
            .backends
            .iter()
            .enumerate()
            .map(|(at, &addr)| LinkIo::new(accept_slots + at as u32, addr))
            .collect();
        let new_link = |_| Some(Box::new(Link::new(config.gateway, config.index, config.seed)));
        let links = config.backends.iter().map(new_link).collect();
        Ok(Self {
            ring,
            listener,
            family: Family::of(&config.listen),
            accept_armed: false,
            accepting: true,
            max_connections: config.max_connections,
            phone_buffers,
            link_buffers,
            table: Table::new(Desk::new(
                config.gateway,
                config.index,
                config.limits,
                config.verifier,
                config.counters,
                links,
            )),
            link_io,
            peers: config.peers,
            broadcasts: broadcast::Broadcasts::default(),
            streams: streams::Streams::default(),
            to_receive: VecDeque::new(),
            refusals: Vec::new(),
            refusal_lines: config.refusals,
            refusals_told: close::PerSecond::default(),
            addresses,
            names_in_flight: 0,
            told_off: close::PerSecond::default(),
            suppressed: 0,
            mailbox,
            doorbell,
            start: Instant::now(),
            gather,
            life: turn::Life::Running,
            // The links wait for the first turn to connect.
            hurry: true,
        })
    }

    /// Where it listens; the port is the kernel's choice when 0 was asked for.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Queues a request, making room when the queue is full. False: it was left out.
    pub(self) fn queue(&mut self, mut request: impl FnMut(&mut Ring) -> Result<(), Full>) -> bool {
        // One submit empties the queue; the kernel pushing back twice in a row leaves the request out, and the
        // connection to its timers.
        for _ in 0..3 {
            if request(&mut self.ring).is_ok() {
                return true;
            }
            let _: Result<_, EnterError> = self.ring.submit();
        }
        false
    }
}

fn listen_options(limits: &Limits) -> ListenOptions {
    ListenOptions {
        reuse_port: true,
        stream: StreamOptions {
            nodelay: true,
            user_timeout_ms: Some(limits.user_timeout_ms),
            ..StreamOptions::default()
        },
        ..ListenOptions::default()
    }
}
