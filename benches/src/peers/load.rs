//! What the clients do: an open-loop schedule, the same for every protocol. One order runs at a time, so that two
//! fleets can take turns while all their connections stand.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::client::{Client, PeerEvent};
use super::limits;
use super::wire::{Ask, Who, Wire};
use crate::fleet::{App, Now, Phones};
use crate::identity::Identities;
use crate::limits::STARTS_OF_A_TURN_MAX;
use crate::measure::{Arrival, Arrivals, Op, Recorder, Tape};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Heartbeats, each of the next connection.
    Ping,
    /// A message that comes back, one a connection at a time.
    Echo,
    /// Each connection tells its own topic; `acknowledged`: done when the server says that it has it, else when the
    /// message is back.
    Publish { acknowledged: bool },
    /// The last connection tells all.
    Fanout,
    /// The last connection tells the topic of one connection after another, among the first `of`; `burst` messages to one
    /// before the next.
    Pieces { of: u32, burst: u32 },
    /// Nothing is asked: what comes is counted.
    Listen,
}

/// What is done from when to when.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub work: Work,
    pub rate: f64,
    pub arrival: Arrival,
    pub from_us: u64,
    pub until_us: u64,
}

/// The conductor's end: orders down, counts up.
#[derive(Debug)]
pub struct Orders {
    pub recorder: Arc<Recorder>,
    order: Mutex<Option<Order>>,
    version: AtomicU32,
    pub asked: AtomicU64,
    /// Answers, acknowledgements and messages that came: with a fan-out one for each that was reached.
    pub done: AtomicU64,
    /// Pieces of news that were fetched.
    pub pieces: AtomicU64,
    pub dropped: AtomicU64,
    pub refused: AtomicU64,
}

/// The names of what is recorded, in the order of [`Op`].
pub const OPERATIONS: [&str; 1] = ["request"];
const REQUEST: Op = 0;

