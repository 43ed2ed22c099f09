//! Drives the core: gives it calls, completions and the time, and does what it says. One turn takes all
//! that has gathered since the last, so that the appends of many calls go into one commit.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::{mem, process};

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::services::gateway;
use proto_wire::status::{Code, Status};

use crate::clock::Clock;
use crate::logic::{Answer, At, Core};
use crate::rpc::{Connection, Quiet};
use crate::rt::{Signal, Waker};
use crate::stats::{Stats, StoreState};
use crate::storage::{ChangeLog, Completion, Fenced};
use crate::turn::{self, Outward};

/// Shards of gateways that news go to. One connection each is the rule, and those have a lower bound.
const MAX_LINKS: usize = 16_384;

/// Calls that the core knows nothing of; its own tokens count up from 1.
const BROADCAST_TOKEN: u64 = u64::MAX;

/// The core with its store, on the loop's thread.
pub struct Driver {
    clock: Clock,
    stats: Arc<Stats>,
    /// Something was asked of the core.
    turn: Signal,
    /// The store has completions.
    store_wake: Waker,
    inner: RefCell<Inner>,
    /// The connection of each gateway's shard, as it reported itself.
    links: RefCell<AHashMap<(u64, u16), Rc<Connection>>>,
    quiet: Quiet,
}

struct Inner {
    core: Core,
    /// Gone once the driver is closed.
    store: Option<Box<dyn ChangeLog>>,
    waiting: Waiting,
    completions: Vec<Completion>,
    notify_body: Vec<u8>,
}

impl Driver {
    /// `store_wake` is what the store's threads raise.
    pub fn new(
        core: Core,
        store: Box<dyn ChangeLog>,
        store_wake: Waker,
        clock: Clock,
        stats: Arc<Stats>,
    ) -> Rc<Self> {
        let driver = Rc::new(Self {
            clock,
            stats,
            turn: Signal::default(),
            store_wake,
            inner: RefCell::new(Inner {
                core,
                store: Some(store),
                waiting: Waiting::default(),
                completions: Vec::new(),
                notify_body: Vec::new(),
            }),
            links: RefCell::default(),
            quiet: Quiet::default(),
        });
        // The core has its recovery to begin.
        driver.turn.raise();
        driver
    }

