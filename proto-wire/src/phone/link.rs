//! The connection of a phone: connecting, greeting, beating, noticing that the path is dead, coming back.

use super::config::PhoneConfig;
use crate::limits;
use crate::pb::LastEnd;
use crate::random::Random;

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) enum State {
    /// Nobody asked for a connection, or the owner closed it.
    Idle,
    /// The owner opens a socket and has until then.
    Connecting {
        until_ms: u64,
    },
    /// The socket is open; WELCOME has until then.
    Greeting {
        until_ms: u64,
        hello_due: bool,
    },
    Up(Up),
    /// The next attempt is then.
    Waiting {
        until_ms: u64,
    },
    /// The server said that the same HELLO would end the same way.
    Ended,
}

/// A welcomed connection.
#[derive(Debug)]
pub(super) struct Up {
    since_ms: u64,
    last_sent_ms: u64,
    last_heard_ms: u64,
    /// The beat that is out has to be answered by then.
    dead_at_ms: u64,
    /// A call is out and nothing was heard since: a beat asks then whether the path is alive.
    probe_at_ms: u64,
    /// The server said GOAWAY: what is in flight has until then.
    drain_until_ms: u64,
    /// What GOAWAY said of coming back.
    reconnect_after_ms: u32,
    interval_ms: u32,
    /// How long the connection had been silent when the beat that is out went out.
    silent_before_beat_ms: u32,
    max_in_flight: u8,
    beat_due: bool,
    /// An empty beat is out. Unlike `dead_at_ms` other traffic does not end it.
    beat_out: bool,
}

/// What happened on the line at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Connect,
    ConnectTimeout,
    WelcomeTimeout,
    BeatLost,
    Drained,
}

#[derive(Debug)]
pub(super) struct Link {
    pub state: State,
    /// Connections made.
    pub counter: u32,
    /// Ends in a row without a stable connection between them.
    failures: u32,
    pub last_end: LastEnd,
    pub last_idle_ms: u32,
}

impl Link {
    pub fn new(counter: u32) -> Self {
        Self { state: State::Idle, counter, failures: 0, last_end: LastEnd::None, last_idle_ms: 0 }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Greeting { .. } | State::Up(_))
    }

    /// The owner has a socket, open or on its way.
    pub fn has_socket(&self) -> bool {
        self.is_open() || matches!(self.state, State::Connecting { .. })
    }

    pub fn up(&mut self) -> Option<&mut Up> {
        if let State::Up(up) = &mut self.state { Some(up) } else { None }
    }

    /// What time has brought.
    pub fn handle_timeout(&mut self, now_ms: u64, quiet: bool) -> Due {
        match &mut self.state {
            State::Connecting { until_ms } if *until_ms <= now_ms => Due::ConnectTimeout,
            State::Greeting { until_ms, .. } if *until_ms <= now_ms => Due::WelcomeTimeout,
            State::Waiting { until_ms } if *until_ms <= now_ms => Due::Connect,
            State::Up(up) => up.handle_timeout(now_ms, quiet),
            _ => Due::Nothing,
        }
    }

    pub fn next_due_ms(&self) -> u64 {
        match &self.state {
            State::Idle | State::Ended => NEVER,
            State::Connecting { until_ms }
            | State::Greeting { until_ms, .. }
            | State::Waiting { until_ms } => *until_ms,
            State::Up(up) => up.next_due_ms(),
        }
    }

    /// Remembers for the next HELLO how a connection ended. An attempt that was never welcomed says
    /// nothing about what its network bears.
    pub fn note_end(&mut self, how: LastEnd, now_ms: u64) {
        if let State::Up(up) = &self.state {
            self.last_end = how;
            let silent_ms = match how {
                LastEnd::BeatLost => u64::from(up.silent_before_beat_ms),
                _ => now_ms - up.last_sent_ms.max(up.last_heard_ms),
            };
            self.last_idle_ms = u32::try_from(silent_ms).unwrap_or(u32::MAX);
        }
    }

    /// Goes into the wait before the next attempt, and says until when.
    pub fn wait(
        &mut self,
        asked_ms: Option<u64>,
        now_ms: u64,
        config: &PhoneConfig,
        random: &mut Random,
    ) -> u64 {
        if let State::Up(up) = &self.state
            && now_ms - up.since_ms >= config.reconnect.stable_after_ms
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let wait_ms = asked_ms.unwrap_or_else(|| config.reconnect.wait_ms(self.failures, random));
        self.state = State::Waiting { until_ms: now_ms + wait_ms };
        now_ms + wait_ms
    }
}

