//! The caller's side: calls that are out, when to send one again, and what comes back.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::{MAX_DATAGRAM_BYTES, TICKET_BYTES, Ticket, whole};
use crate::rpc::caller::Request;
use crate::rpc::header::{self, Header, Kind, flag};
use crate::status::Code;

/// The bounds of the calls to one callee.
#[derive(Debug, Clone)]
pub struct DatagramConfig {
    /// This process as its callees see it.
    pub service: u16,
    /// Calls in flight; the next one is refused. As many full datagrams fit what a kernel holds for a socket by default
    /// (208 KiB), so that a burst of one caller alone loses none.
    pub max_calls: usize,
    /// Times that a call which may run twice is sent, the first included.
    pub max_sends: u8,
    /// The wait for an answer before a call is sent again: what is known of the way decides (RFC 6298), within these, and
    /// each further wait is twice as long. The middle one holds while nothing is known.
    pub resend_min_ms: u64,
    pub resend_first_ms: u64,
    pub resend_max_ms: u64,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self {
            service: 0,
            max_calls: 64,
            max_sends: 8,
            resend_min_ms: 20,
            resend_first_ms: 100,
            resend_max_ms: 2_000,
        }
    }
}

/// Why a call was not sent. It can go over a connection, which has credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It does not fit a datagram.
    TooLarge,
    /// Too many are out.
    Full,
}

/// What came back for a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered<T> {
    /// Its reply; the body is this range of the datagram.
    Reply(T, Header, Range<usize>),
    /// It ran, and its reply waits to be fetched over a connection.
    Held(T, Ticket),
}

struct Out<T> {
    context: T,
    deadline_at_ms: u64,
    sent_at_ms: u64,
    sends: u8,
    /// When it is sent again; never, if it may not run twice.
    again_at_ms: u64,
    frame: Vec<u8>,
}

/// The machine. `T` is the owner's memory of a call.
pub struct DatagramCaller<T> {
    config: DatagramConfig,
    out: HashMap<u64, Out<T>>,
    next_id: u64,
    to_send: VecDeque<u64>,
    failed: VecDeque<(T, Code)>,
    /// Nothing is due before this; exact after each look, else a lower bound.
    earliest_ms: u64,
    way: Way,
    late_replies: u64,
    resent: u64,
    ignored: u64,
}

/// What is known of the time that an answer takes, in eighths of a millisecond.
#[derive(Debug, Default)]
struct Way {
    smooth: Option<u64>,
    varies: u64,
}

impl<T> DatagramCaller<T> {
    /// `first_id` is random: the callee remembers the calls of an address for a while, and the process before this one may
    /// have had the same.
    pub fn new(config: DatagramConfig, first_id: u64) -> Self {
        Self {
            config,
            out: HashMap::new(),
            next_id: first_id,
            to_send: VecDeque::new(),
            failed: VecDeque::new(),
            earliest_ms: u64::MAX,
            way: Way::default(),
            late_replies: 0,
            resent: 0,
            ignored: 0,
        }
    }

    /// Makes a call: its datagram is appended to `datagram`. A one-way call has left with that; no more is heard of it, and
    /// it has no id.
    pub fn call(
        &mut self,
        request: &Request<'_>,
        context: T,
        now_ms: u64,
        datagram: &mut Vec<u8>,
    ) -> Result<Result<u64, T>, (T, Refused)> {
        if self.out.len() >= self.config.max_calls {
            return Err((context, Refused::Full));
        }
        let id = self.next_id;
        let start = datagram.len();
        request.header(id, self.config.service).put(request.body, datagram);
        if datagram.len() - start > MAX_DATAGRAM_BYTES {
            datagram.truncate(start);
            return Err((context, Refused::TooLarge));
        }
        self.next_id = self.next_id.wrapping_add(1);
        if request.flags & flag::ONE_WAY != 0 {
            return Ok(Err(context));
        }
        let may_run_twice = request.flags & flag::IDEMPOTENT != 0;
        let deadline_at_ms = now_ms + u64::from(request.deadline_ms);
        let (frame, again_at_ms) = if may_run_twice && self.config.max_sends > 1 {
            (datagram[start..].to_vec(), now_ms + self.resend_ms(1))
        } else {
            (Vec::new(), u64::MAX)
        };
        self.earliest_ms = self.earliest_ms.min(deadline_at_ms).min(again_at_ms);
        let call = Out { context, deadline_at_ms, sent_at_ms: now_ms, sends: 1, again_at_ms, frame };
        self.out.insert(id, call);
        Ok(Ok(id))
    }