    /// Takes turns until the driver is closed.
    pub async fn run(self: Rc<Self>) {
        loop {
            poll_fn(|context| {
                let asked = self.turn.poll_wait(context).is_ready();
                let done = self.store_wake.poll_wait(context).is_ready();
                if asked || done { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            if !self.take_turn() {
                return;
            }
        }
    }

    pub fn is_ready(&self) -> bool {
        self.inner.borrow().core.is_ready()
    }

    /// Asks the core; its answer is the end of the future. Dropping the future gives the call up.
    pub fn call(self: &Rc<Self>, verb: impl FnOnce(&mut Core, At, u64)) -> Pending {
        let mut inner = self.inner.borrow_mut();
        let token = inner.waiting.begin();
        verb(&mut inner.core, self.clock.at(), token);
        drop(inner);
        self.turn.raise();
        Pending { driver: self.clone(), token }
    }

    /// A phone said what it has applied.
    pub fn applied(&self, user: u64, device: u64, cursor: Cursor) {
        self.inner.borrow_mut().core.applied(user, device, cursor);
    }

    /// News for this shard go over this connection from now on.
    pub fn link(&self, gateway: u64, shard: u16, connection: &Rc<Connection>) -> Result<(), Status> {
        let mut links = self.links.borrow_mut();
        let is_full = links.len() >= MAX_LINKS;
        match links.entry((gateway, shard)) {
            Entry::Occupied(known) if Rc::ptr_eq(known.get(), connection) => {}
            Entry::Occupied(mut known) => drop(known.insert(connection.clone())),
            Entry::Vacant(_) if is_full => {
                return Err(Status::new(Code::Overloaded, "too many shards of gateways"));
            }
            Entry::Vacant(vacant) => drop(vacant.insert(connection.clone())),
        }
        Ok(())
    }

    pub fn unlink(&self, connection: &Rc<Connection>) {
        self.links.borrow_mut().retain(|_, known| !Rc::ptr_eq(known, connection));
    }

    /// A Notify call has ended.
    pub fn notified(&self, token: u64, result: Result<Bytes, Status>) {
        if token == BROADCAST_TOKEN {
            if let Err(status) = result {
                self.stats.broadcasts_failed.add(1);
                self.log(
                    &format!("a gateway did not take a notice for all: {}", status.text),
                    self.clock.at(),
                );
            }
            return;
        }
        let reply = result.and_then(|body| {
            pb::NotifyReply::decode(body)
                .map_err(|error| Status::new(Code::Internal, format!("the reply is malformed: {error}")))
        });
        let at = self.clock.at();
        self.inner.borrow_mut().core.handle_notify_result(at, token, reply.as_ref());
        self.turn.raise();
    }

    /// Sends a notice to all phones: one call to each gateway, over the first of its shards that takes it. Gives how
    /// many gateways hand it out.
    pub fn broadcast(&self, notice: &Bytes) -> usize {
        let (links, at) = (self.links.borrow(), self.clock.at());
        let mut shards: Vec<_> = links.keys().copied().collect();
        shards.sort_unstable();
        let mut called = Vec::new();
        for key @ (gateway, _) in shards {
            if called.last() == Some(&gateway) {
                continue;
            }
            let body = pb::BroadcastRequest { gateway, notice: notice.clone() }.encode_to_vec();
            if links[&key].call(&gateway::BROADCAST, &body, BROADCAST_TOKEN, at.now_ms).is_ok() {
                called.push(gateway);
            }
        }
        self.stats.broadcasts.add(called.len() as u64);
        called.len()
    }

    pub fn handle_timeout(&self) {
        let at = self.clock.at();
        let mut inner = self.inner.borrow_mut();
        if inner.core.poll_timeout().is_some_and(|due_ms| due_ms <= at.now_ms) {
            inner.core.handle_timeout(at);
            self.turn.raise();
        }
        let state =
            |store: &Box<dyn ChangeLog>| StoreState { is_full: store.is_full(), waited: store.waited() };
        let store = inner.store.as_ref().map(state);
        self.stats.publish(inner.core.counters(), store.unwrap_or_default());
        self.stats.beat_ms.set(at.now_ms);
    }

    pub fn poll_timeout(&self) -> u64 {
        self.inner.borrow().core.poll_timeout().unwrap_or(u64::MAX)
    }

    /// Commits what was handed to the store and closes it. Blocks until that is done.
    pub fn close(&self) {
        let store = self.inner.borrow_mut().store.take();
        drop(store);
        self.links.borrow_mut().clear();
        self.turn.raise();
    }

    /// Whether there will be more turns.
    fn take_turn(&self) -> bool {
        let at = self.clock.at();
        self.stats.turns.add(1);
        let mut inner = self.inner.borrow_mut();
        let Inner { core, store, waiting, completions, notify_body } = &mut *inner;
        let Some(store) = store else { return false };
        let mut outlets = Outlets { driver: self, waiting, notify_body, at };
        turn::take(core, &mut **store, completions, at, &mut outlets);
        if let Some(by) = core.fenced() {
            stop(&by);
        }
        if !completions.is_empty() {
            self.turn.raise();
        }
        true
    }

    fn notify(&self, token: u64, gateway: u64, shard: u16, body: &[u8], at: At) -> Result<(), Status> {
        self.stats.notifies.add(1);
        let links = self.links.borrow();
        let link = links.get(&(gateway, shard)).ok_or(Code::Unavailable);
        link.and_then(|link| link.call(&gateway::NOTIFY, body, token, at.now_ms)).map_err(|code| {
            self.stats.notifies_failed.add(1);
            Status::new(code, "no connection to the gateway's shard takes the news")
        })
    }

    fn log(&self, line: &str, at: At) {
        if let Some(dropped) = self.quiet.admit(at.now_ms) {
            tracing::warn!(lines_kept_back = dropped, "{line}");
        }
    }
}

/// Whoever is still connected here would hear of nothing new: the process ends, and gateways find the owner.
fn stop(by: &Fenced) -> ! {
    eprintln!(
        "moorgate: {by}; stopping, so that nothing is acknowledged that is not on disk. \
         Two backends must not share a data directory: start this one with one of its own"
    );
    process::exit(1)
}

/// Where a turn's words go.
struct Outlets<'a> {
    driver: &'a Driver,
    waiting: &'a mut Waiting,
    notify_body: &'a mut Vec<u8>,
    at: At,
}

impl Outward for Outlets<'_> {
    fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
        self.waiting.end(token, answer);
    }

