//! Reports of a shard's sessions to one backend: who came, who went, who has applied more. In bounded batches,
//! one at a time, each repeated until it is acknowledged.

use std::collections::VecDeque;

use prost::Message;
use proto_wire::pb;

use crate::limits;
use crate::session::{Session, State};

/// How the reports find sessions.
pub trait Directory {
    fn session(&mut self, slot: u32, generation: u32) -> Option<&mut Session>;
    /// The sessions in up to `limit` slots from `from` on that belong to this backend, and where to go on;
    /// nothing further when all were seen.
    fn scan(&mut self, from: u32, limit: u32, take: &mut dyn FnMut(u32, &Session)) -> Option<u32>;
}

/// What one backend has yet to be told.
pub struct Reports {
    gateway: u64,
    shard: u16,
    online: VecDeque<(u32, u32)>,
    offline: VecDeque<pb::Offline>,
    applied: VecDeque<(u32, u32)>,
    /// Where the announcement of all sessions goes on.
    announce_from: Option<u32>,
    /// The batch that is not acknowledged yet, encoded.
    unacknowledged: Option<Vec<u8>>,
    in_flight: bool,
    last_sent_ms: u64,
    retry_at_ms: u64,
    /// The backend process that the last acknowledgement came from, and the lease that it told.
    known_there: Option<(u64, u64)>,
    /// Ends of sessions that were dropped unreported.
    pub dropped: u64,
}

/// A pause after a report that the backend refused.
const RETRY_MS: u64 = 200;

impl Reports {
    pub fn new(gateway: u64, shard: u16) -> Self {
        Self {
            gateway,
            shard,
            online: VecDeque::new(),
            offline: VecDeque::new(),
            applied: VecDeque::new(),
            announce_from: None,
            unacknowledged: None,
            in_flight: false,
            last_sent_ms: 0,
            retry_at_ms: 0,
            known_there: None,
            dropped: 0,
        }
    }

    pub fn is_addressed(&self, gateway: u64, shard: u32) -> bool {
        gateway == self.gateway && shard == u32::from(self.shard)
    }

    pub fn is_of(&self, gateway: u64) -> bool {
        gateway == self.gateway
    }

    /// A session came. Bounded by the sessions there are: each stands here once.
    pub fn push_online(&mut self, slot: u32, generation: u32) {
        self.online.push_back((slot, generation));
    }

    pub fn push_offline(&mut self, slot: u32, session: &Session) {
        if self.offline.len() == limits::OFFLINE_WAITING_MAX {
            self.offline.pop_front();
            self.dropped += 1;
        }
        let generation = session.generation;
        self.offline.push_back(pb::Offline { user: session.user, device: session.device, slot, generation });
    }

    /// A session's phone has applied more. The caller pushes each session once until it is reported.
    pub fn push_applied(&mut self, slot: u32, generation: u32) {
        self.applied.push_back((slot, generation));
    }

    /// A new connection: the backend may know nothing, so everything is announced again.
    pub fn handle_connected(&mut self) {
        self.in_flight = false;
        self.last_sent_ms = 0;
        self.retry_at_ms = 0;
        self.known_there = None;
        self.announce_from = Some(0);
    }

    pub fn handle_acknowledged(&mut self, backend: u64, lease: u64) {
        self.in_flight = false;
        self.unacknowledged = None;
        // Another process on the same connection (a proxy stands between), or this gateway was silent for so long
        // that its lease ended: nobody there knows its sessions.
        let there = (backend, lease);
        if self.known_there.replace(there).is_some_and(|before| before != there) {
            self.announce_from = Some(0);
        }
    }

    /// The backend could not take it: once more, a little later.
    pub fn handle_failed(&mut self, now_ms: u64) {
        self.in_flight = false;
        self.retry_at_ms = now_ms + RETRY_MS;
    }

    /// The answer was lost: once more.
    pub fn handle_lost(&mut self) {
        self.in_flight = false;
    }

    /// When the next report is due; `u64::MAX` while one is out.
    pub fn due_ms(&self) -> u64 {
        if self.in_flight {
            return u64::MAX;
        }
        let waiting = self.online.len() + self.offline.len() + self.applied.len();
        let is_full = waiting >= limits::REPORT_ENTRIES_MAX;
        if self.unacknowledged.is_some() || self.announce_from.is_some() || is_full || self.last_sent_ms == 0
        {
            self.retry_at_ms
        } else if waiting > 0 {
            self.retry_at_ms.max(self.last_sent_ms + limits::REPORT_EVERY_MS)
        } else {
            self.last_sent_ms + limits::LEASE_RENEWAL_MS
        }
    }

    /// The next report, encoded.
    pub fn next(&mut self, now_ms: u64, directory: &mut impl Directory) -> Vec<u8> {
        self.in_flight = true;
        self.last_sent_ms = now_ms.max(1);
        if self.unacknowledged.is_none() {
            let batch = self.batch(directory);
            self.unacknowledged = Some(batch.encode_to_vec());
        }
        self.unacknowledged.clone().unwrap_or_default()
    }