    /// Gives a call up; the datagram that tells the callee is appended.
    pub fn cancel(&mut self, id: u64, datagram: &mut Vec<u8>) -> Option<T> {
        let call = self.out.remove(&id)?;
        Header { kind: Kind::Cancel, call_id: id, ..Header::default() }.put(&[], datagram);
        Some(call.context)
    }

    /// A datagram came from the callee. What is none of ours is dropped and counted: anybody can send one.
    pub fn handle_datagram(&mut self, datagram: &[u8], now_ms: u64) -> Option<Answered<T>> {
        let Ok(Some((header, body))) = whole(datagram) else {
            self.ignored += 1;
            return None;
        };
        if header.kind != Kind::Reply {
            self.ignored += 1;
            return None;
        }
        let Some(call) = self.out.remove(&header.call_id) else {
            self.late_replies += 1;
            return None;
        };
        // Which of several sends an answer is for is not known (Karn's rule).
        if call.sends == 1 {
            self.way.took(now_ms.saturating_sub(call.sent_at_ms));
        }
        if header.flags & flag::HELD != 0
            && let Some(ticket) = datagram[body.clone()].first_chunk::<TICKET_BYTES>()
        {
            return Some(Answered::Held(call.context, *ticket));
        }
        Some(Answered::Reply(call.context, header, body))
    }

    /// The host says that nobody listens there: what is out may have run before that.
    pub fn handle_unreachable(&mut self) {
        self.to_send.clear();
        self.failed.extend(self.out.drain().map(|(_, call)| (call.context, Code::Lost)));
        self.earliest_ms = u64::MAX;
    }

    /// Runs what is due: deadlines, and calls to be sent again.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        if now_ms < self.earliest_ms {
            return;
        }
        let over: Vec<u64> =
            self.out.iter().filter(|(_, call)| call.deadline_at_ms <= now_ms).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(call) = self.out.remove(&id) {
                self.failed.push_back((call.context, Code::Deadline));
            }
        }
        let mut again = Vec::new();
        for (id, call) in &mut self.out {
            if call.again_at_ms <= now_ms {
                call.sends += 1;
                again.push(*id);
                // Set below, where what is known of the way can be asked.
                call.again_at_ms = u64::MAX;
            }
        }
        again.sort_unstable();
        for id in again {
            let sends = self.out[&id].sends;
            let again_at_ms =
                if sends < self.config.max_sends { now_ms + self.resend_ms(sends) } else { u64::MAX };
            if let Some(call) = self.out.get_mut(&id) {
                call.again_at_ms = again_at_ms;
            }
            self.to_send.push_back(id);
        }
        let due = self.out.values().map(|call| call.deadline_at_ms.min(call.again_at_ms));
        self.earliest_ms = due.min().unwrap_or(u64::MAX);
    }

    /// A datagram that is to be sent again, one at a time.
    pub fn poll_datagram(&mut self, now_ms: u64, datagram: &mut Vec<u8>) -> bool {
        while let Some(id) = self.to_send.pop_front() {
            let Some(call) = self.out.get_mut(&id) else { continue };
            let left_ms = call.deadline_at_ms.saturating_sub(now_ms).clamp(1, u64::from(u32::MAX)) as u32;
            header::set_deadline(&mut call.frame, left_ms);
            datagram.extend_from_slice(&call.frame);
            self.resent += 1;
            return true;
        }
        false
    }

    /// Calls that ended without a reply, one at a time.
    pub fn poll_failed(&mut self) -> Option<(T, Code)> {
        self.failed.pop_front()
    }

    /// When `handle_timeout` may have something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        Some(self.earliest_ms).filter(|&ms| ms != u64::MAX)
    }

    /// Calls made and not ended.
    pub fn calls(&self) -> usize {
        self.out.len()
    }

    /// Replies that came after their call had ended here, the second answers to one call among them.
    pub fn late_replies(&self) -> u64 {
        self.late_replies
    }

    /// Datagrams that were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Datagrams that were no replies.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn resend_ms(&self, sends: u8) -> u64 {
        let known_ms = self.way.wait_ms().unwrap_or(self.config.resend_first_ms);
        let first_ms = known_ms.clamp(self.config.resend_min_ms, self.config.resend_max_ms);
        (first_ms << (sends - 1).min(16)).min(self.config.resend_max_ms)
    }
}

impl Way {
    fn took(&mut self, ms: u64) {
        let eighths = ms * 8;
        match &mut self.smooth {
            None => (self.smooth, self.varies) = (Some(eighths), eighths / 2),
            Some(smooth) => {
                self.varies = (self.varies * 3 + smooth.abs_diff(eighths)) / 4;
                *smooth = (*smooth * 7 + eighths) / 8;
            }
        }
    }

    fn wait_ms(&self) -> Option<u64> {
        self.smooth.map(|smooth| (smooth + 4 * self.varies).div_ceil(8))
    }
}
