//! A logic tier that does nothing but answer: the bench plays it, so that the comparison meters the gateway alone. It
//! speaks Moorgate's RPC with the machines of proto-wire: reports of who is there, the echo, syncs; and it tells
//! gateways news and notices on a schedule.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::Message;
use proto_wire::frame::Class;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::callee::{Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, Kind, flag, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::services::{echo, gateway, presence, sync};
use proto_wire::status::Code;

use super::limits;
use crate::clock::Clock;
use crate::measure::{Arrival, Arrivals};

const LOG_EPOCH: u32 = 1;

/// What it tells gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// A notice to all sessions.
    ToAll { bytes: usize },
    /// One piece of news for one session after another, among the first `of`; `burst` to one before the next.
    Pieces { of: u32, burst: u32, class: Class, bytes: usize },
}

/// What it tells from when to when.
#[derive(Debug, Clone, Copy)]
pub struct TellingOrder {
    pub telling: Telling,
    pub rate: f64,
    pub from_us: u64,
    pub until_us: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    order: Mutex<Option<TellingOrder>>,
    version: AtomicU64,
    online: AtomicU64,
    told: AtomicU64,
    pulls: AtomicU64,
}

/// A running one.
pub struct Standin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Standin {
    /// On a port of loopback, on a core when one is named.
    pub fn start(clock: Clock, core: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let run = move || {
            if let Some(core) = core {
                // A core that is not there is slower, not wrong.
                let _ = gateway_ring::pin_current_thread(core);
            }
            Tier { listener, clock, shared: of_thread, links: Vec::new(), telling: None, version: 0 }.run()
        };
        let thread = thread::Builder::new().name("logic".to_owned()).spawn(run)?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Sessions that gateways have reported.
    pub fn online(&self) -> u64 {
        self.shared.online.load(Ordering::Relaxed)
    }

    /// Pieces of news, or notices, that have left.
    pub fn told(&self) -> u64 {
        self.shared.told.load(Ordering::Relaxed)
    }

    pub fn pulls(&self) -> u64 {
        self.shared.pulls.load(Ordering::Relaxed)
    }

    pub fn give(&self, order: TellingOrder) {
        *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        self.shared.version.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // How it ended was told while it ran, by connections that broke.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Tier {
    listener: TcpListener,
    clock: Clock,
    shared: Arc<Shared>,
    links: Vec<Link>,
    telling: Option<(TellingOrder, Arrivals, u64)>,
    version: u64,
}

impl Tier {
    fn run(mut self) -> io::Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.wait()?;
            while self.links.len() < limits::LINKS_MAX
                && let Ok((stream, _)) = self.listener.accept()
            {
                self.links.push(Link::new(stream, self.clock.now_ms())?);
            }
            let now_ms = self.clock.now_ms();
            for link in &mut self.links {
                link.read(now_ms, &self.shared);
            }
            self.tell();
            self.links.retain_mut(|link| link.write() && !link.is_broken);
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let mut polled = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        for link in &self.links {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, !link.out.is_empty());
            polled.push(PollFd::new(link.stream.as_fd(), events));
        }
        let is_telling = self.telling.as_ref().is_some_and(|(_, arrivals, _)| arrivals.next_us().is_some());
        let timeout = if is_telling { limits::TELL_EVERY_MS } else { 50 };
        match poll(&mut polled, PollTimeout::from(timeout)) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            let order = *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            self.telling = order.map(|order| {
                let arrivals =
                    Arrivals::new(Arrival::Constant, order.rate, order.from_us, order.until_us, version);
                (order, arrivals, 0)
            });
        }
        let Some((order, arrivals, next)) = &mut self.telling else { return };
        let (now_us, now_ms) = (self.clock.now_us(), self.clock.now_ms());
        for _ in 0..limits::TOLD_OF_A_TURN_MAX {
            let Some(intended_us) = arrivals.pop(now_us) else { break };
            let told = match order.telling {
                // One call to any shard reaches all of its gateway.
                Telling::ToAll { bytes } => {
                    if let Some(link) = self.links.first_mut() {
                        link.tell_all(bytes, intended_us, now_ms);
                    }
                    self.links.iter().map(|link| link.sessions.len() as u64).sum()
                }
                Telling::Pieces { of, burst, class, .. } => {
                    let at = (*next / u64::from(burst.max(1)) % u64::from(of.max(1))) as usize;
                    *next += 1;
                    u64::from(tell_one(&mut self.links, at, class))
                }
            };
            self.shared.told.fetch_add(told, Ordering::Relaxed);
        }
        let page_bytes = match order.telling {
            Telling::Pieces { bytes, .. } => bytes,
            Telling::ToAll { .. } => 0,
        };
        for link in &mut self.links {
            link.change_bytes = page_bytes.max(link.change_bytes);
            link.send_news(now_ms);
        }
    }
}