    fn notify(
        &mut self,
        token: u64,
        gateway: u64,
        shard: u16,
        request: &pb::NotifyRequest,
    ) -> Result<(), Status> {
        self.notify_body.clear();
        // A vector grows as needed: encoding into it cannot fail.
        let _ = request.encode(self.notify_body);
        self.driver.notify(token, gateway, shard, self.notify_body, self.at)
    }

    fn log(&mut self, line: &str) {
        self.driver.log(line, self.at);
    }
}

/// The answer to come of a call to the core.
pub struct Pending {
    driver: Rc<Driver>,
    token: u64,
}

impl Future for Pending {
    type Output = Result<Answer, Status>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.driver.inner.borrow_mut().waiting.poll(self.token, context)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Borrowed only when an executor that is being torn down drops its tasks; then nobody waits.
        if let Ok(mut inner) = self.driver.inner.try_borrow_mut() {
            inner.waiting.give_up(self.token);
        }
    }
}

/// Calls whose answers are awaited. A token is a place and how often it was used.
#[derive(Default)]
struct Waiting {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    uses: u32,
    wait: Wait,
}

enum Wait {
    /// Nobody waits here.
    Free,
    Begun(Option<task::Waker>),
    Answered(Result<Answer, Status>),
    /// Nobody wants the answer, which is still to come.
    GivenUp,
    /// The answer was taken.
    Over,
}

impl Waiting {
    fn begin(&mut self) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, wait: Wait::Free });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[at as usize];
        place.uses = place.uses.wrapping_add(1);
        place.wait = Wait::Begun(None);
        u64::from(place.uses) << 32 | u64::from(at)
    }

    fn end(&mut self, token: u64, answer: Result<Answer, Status>) {
        let Some(place) = self.place(token) else { return };
        match mem::replace(&mut place.wait, Wait::Answered(answer)) {
            Wait::Begun(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Wait::GivenUp => self.free(token),
            // A second answer to one call: the first one stands.
            earlier => place.wait = earlier,
        }
    }

    fn poll(&mut self, token: u64, context: &mut Context<'_>) -> Poll<Result<Answer, Status>> {
        let Some(place) = self.place(token) else { return Poll::Pending };
        match mem::replace(&mut place.wait, Wait::Over) {
            Wait::Answered(answer) => Poll::Ready(answer),
            _ => {
                place.wait = Wait::Begun(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn give_up(&mut self, token: u64) {
        let Some(place) = self.place(token) else { return };
        match place.wait {
            Wait::Begun(_) => place.wait = Wait::GivenUp,
            _ => self.free(token),
        }
    }

    fn place(&mut self, token: u64) -> Option<&mut Place> {
        self.places.get_mut(token as u32 as usize).filter(|place| place.uses == (token >> 32) as u32)
    }

    fn free(&mut self, token: u64) {
        if let Some(place) = self.place(token) {
            place.wait = Wait::Free;
            self.free.push(token as u32);
        }
    }
}