impl Up {
    pub fn new(interval_ms: u32, max_in_flight: u8, now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            last_sent_ms: now_ms,
            last_heard_ms: now_ms,
            dead_at_ms: NEVER,
            probe_at_ms: NEVER,
            drain_until_ms: NEVER,
            reconnect_after_ms: 0,
            interval_ms,
            silent_before_beat_ms: 0,
            max_in_flight,
            beat_due: false,
            beat_out: false,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.drain_until_ms != NEVER
    }

    pub fn max_in_flight(&self) -> usize {
        usize::from(self.max_in_flight)
    }

    /// 0 says nothing: a phone that came back at once would be sent away at once, for ever.
    pub fn reconnect_after_ms(&self) -> Option<u64> {
        (self.reconnect_after_ms > 0).then_some(u64::from(self.reconnect_after_ms))
    }

    /// GOAWAY: no new calls from here on.
    pub fn drain(&mut self, reconnect_after_ms: u32, now_ms: u64) {
        self.reconnect_after_ms = reconnect_after_ms;
        self.drain_until_ms = self.drain_until_ms.min(now_ms + limits::GOAWAY_DRAIN_MS);
    }

    /// The answer to the beat that is out. Returns whether one was.
    pub fn handle_beat(&mut self) -> bool {
        std::mem::take(&mut self.beat_out)
    }

    /// Anything that came shows that the path is alive.
    pub fn handle_traffic(&mut self, now_ms: u64, calls_out: bool, config: &PhoneConfig) {
        self.last_heard_ms = now_ms;
        self.dead_at_ms = NEVER;
        self.probe_at_ms = if calls_out { now_ms + config.beat_answer_ms } else { NEVER };
    }

    /// Whether a beat is to be sent. `spoke`: something else leaves now, and counts as one; but only an
    /// answer shows that a path is alive on which calls stay unanswered.
    pub fn take_beat(&mut self, now_ms: u64, spoke: bool, config: &PhoneConfig) -> bool {
        let probes = self.probe_at_ms <= now_ms;
        if !std::mem::take(&mut self.beat_due) || (spoke && !probes) {
            return false;
        }
        let silent_ms = now_ms - self.last_sent_ms.max(self.last_heard_ms);
        self.silent_before_beat_ms = u32::try_from(silent_ms).unwrap_or(u32::MAX);
        self.dead_at_ms = now_ms + config.beat_answer_ms;
        self.probe_at_ms = NEVER;
        self.beat_out = true;
        true
    }

    /// Something left, which counts as a beat for the server. `call`: an answer is expected.
    pub fn note_sent(&mut self, now_ms: u64, call: bool, config: &PhoneConfig) {
        self.last_sent_ms = now_ms;
        if call && self.dead_at_ms == NEVER {
            self.probe_at_ms = self.probe_at_ms.min(now_ms + config.beat_answer_ms);
        }
    }

    fn beat_at_ms(&self) -> u64 {
        if self.dead_at_ms != NEVER || self.beat_due {
            return NEVER;
        }
        self.probe_at_ms.min(self.last_sent_ms + u64::from(self.interval_ms))
    }

    fn next_due_ms(&self) -> u64 {
        self.beat_at_ms().min(self.dead_at_ms).min(self.drain_until_ms)
    }

    fn handle_timeout(&mut self, now_ms: u64, quiet: bool) -> Due {
        if self.dead_at_ms <= now_ms {
            return Due::BeatLost;
        }
        if self.is_draining() && (quiet || self.drain_until_ms <= now_ms) {
            return Due::Drained;
        }
        if self.beat_at_ms() <= now_ms {
            self.beat_due = true;
        }
        Due::Nothing
    }
}