impl Orders {
    pub fn new() -> Arc<Self> {
        let recorder = Arc::new(Recorder::new(&OPERATIONS));
        recorder.begin_phase("load", 0);
        Arc::new(Self {
            recorder,
            order: Mutex::new(None),
            version: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// From now on this is done, and nothing of what was before.
    pub fn give(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn current(&self) -> Option<Order> {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who the clients are.
#[derive(Debug, Clone)]
pub struct Cast {
    /// All of them, the one that tells others included.
    pub clients: u32,
    /// The last one only tells others.
    pub has_teller: bool,
    /// All hear [`TOPIC_OF_ALL`].
    pub all_hear: bool,
    /// Each hears its own topic.
    pub each_hears: bool,
    pub host: String,
    pub path: String,
    /// Those of Moorgate bring a token.
    pub who: Option<Identities>,
    pub payload_bytes: usize,
}

pub const TOPIC_OF_ALL: &str = "moorgate/bench/all";

fn own_topic(number: u32) -> String {
    format!("moorgate/bench/{number}")
}

impl Cast {
    fn who(&self, number: u32) -> Who {
        let is_teller = self.has_teller && number + 1 == self.clients;
        let mut topics = Vec::new();
        if !is_teller && self.all_hear {
            topics.push(TOPIC_OF_ALL.to_owned());
        }
        if !is_teller && self.each_hears {
            topics.push(own_topic(number));
        }
        Who { number, topics, host: self.host.clone(), path: self.path.clone() }
    }
}

/// The clients of one thread.
pub struct Load<W> {
    orders: Arc<Orders>,
    cast: Arc<Cast>,
    range: Range<u32>,
    version: u32,
    order: Option<(Order, Arrivals)>,
    /// The intended time of what each has out; 0: nothing.
    out_us: Vec<u64>,
    /// Whose turn it is, counted through rounds.
    next: u64,
    payload: Vec<u8>,
    topic: String,
    tape: Tape,
    _wire: std::marker::PhantomData<fn() -> W>,
}

impl<W: Wire> Load<W> {
    pub fn new(orders: &Arc<Orders>, cast: &Arc<Cast>, range: Range<u32>) -> Self {
        Self {
            orders: orders.clone(),
            cast: cast.clone(),
            version: 0,
            order: None,
            out_us: vec![0; range.len()],
            next: 0,
            payload: vec![b'.'; cast.payload_bytes],
            topic: String::new(),
            tape: Tape::new(&orders.recorder),
            range,
            _wire: std::marker::PhantomData,
        }
    }

    fn take_order(&mut self) {
        let version = self.orders.version.load(Ordering::Acquire);
        if version == self.version {
            return;
        }
        self.version = version;
        self.out_us.fill(0);
        self.order = self.orders.current().map(|order| {
            let share = match order.work {
                Work::Listen => 0.0,
                Work::Fanout | Work::Pieces { .. } => {
                    f64::from(u8::from(self.range.end == self.cast.clients))
                }
                Work::Ping | Work::Echo | Work::Publish { .. } => {
                    self.range.len() as f64 / f64::from(self.cast.clients.max(1))
                }
            };
            // Without a share nothing starts: the time is over before it begins.
            let until_us = if share > 0.0 { order.until_us } else { 0 };
            let seed = u64::from(self.range.start);
            (order, Arrivals::new(order.arrival, order.rate * share, order.from_us, until_us, seed))
        });
    }

    /// Starts one thing. False: nobody was free for it.
    fn start(&mut self, work: Work, intended_us: u64, phones: &mut Phones<'_, Client<W>>) -> bool {
        match work {
            Work::Fanout => {
                self.stamp(intended_us);
                let ask = Ask::Publish { topic: TOPIC_OF_ALL, payload: &self.payload, acknowledged: false };
                phones.phone(self.cast.clients - 1).ask(&ask)
            }
            Work::Pieces { of, burst } => {
                self.stamp(intended_us);
                let number = (self.next / u64::from(burst.max(1)) % u64::from(of.max(1))) as u32;
                self.next += 1;
                self.topic.clear();
                let _ = std::fmt::Write::write_fmt(&mut self.topic, format_args!("moorgate/bench/{number}"));
                let ask = Ask::Publish { topic: &self.topic, payload: &self.payload, acknowledged: false };
                phones.phone(self.cast.clients - 1).ask(&ask)
            }
            Work::Ping | Work::Echo | Work::Publish { .. } => self.start_with_next(work, intended_us, phones),
            Work::Listen => false,
        }
    }

    /// The next client that has nothing out, of a few.
    fn start_with_next(&mut self, work: Work, intended_us: u64, phones: &mut Phones<'_, Client<W>>) -> bool {
        for _ in 0..limits::CLIENTS_ASKED_MAX {
            let at = (self.next % self.out_us.len().max(1) as u64) as usize;
            self.next += 1;
            if self.out_us[at] != 0 {
                continue;
            }
            let number = self.range.start + at as u32;
            let client = phones.phone(number);
            let is_asked = match work {
                Work::Ping => client.ask(&Ask::Ping),
                Work::Echo => client.ask(&Ask::Echo { payload: &self.payload }),
                Work::Publish { acknowledged } => {
                    let topic = own_topic(number);
                    client.ask(&Ask::Publish { topic: &topic, payload: &self.payload, acknowledged })
                }
                Work::Fanout | Work::Pieces { .. } | Work::Listen => false,
            };
            if is_asked {
                self.out_us[at] = intended_us;
                return true;
            }
        }
        false
    }

    fn stamp(&mut self, intended_us: u64) {
        if let Some(front) = self.payload.first_chunk_mut::<8>() {
            *front = intended_us.to_le_bytes();
        }
    }

    /// What this client had out is done.
    fn done(&mut self, phone: u32, now: Now) {
        let intended_us = std::mem::take(&mut self.out_us[(phone - self.range.start) as usize]);
        if intended_us != 0 {
            self.orders.done.fetch_add(1, Ordering::Relaxed);
            self.tape.done(REQUEST, intended_us, now.us);
        }
    }

    fn message(&mut self, phone: u32, stamp: Option<u64>, now: Now) {
        let Some((order, _)) = &self.order else { return };
        match order.work {
            Work::Echo | Work::Publish { acknowledged: false } => self.done(phone, now),
            Work::Ping | Work::Publish { acknowledged: true } => {}
            Work::Fanout | Work::Pieces { .. } | Work::Listen => {
                self.orders.done.fetch_add(1, Ordering::Relaxed);
                if let Some(stamp_us) = stamp.filter(|&us| us >= order.from_us && us <= now.us) {
                    self.tape.done(REQUEST, stamp_us, now.us);
                }
            }
        }
    }
}

impl<W: Wire> App for Load<W> {
    type Machine = Client<W>;

    fn phone(&mut self, phone: u32) -> Client<W> {
        Client::new(W::new(self.cast.who(phone)))
    }

    fn token(&mut self, phone: u32) -> Box<[u8]> {
        self.cast.who.as_ref().map_or_else(Box::default, |who| who.token(phone))
    }

    fn event(&mut self, phone: u32, _machine: &mut Client<W>, event: PeerEvent, now: Now) {
        match event {
            PeerEvent::Pong | PeerEvent::Acknowledged => self.done(phone, now),
            PeerEvent::Message { stamp, .. } => self.message(phone, stamp, now),
            PeerEvent::News(pieces) => {
                self.orders.pieces.fetch_add(pieces, Ordering::Relaxed);
            }
            PeerEvent::Refused => {
                self.orders.refused.fetch_add(1, Ordering::Relaxed);
                self.out_us[(phone - self.range.start) as usize] = 0;
            }
            PeerEvent::Connect | PeerEvent::Disconnect | PeerEvent::Up | PeerEvent::Closed { .. } => {}
        }
    }

    fn turn(&mut self, phones: &mut Phones<'_, Client<W>>, now: Now) -> u64 {
        self.take_order();
        self.tape.tick(now.us);
        let idle_us = now.us + crate::limits::TURN_MS * 1_000;
        let Some((order, mut arrivals)) = self.order.take() else { return idle_us };
        for _ in 0..STARTS_OF_A_TURN_MAX {
            let Some(intended_us) = arrivals.pop(now.us) else { break };
            if self.start(order.work, intended_us, phones) {
                self.orders.asked.fetch_add(1, Ordering::Relaxed);
                self.tape.start(REQUEST, intended_us, now.us);
            } else {
                self.orders.dropped.fetch_add(1, Ordering::Relaxed);
                self.tape.dropped(REQUEST, intended_us, 1);
            }
        }
        let next_us = arrivals.next_us().map_or(idle_us, |due_us| due_us.min(idle_us));
        self.order = Some((order, arrivals));
        next_us
    }
}