    fn batch(&mut self, directory: &mut impl Directory) -> pb::ReportRequest {
        let mut request =
            pb::ReportRequest { gateway: self.gateway, shard: self.shard.into(), ..Default::default() };
        let mut room = limits::REPORT_ENTRIES_MAX;
        // Ends first: an end and a new session of one device then stand in the order they happened, and an end
        // removes only the route that is equal anyway.
        let ends = room.min(self.offline.len());
        request.offline.extend(self.offline.drain(..ends));
        room -= ends;
        while room > 0
            && let Some((slot, generation)) = self.online.pop_front()
        {
            if let Some(session) = directory.session(slot, generation) {
                request.online.push(online(slot, session));
                room -= 1;
            }
        }
        while room > 0
            && let Some((slot, generation)) = self.applied.pop_front()
        {
            if let Some(session) = directory.session(slot, generation) {
                session.io &= !crate::shard::io::APPLIED_WAITS;
                let cursor = session.applied_cursor();
                let (user, device) = (session.user, session.device);
                let (log_epoch, number) = (cursor.log_epoch, cursor.number);
                request.applied.push(pb::Applied { user, device, log_epoch, number });
                room -= 1;
            }
        }
        while room > 0
            && let Some(from) = self.announce_from
        {
            let limit = (room as u32).min(limits::ANNOUNCE_SCAN_MAX);
            self.announce_from =
                directory.scan(from, limit, &mut |slot, session| request.online.push(online(slot, session)));
            room -= limit as usize;
        }
        shrink(&mut self.online);
        shrink(&mut self.offline);
        shrink(&mut self.applied);
        request
    }
}

fn online(slot: u32, session: &Session) -> pb::Online {
    debug_assert_eq!(session.state(), State::Live);
    let cursor = session.applied_cursor();
    pb::Online {
        user: session.user,
        device: session.device,
        slot,
        generation: session.generation,
        counter: session.counter(),
        log_epoch: cursor.log_epoch,
        applied: cursor.number,
    }
}

/// Memory of a storm goes back.
fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > 1024 {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Directory for Nobody {
        fn session(&mut self, _: u32, _: u32) -> Option<&mut Session> {
            None
        }
        fn scan(&mut self, _: u32, _: u32, _: &mut dyn FnMut(u32, &Session)) -> Option<u32> {
            None
        }
    }

    fn decode(bytes: &[u8]) -> pb::ReportRequest {
        pb::ReportRequest::decode(bytes).expect("a report")
    }

    #[test]
    fn a_batch_is_repeated_until_it_is_acknowledged() {
        let mut reports = Reports::new(7, 1);
        reports.handle_connected();
        let session = Session::new(3, 0);
        reports.push_offline(9, &session);
        let first = decode(&reports.next(1, &mut Nobody));
        assert_eq!(first.offline.len(), 1);
        assert_eq!(reports.due_ms(), u64::MAX);
        reports.handle_lost();
        assert_eq!(decode(&reports.next(2, &mut Nobody)), first);
        reports.handle_connected();
        assert_eq!(decode(&reports.next(3, &mut Nobody)), first);
        reports.handle_acknowledged(1, 1);
        assert!(decode(&reports.next(4, &mut Nobody)).offline.is_empty());
    }

    #[test]
    fn without_news_only_the_lease_is_renewed() {
        let mut reports = Reports::new(7, 1);
        reports.handle_connected();
        reports.next(100, &mut Nobody);
        reports.handle_acknowledged(1, 1);
        assert_eq!(reports.due_ms(), 100 + limits::LEASE_RENEWAL_MS);
    }

    #[test]
    fn what_comes_soon_after_a_report_waits_for_more_unless_it_fills_one() {
        let mut reports = Reports::new(7, 1);
        reports.handle_connected();
        assert_eq!(reports.due_ms(), 0, "a new connection tells at once");
        reports.next(100, &mut Nobody);
        reports.handle_acknowledged(1, 1);
        reports.push_online(1, 1);
        assert_eq!(reports.due_ms(), 100 + limits::REPORT_EVERY_MS);
        for slot in 2..=limits::REPORT_ENTRIES_MAX as u32 {
            reports.push_online(slot, 1);
        }
        assert_eq!(reports.due_ms(), 0, "a full one does not wait");
        reports.next(120, &mut Nobody);
        reports.handle_failed(130);
        assert_eq!(
            reports.due_ms(),
            130 + RETRY_MS,
            "one that was refused is repeated when its pause is over"
        );
    }

    #[test]
    fn after_a_lease_that_ended_all_sessions_are_announced_again() {
        let mut reports = Reports::new(7, 1);
        reports.handle_connected();
        for lease in [5, 5] {
            reports.next(100, &mut Nobody);
            reports.handle_acknowledged(1, lease);
            assert_eq!(reports.announce_from, None);
        }
        reports.next(200, &mut Nobody);
        reports.handle_acknowledged(1, 6);
        assert_eq!(reports.announce_from, Some(0));
    }

    #[test]
    fn ends_that_wait_are_bounded() {
        let mut reports = Reports::new(7, 1);
        for slot in 0..limits::OFFLINE_WAITING_MAX as u32 + 10 {
            reports.push_offline(slot, &Session::default());
        }
        assert_eq!((reports.offline.len(), reports.dropped), (limits::OFFLINE_WAITING_MAX, 10));
    }
}