/// One more thing for the session that is `at` among all.
fn tell_one(links: &mut [Link], mut at: usize, class: Class) -> bool {
    for link in links {
        if at < link.sessions.len() {
            link.raise(at, class);
            return true;
        }
        at -= link.sessions.len();
    }
    false
}

/// A session as a gateway reported it.
#[derive(Debug, Clone, Copy)]
struct Session {
    slot: u32,
    generation: u32,
    newest: u64,
}

/// A connection from a shard.
struct Link {
    stream: TcpStream,
    callee: Callee,
    caller: Caller<()>,
    input: Vec<u8>,
    out: Vec<u8>,
    gateway: u64,
    shard: u32,
    sessions: Vec<Session>,
    /// By slot: where a session stands.
    by_slot: Vec<u32>,
    news: VecDeque<pb::News>,
    change_bytes: usize,
    is_broken: bool,
}

const NOWHERE: u32 = u32::MAX;

impl Link {
    fn new(stream: TcpStream, now_ms: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (mut caller, mut out) = (Caller::new(CallerConfig::default(), 1), Vec::new());
        caller.start(now_ms);
        caller.handle_connected(now_ms, &mut out);
        Ok(Self {
            stream,
            callee: Callee::new(CalleeConfig { credit: limits::CREDIT, ..CalleeConfig::default() }),
            caller,
            input: Vec::new(),
            out,
            gateway: 0,
            shard: 0,
            sessions: Vec::new(),
            by_slot: Vec::new(),
            news: VecDeque::new(),
            change_bytes: 0,
            is_broken: false,
        })
    }

