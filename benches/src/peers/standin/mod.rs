//! A logic tier that does nothing but answer: the bench plays it, so that the comparison meters the gateway alone. It
//! speaks Moorgate's RPC with the machines of proto-wire: reports of who is there, the echo, syncs; and it tells
//! gateways news and notices on a schedule.

mod link;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto_wire::frame::Class;

use super::limits;
use crate::clock::Clock;
use crate::measure::{Arrival, Arrivals};
use link::Link;

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
