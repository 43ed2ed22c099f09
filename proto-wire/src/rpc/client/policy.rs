//! Which endpoint gets a call, and whether a call that failed is made again.
//!
//! The owner tells what it was given as endpoints, when connections come and go, and how each attempt ended.

use super::budget::Budget;
use super::health::{Health, HealthConfig};
use super::{Address, End, limits};
use crate::random::{Random, mix};
use crate::status::Code;

/// How endpoints share the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The less loaded of two that are chosen at random (Mitzenmacher, 2001).
    #[default]
    LeastOfTwo,
    RoundRobin,
    /// All calls with one key go to one endpoint as long as it is well (rendezvous hashing: Thaler and Ravishankar,
    /// 1998). Calls without a key go to the less loaded of two.
    Key,
}

/// What a client decides by.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    pub balance: Balance,
    /// Retries for a hundred calls.
    pub retry_percent: u32,
    /// Times that one call is made, the first included.
    pub max_attempts: u8,
    /// The longest wait before the first retry; doubled for each up to the maximum. Each with full jitter.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    pub health: HealthConfig,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            retry_percent: 10,
            max_attempts: 3,
            backoff_min_ms: 10,
            backoff_max_ms: 500,
            health: HealthConfig::default(),
        }
    }
}

/// What is new in a list of endpoints. Ids are never used twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<(u32, Address)>,
    /// Get no more calls; those that are out may be answered still.
    pub removed: Vec<u32>,
}

/// What is to be done about a call whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Over,
    Again { after_ms: u64 },
}

/// One call on its way through its attempts.
#[derive(Debug, Clone)]
pub struct Course {
    key: Option<u64>,
    may_run_twice: bool,
    deadline_at_ms: u64,
    attempts: u8,
    moves: u8,
    tried: [u32; TRIED],
    tried_len: u8,
}

const TRIED: usize = limits::MAX_ATTEMPTS as usize + limits::MAX_MOVES as usize;

/// The machine.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
    endpoints: Vec<Endpoint>,
    next_id: u32,
    /// Where the round goes on.
    turn: usize,
    budget: Budget,
    random: Random,
    retries: u64,
    ejections: u64,
}

#[derive(Debug)]
struct Endpoint {
    id: u32,
    address: Address,
    /// Of the address, so that every client and every start agrees where a key belongs.
    place: u64,
    health: Health,
    in_flight: u32,
}

impl Course {
    /// For the header: 0 for the first time.
    pub fn attempt(&self) -> u8 {
        self.attempts
    }

    fn has_tried(&self, id: u32) -> bool {
        self.tried[..usize::from(self.tried_len)].contains(&id)
    }
}

impl Policy {
    pub fn new(config: PolicyConfig, seed: u64) -> Self {
        Self {
            budget: Budget::new(config.retry_percent),
            config: PolicyConfig {
                max_attempts: config.max_attempts.clamp(1, limits::MAX_ATTEMPTS),
                ..config
            },
            endpoints: Vec::new(),
            next_id: 0,
            turn: 0,
            random: Random::new(seed),
            retries: 0,
            ejections: 0,
        }
    }

