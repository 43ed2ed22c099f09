//! Calling services: a [`Client`] is a `Channel`, so generated clients work on it.
//!
//! Moves the bytes; what to call, whether again and when is decided by the machines of `proto_wire::rpc`.

mod calls;
mod config;
pub mod limits;
mod link;
mod pool;
mod short;
mod udp;
mod watch;
mod within;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::limits::MAX_RPC_BODY_BYTES;
use proto_wire::rpc::caller::Request;
use proto_wire::rpc::client::{Address, Course, Next, Policy};
use proto_wire::rpc::header::flag;
use proto_wire::rpc::method::{Answer, CallOptions, Channel, Method};
use proto_wire::status::{Code, Status};

use crate::clock::Clock;
use crate::rt::{self, Signal};
pub use config::{Balance, ClientConfig, ClientConfigError, Transport};
use link::{Link, Watcher};
use pool::Pool;
pub use within::Within;

/// A way to one service. Cheap to clone; the connections close with the last clone. Made on an executor, and used there.
#[derive(Clone)]
pub struct Client(Rc<Handle>);

/// Ends the tasks, which hold what is shared, with the last clone of the client.
struct Handle(Rc<Shared>);

struct Shared {
    config: ClientConfig,
    clock: Clock,
    seed: u64,
    policy: RefCell<Policy>,
    pools: RefCell<AHashMap<u32, Rc<Pool>>>,
    /// Of endpoints that left the list, until they have answered, but not after this.
    leaving: RefCell<Vec<(Rc<Pool>, u64)>>,
    itself: Weak<Shared>,
    /// When the timers next look round, and how they are asked to come earlier.
    alarm_at_ms: Cell<u64>,
    alarm: Signal,
    is_closed: Cell<bool>,
}

/// What a client has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub endpoints: usize,
    pub in_flight: usize,
    /// Attempts after the first that were paid for.
    pub retries: u64,
    pub ejections: u64,
    /// Replies that came after their calls had ended.
    pub late_replies: u64,
    /// Datagrams that were sent again.
    pub resent: u64,
}

impl Client {
    /// A client of one callee over one long connection, which is made by the first call.
    pub fn new(to: impl Into<Address>, clock: Clock) -> Self {
        let config = ClientConfig { endpoints: vec![to.into().to_string()], ..ClientConfig::default() };
        Self::with(config, clock).expect("one address is a list")
    }

    pub fn with(config: ClientConfig, clock: Clock) -> Result<Self, ClientConfigError> {
        let endpoints = config.check()?;
        // Without random bytes: the same jitter and the same choices as other clients, which is no fault but worse.
        let seed = getrandom::u64().unwrap_or(1);
        let shared = Rc::new_cyclic(|itself| Shared {
            policy: RefCell::new(Policy::new(config.policy(), seed)),
            config,
            clock,
            seed,
            pools: RefCell::default(),
            leaving: RefCell::default(),
            itself: itself.clone(),
            alarm_at_ms: Cell::new(0),
            alarm: Signal::default(),
            is_closed: Cell::new(false),
        });
        match &shared.config.endpoints_file {
            Some(path) => rt::spawn(watch::watch(path.clone(), Rc::downgrade(&shared))),
            None => shared.set_endpoints(&endpoints),
        }
        rt::spawn(shared.clone().tick());
        Ok(Self(Rc::new(Handle(shared))))
    }

    /// The endpoints are these from now on. Calls that are out at others may end there.
    pub fn set_endpoints(&self, list: &[Address]) -> Result<(), ClientConfigError> {
        self.0.0.config.check_list(list)?;
        self.0.0.set_endpoints(list);
        Ok(())
    }

    /// Connects before the first call does.
    pub fn connect(&self) {
        self.0.0.pools.borrow().values().for_each(|pool| pool.connect());
    }

    pub fn counts(&self) -> Counts {
        let (policy, pools) = (self.0.0.policy.borrow(), self.0.0.pools.borrow());
        Counts {
            endpoints: pools.len(),
            in_flight: pools.values().map(|pool| pool.calls()).sum(),
            retries: policy.retries(),
            ejections: policy.ejections(),
            late_replies: pools.values().map(|pool| pool.late_replies()).sum(),
            resent: pools.values().map(|pool| pool.resent()).sum(),
        }
    }
}

impl Channel for Client {
    async fn call(
        &self,
        method: &'static Method,
        options: CallOptions,
        body: Bytes,
    ) -> Result<Answer, Status> {
        self.0.0.call(method, &options, &body).await
    }
}

impl Shared {
    async fn call(&self, method: &Method, options: &CallOptions, body: &[u8]) -> Result<Answer, Status> {
        if body.len() > MAX_RPC_BODY_BYTES {
            // The callee would end the connection over it, with all other calls.
            let text = format!("a request of {} bytes is over the limit of {MAX_RPC_BODY_BYTES}", body.len());
            return Err(Status::new(Code::Limit, text));
        }
        let deadline_ms = if options.deadline_ms == 0 { method.deadline_ms } else { options.deadline_ms };
        let deadline_at_ms = self.clock.now_ms() + u64::from(deadline_ms);
        if deadline_at_ms < self.alarm_at_ms.get() {
            self.alarm.raise();
        }
        let mut course = self.policy.borrow_mut().begin(key_of(options), method.idempotent, deadline_at_ms);
        loop {
            let now_ms = self.clock.now_ms();
            let attempt = self.pick(&mut course, now_ms)?;
            let left_ms = deadline_at_ms.saturating_sub(now_ms).clamp(1, u64::from(u32::MAX)) as u32;
            let request = request(method, options, left_ms, &course, body);
            let ended = attempt.pool.call(&request).await;
            let (end, retry_after_ms) = match &ended {
                Ok(_) => (Ok(()), 0),
                Err((status, end)) => (Err(*end), status.retry_after_ms),
            };
            match attempt.end(&mut course, end, retry_after_ms) {
                Next::Over => return ended.map_err(|(status, _)| status),
                Next::Again { after_ms: 0 } => {}
                Next::Again { after_ms } => rt::sleep_ms(after_ms).await,
            }
        }
    }