    fn read(&mut self, now_ms: u64, shared: &Shared) {
        for _ in 0..limits::READS_OF_A_TURN_MAX {
            let held = self.input.len();
            self.input.resize(held + limits::READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[held..]);
            self.input.truncate(held + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => self.is_broken = true,
                Ok(count) if count == limits::READ_BYTES => continue,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.is_broken = true,
            }
            break;
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while !self.is_broken {
            match next_header(rest) {
                Ok(Some((header, header_bytes))) => {
                    let end = header_bytes + header.body_bytes as usize;
                    if self.take(&header, &rest[header_bytes..end], now_ms, shared).is_none() {
                        self.is_broken = true;
                    }
                    rest = &rest[end..];
                }
                Ok(None) => break,
                Err(_) => self.is_broken = true,
            }
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        // Nothing is remembered of a call, and none is repeated.
        self.caller.handle_timeout(now_ms, &mut self.out);
        while self.caller.poll_failed().is_some() {}
    }

    /// None: the gateway does what no gateway may.
    fn take(&mut self, header: &Header, body: &[u8], now_ms: u64, shared: &Shared) -> Option<()> {
        match header.kind {
            Kind::Call => {
                let Some(call) = self.callee.handle_call(header, now_ms, &mut self.out).ok()? else {
                    return Some(());
                };
                let (outcome, reply) = self.run(header, body, shared);
                self.callee.reply(&call, &outcome, &reply, &mut self.out);
            }
            Kind::Cancel | Kind::Ping => {
                self.caller.handle_heard(now_ms);
                self.callee.handle_control(header, &mut self.out).ok()?;
            }
            Kind::Reply => {
                self.caller.handle_reply(header, now_ms, &mut self.out).ok()?;
            }
            Kind::Credit | Kind::Pong | Kind::GoAway => {
                self.caller.handle_control(header, now_ms, &mut self.out).ok()?;
            }
        }
        Some(())
    }

    fn run(&mut self, header: &Header, body: &[u8], shared: &Shared) -> (Outcome, Vec<u8>) {
        let invalid = || (Outcome { code: Code::Invalid, ..Outcome::OK }, Vec::new());
        match header.method {
            // An EchoReply is an EchoRequest, byte by byte.
            id if id == echo::SAY.id => (Outcome::OK, body.to_vec()),
            id if id == presence::REPORT.id => match pb::ReportRequest::decode(body) {
                Ok(report) => {
                    self.take_report(&report, shared);
                    (
                        Outcome::OK,
                        pb::ReportReply { backend: 1, lease: 1, ..Default::default() }.encode_to_vec(),
                    )
                }
                Err(_) => invalid(),
            },
            id if id == sync::PULL.id => {
                shared.pulls.fetch_add(1, Ordering::Relaxed);
                self.page(header, body).unwrap_or_else(invalid)
            }
            _ => (Outcome { code: Code::UnknownMethod, ..Outcome::OK }, Vec::new()),
        }
    }

    fn take_report(&mut self, report: &pb::ReportRequest, shared: &Shared) {
        (self.gateway, self.shard) = (report.gateway, report.shard);
        for online in &report.online {
            let at = online.slot as usize;
            if at >= limits::SLOTS_MAX {
                continue;
            }
            self.by_slot.resize(self.by_slot.len().max(at + 1), NOWHERE);
            let session =
                Session { slot: online.slot, generation: online.generation, newest: online.applied };
            match self.by_slot[at] {
                NOWHERE => {
                    self.by_slot[at] = self.sessions.len() as u32;
                    self.sessions.push(session);
                    shared.online.fetch_add(1, Ordering::Relaxed);
                }
                there => self.sessions[there as usize] = session,
            }
        }
    }

    /// What the phone lacks: a change a piece, each with some bytes of text.
    fn page(&mut self, header: &Header, body: &[u8]) -> Option<(Outcome, Vec<u8>)> {
        let request = pb::PullRequest::decode(body).ok()?;
        let slot = header.identity?.route.slot;
        let at = self.by_slot.get(slot as usize).copied().filter(|&at| at != NOWHERE)?;
        let newest = self.sessions[at as usize].newest;
        let after = request.cursor.map_or(0, |cursor| cursor.number).min(newest);
        let first = after.max(newest.saturating_sub(limits::CHANGES_OF_A_PAGE_MAX));
        let text = ".".repeat(self.change_bytes);
        let change = |number| {
            let message = pb::Message { text: text.clone(), ..pb::Message::default() };
            let body = Some(pb::change::Body::Message(message));
            pb::Change { number, version: 1, body, ..pb::Change::default() }
        };
        let changes = (first + 1..=newest).map(change).collect();
        let page = pb::Page { log_epoch: LOG_EPOCH, after, upto: newest, changes, ..pb::Page::default() };
        let cursor = Some(Cursor::new(LOG_EPOCH, newest));
        Some((Outcome { cursor, ..Outcome::OK }, page.encode_to_vec()))
    }

    fn raise(&mut self, at: usize, class: Class) {
        let session = &mut self.sessions[at];
        session.newest += 1;
        let Session { slot, generation, newest } = *session;
        let log_epoch = LOG_EPOCH;
        if self.news.len() < limits::NEWS_WAITING_MAX {
            self.news.push_back(pb::News {
                slot,
                generation,
                class: class as u32,
                log_epoch,
                newest,
                ..Default::default()
            });
        }
    }

    /// All that is due, in one call: what a turn of a logic tier does.
    fn send_news(&mut self, now_ms: u64) {
        while !self.news.is_empty() {
            let count = self.news.len().min(limits::NEWS_OF_A_CALL_MAX);
            let news = self.news.drain(..count).collect();
            let request =
                pb::NotifyRequest { gateway: self.gateway, shard: self.shard, news, ..Default::default() };
            self.call(&gateway::NOTIFY, &request, now_ms);
        }
    }

    /// One notice to the whole gateway. Its bytes stand in the frames as they are.
    fn tell_all(&mut self, bytes: usize, stamp_us: u64, now_ms: u64) {
        let mut notice = vec![b'.'; bytes.max(8)];
        notice[..8].copy_from_slice(&stamp_us.to_le_bytes());
        let request = pb::BroadcastRequest { gateway: self.gateway, notice: notice.into() };
        self.call(&gateway::BROADCAST, &request, now_ms);
    }

    fn call(&mut self, method: &'static Method, request: &impl Message, now_ms: u64) {
        let body = request.encode_to_vec();
        let call = Request {
            method: method.id,
            flags: if method.idempotent { flag::IDEMPOTENT } else { 0 },
            deadline_ms: method.deadline_ms,
            body: &body,
            ..Request::default()
        };
        // Beyond the caller's bounds it is not told: the count of what arrived shows it.
        let _ = self.caller.call(&call, (), now_ms, &mut self.out);
    }

    /// False: the gateway is gone.
    fn write(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return false,
                Ok(count) => {
                    self.out.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.out.len() < limits::OUT_BYTES_MAX;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