    /// The endpoints are these from now on. Those that stay keep what is known of them.
    pub fn set_endpoints(&mut self, list: &[Address], now_ms: u64) -> Changes {
        let mut changes = Changes::default();
        let is_first = self.next_id == 0;
        self.endpoints.retain(|endpoint| {
            let stays = list.contains(&endpoint.address);
            if !stays {
                changes.removed.push(endpoint.id);
            }
            stays
        });
        for address in list.iter().take(limits::MAX_ENDPOINTS) {
            if self.endpoints.iter().any(|endpoint| endpoint.address == *address) {
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            let health = if is_first { Health::default() } else { Health::joining(now_ms) };
            let place = place_of(address);
            self.endpoints.push(Endpoint { id, address: address.clone(), place, health, in_flight: 0 });
            changes.added.push((id, address.clone()));
        }
        changes
    }

    /// A call begins. `may_run_twice`: its method is idempotent.
    pub fn begin(&mut self, key: Option<u64>, may_run_twice: bool, deadline_at_ms: u64) -> Course {
        self.budget.deposit();
        Course { key, may_run_twice, deadline_at_ms, attempts: 0, moves: 0, tried: [0; TRIED], tried_len: 0 }
    }

    /// The endpoint for the next attempt. Its end is to be told with `end` or `abandon`. `None`: there are no endpoints.
    pub fn pick(&mut self, course: &mut Course, now_ms: u64) -> Option<u32> {
        for endpoint in &mut self.endpoints {
            endpoint.health.refresh(&self.config.health, now_ms);
        }
        let rank = self.endpoints.iter().map(|endpoint| endpoint.rank(course)).min()?;
        let at = match (self.config.balance, course.key) {
            (Balance::RoundRobin, _) => self.next_in_turn(course, rank, now_ms),
            (Balance::Key, Some(key)) => self.home_of(key, course, rank, now_ms),
            _ => self.less_loaded(course, rank, now_ms),
        };
        let endpoint = &mut self.endpoints[at];
        endpoint.in_flight += 1;
        if usize::from(course.tried_len) < TRIED {
            course.tried[usize::from(course.tried_len)] = endpoint.id;
            course.tried_len += 1;
        }
        Some(endpoint.id)
    }

    /// An attempt has ended. `retry_after_ms` is what the callee asks for, or 0.
    pub fn end(
        &mut self,
        course: &mut Course,
        id: u32,
        end: Result<(), End>,
        retry_after_ms: u32,
        now_ms: u64,
    ) -> Next {
        self.abandon(id);
        self.learn(id, end, now_ms);
        course.attempts += 1;
        let Err(end) = end else { return Next::Over };
        match end {
            End::NotSent(Code::Unavailable) if self.can_move(course) => {
                course.moves += 1;
                course.attempts -= 1;
                return Next::Again { after_ms: 0 };
            }
            End::NotSent(Code::Unavailable) => {}
            End::Unanswered(Code::Lost) if course.may_run_twice => {}
            // A disk does not find room within the time of a call.
            End::Replied(code) if code.is_safe_to_retry() && code != Code::NoRoom => {}
            _ => return Next::Over,
        }
        let after_ms = self.backoff_ms(course).max(u64::from(retry_after_ms));
        let is_too_late = now_ms.saturating_add(after_ms) >= course.deadline_at_ms;
        if course.attempts >= self.config.max_attempts || is_too_late || !self.budget.take() {
            return Next::Over;
        }
        self.retries += 1;
        Next::Again { after_ms }
    }

    /// Nobody waits for an attempt any more; nothing is learnt of its endpoint.
    pub fn abandon(&mut self, id: u32) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        }
    }

    /// A connection to an endpoint stands and takes calls.
    pub fn handle_up(&mut self, id: u32, now_ms: u64) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.health.handle_up(now_ms);
        }
    }

    /// No connection to an endpoint stands, the last attempt at one failed, or it asks for no more calls.
    pub fn handle_down(&mut self, id: u32) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.health.handle_down();
        }
    }

    /// Whether what waits for an endpoint could go to another that is well.
    pub fn has_another(&self, id: u32) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.id != id && endpoint.is_well())
    }

    /// Calls out at an endpoint.
    pub fn in_flight(&self, id: u32) -> u32 {
        self.endpoints.iter().find(|endpoint| endpoint.id == id).map_or(0, |endpoint| endpoint.in_flight)
    }

    /// Attempts after the first that were paid for, and ejections, since the start.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// What an end says of its endpoint. An answer says that it lives, whatever it is, but for one that it is broken.
    fn learn(&mut self, id: u32, end: Result<(), End>, now_ms: u64) {
        let has_failed = match end {
            Ok(()) => false,
            Err(End::Replied(code)) => match code {
                Code::Internal | Code::Unavailable => true,
                // Neither well nor broken.
                Code::Overloaded | Code::TooMany | Code::Deadline => return,
                _ => false,
            },
            // Bounds of this side.
            Err(End::NotSent(Code::Overloaded)) => return,
            Err(End::NotSent(_) | End::Unanswered(_)) => true,
        };
        let reachable = self.endpoints.iter().filter(|endpoint| !endpoint.health.is_down()).count();
        let ejected = self.endpoints.iter().filter(|endpoint| endpoint.health.is_ejected()).count();
        // When most seem to fail it is not they: the network, or the calls.
        let may_eject = (ejected + 1) * 2 <= reachable;
        let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.id == id) else { return };
        let health = &mut self.endpoints[at].health;
        health.refresh(&self.config.health, now_ms);
        if !has_failed {
            health.succeeded();
        } else if health.failed(&self.config.health, may_eject, now_ms) {
            self.ejections += 1;
        }
    }

    fn can_move(&self, course: &Course) -> bool {
        course.moves < limits::MAX_MOVES
            && self.endpoints.iter().any(|endpoint| endpoint.is_well() && !course.has_tried(endpoint.id))
    }

    /// Full jitter over a doubling window.
    fn backoff_ms(&mut self, course: &Course) -> u64 {
        let doublings = u32::from(course.attempts.saturating_sub(1));
        let window_ms =
            self.config.backoff_min_ms.saturating_mul(1 << doublings).min(self.config.backoff_max_ms);
        self.random.next() % (window_ms + 1)
    }

    fn endpoint(&mut self, id: u32) -> Option<&mut Endpoint> {
        self.endpoints.iter_mut().find(|endpoint| endpoint.id == id)
    }

    fn next_in_turn(&mut self, course: &Course, rank: u8, now_ms: u64) -> usize {
        let count = self.endpoints.len();
        let mut first = None;
        for step in 0..count {
            let at = (self.turn + step) % count;
            if self.endpoints[at].rank(course) != rank {
                continue;
            }
            first.get_or_insert(at);
            let share = self.endpoints[at].health.share(&self.config.health, now_ms);
            if share == 1000 || self.random.next() % 1000 < u64::from(share) {
                first = Some(at);
                break;
            }
        }
        let at = first.unwrap_or(0);
        self.turn = at + 1;
        at
    }

    fn less_loaded(&mut self, course: &Course, rank: u8, now_ms: u64) -> usize {
        let of_rank = |endpoints: &[Endpoint], nth: usize| {
            endpoints
                .iter()
                .enumerate()
                .filter(|(_, e)| e.rank(course) == rank)
                .nth(nth)
                .map_or(0, |(at, _)| at)
        };
        let count = self.endpoints.iter().filter(|endpoint| endpoint.rank(course) == rank).count();
        if count == 1 {
            return of_rank(&self.endpoints, 0);
        }
        let random = self.random.next();
        let one = (random as u32 as usize) % count;
        let other = (one + 1 + ((random >> 32) as usize) % (count - 1)) % count;
        let (one, other) = (of_rank(&self.endpoints, one), of_rank(&self.endpoints, other));
        let load = |at: usize| {
            let endpoint = &self.endpoints[at];
            let share = endpoint.health.share(&self.config.health, now_ms);
            (u64::from(endpoint.in_flight) + 1) * 1_000_000 / u64::from(share)
        };
        if load(other) < load(one) { other } else { one }
    }

    /// The endpoint with the highest score for a key; while it comes back slowly, its share of its keys, always the same
    /// ones first.
    fn home_of(&self, key: u64, course: &Course, rank: u8, now_ms: u64) -> usize {
        let mut best = (false, 0, 0);
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            if endpoint.rank(course) != rank {
                continue;
            }
            let score = mix(mix(key) ^ endpoint.place);
            let share = endpoint.health.share(&self.config.health, now_ms);
            let takes_it = share == 1000 || mix(score ^ 1) % 1000 < u64::from(share);
            best = best.max((takes_it, score, at));
        }
        best.2
    }
}

impl Endpoint {
    fn is_well(&self) -> bool {
        !self.health.is_down() && !self.health.is_ejected()
    }

    /// The lower the better: well and new to the call, well, then what is left.
    fn rank(&self, course: &Course) -> u8 {
        u8::from(!self.is_well()) * 2 + u8::from(course.has_tried(self.id))
    }
}

/// A hash of an address, the same everywhere.
fn place_of(address: &Address) -> u64 {
    address.to_string().bytes().fold(0x9e37_79b9_7f4a_7c15, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests;