    fn pick(&self, course: &mut Course, now_ms: u64) -> Result<Attempt<'_>, Status> {
        let id = self.policy.borrow_mut().pick(course, now_ms);
        let pool = id.and_then(|id| self.pools.borrow().get(&id).cloned());
        match pool {
            Some(pool) => Ok(Attempt { shared: self, pool, is_over: false }),
            None => Err(Status::new(Code::Unavailable, "there are no endpoints")),
        }
    }

    fn set_endpoints(&self, list: &[Address]) {
        let now_ms = self.clock.now_ms();
        let changes = self.policy.borrow_mut().set_endpoints(list, now_ms);
        let watcher: Weak<dyn Watcher> = self.itself.clone();
        let mut pools = self.pools.borrow_mut();
        for (id, address) in changes.added {
            let seed = self.seed.wrapping_add(u64::from(id) << 32);
            let pool = Pool::start(id, &address, &self.config, seed, self.clock, &watcher);
            pools.insert(id, Rc::new(pool));
        }
        let leaving = changes.removed.iter().filter_map(|id| pools.remove(id));
        self.leaving.borrow_mut().extend(leaving.map(|pool| (pool, now_ms + limits::LEAVE_MS)));
        self.alarm.raise();
    }

    /// Runs the timers of all connections.
    async fn tick(self: Rc<Self>) {
        while !self.is_closed.get() {
            let now_ms = self.clock.now_ms();
            let wait_ms =
                self.poll_timeout().saturating_sub(now_ms).clamp(limits::TICK_MIN_MS, limits::TICK_MAX_MS);
            self.alarm_at_ms.set(now_ms + wait_ms);
            rt::signal_or_ms(&self.alarm, wait_ms).await;
            self.handle_timeout(self.clock.now_ms());
        }
    }

    fn poll_timeout(&self) -> u64 {
        let (pools, leaving) = (self.pools.borrow(), self.leaving.borrow());
        let all = pools.values().chain(leaving.iter().map(|(pool, _)| pool));
        all.map(|pool| pool.poll_timeout()).min().unwrap_or(u64::MAX)
    }

    fn handle_timeout(&self, now_ms: u64) {
        // A connection that goes down looks the others up: nothing is borrowed meanwhile.
        let mut all: Vec<Rc<Pool>> = self.pools.borrow().values().cloned().collect();
        all.extend(self.leaving.borrow().iter().map(|(pool, _)| pool.clone()));
        all.iter().for_each(|pool| pool.handle_timeout(now_ms));
        self.leaving.borrow_mut().retain(|(pool, until_ms)| {
            let stays = pool.calls() > 0 && now_ms < *until_ms;
            if !stays {
                pool.close();
            }
            stays
        });
    }
}

impl Watcher for Shared {
    fn up(&self, link: &Link) {
        self.policy.borrow_mut().handle_up(link.endpoint, self.clock.now_ms());
    }

    fn down(&self, link: &Link) -> bool {
        // It is made again after a wait, which begins now.
        self.alarm.raise();
        let pool = self.pools.borrow().get(&link.endpoint).cloned();
        let mut policy = self.policy.borrow_mut();
        if pool.is_some_and(|pool| pool.is_up_without(link)) {
            return true;
        }
        policy.handle_down(link.endpoint);
        policy.has_another(link.endpoint)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        self.0.alarm.raise();
        self.0.pools.borrow().values().for_each(|pool| pool.close());
        self.0.leaving.borrow().iter().for_each(|(pool, _)| pool.close());
    }
}

/// One attempt at a call; dropped before its end, it is given up.
struct Attempt<'a> {
    shared: &'a Shared,
    pool: Rc<Pool>,
    is_over: bool,
}

impl Attempt<'_> {
    fn end(
        mut self,
        course: &mut Course,
        end: Result<(), proto_wire::rpc::client::End>,
        retry_after_ms: u32,
    ) -> Next {
        self.is_over = true;
        let now_ms = self.shared.clock.now_ms();
        self.shared.policy.borrow_mut().end(course, self.pool.id, end, retry_after_ms, now_ms)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Ok(mut policy) = self.shared.policy.try_borrow_mut()
        {
            policy.abandon(self.pool.id);
        }
    }
}

/// Where a call by key belongs: what it says itself, else the section of the user whom it is about.
fn key_of(options: &CallOptions) -> Option<u64> {
    options.key.or((options.section != 0).then_some(u64::from(options.section)))
}

fn request<'a>(
    method: &Method,
    options: &'a CallOptions,
    deadline_ms: u32,
    course: &Course,
    body: &'a [u8],
) -> Request<'a> {
    let mut flags = 0;
    if method.idempotent {
        flags |= flag::IDEMPOTENT;
    }
    if method.one_way {
        flags |= flag::ONE_WAY;
    }
    Request {
        method: method.id,
        flags,
        deadline_ms,
        attempt: options.attempt.saturating_add(course.attempt()),
        home: options.home,
        section: options.section,
        business_priority: method.priority,
        user_priority: options.user_priority,
        identity: options.identity,
        cursor: options.applied,
        trace: options.trace.as_ref().filter(|trace| trace.len() <= limits::MAX_TRACE_BYTES),
        body,
    }
}
