//! Replies that did not fit a datagram, until they are fetched over a connection.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::TICKET_BYTES;
use crate::names::Cursor;

/// Names a reply that is held. Random, so that nobody fetches another's.
pub type Ticket = [u8; TICKET_BYTES];

/// How much is held.
#[derive(Debug, Clone)]
pub struct HeldConfig {
    pub max_replies: usize,
    pub max_bytes: usize,
}

impl Default for HeldConfig {
    fn default() -> Self {
        Self { max_replies: 4096, max_bytes: 64 << 20 }
    }
}

/// The replies.
#[derive(Debug)]
pub struct Held {
    config: HeldConfig,
    replies: HashMap<Ticket, Reply>,
    /// In the order in which they were put; a reply is kept at least as long as its caller waits.
    order: VecDeque<Ticket>,
    bytes: usize,
}

#[derive(Debug)]
struct Reply {
    body: Bytes,
    cursor: Option<Cursor>,
    until_ms: u64,
}

impl Held {
    pub fn new(config: HeldConfig) -> Self {
        Self { config, replies: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// Holds a reply. False: there is no room.
    pub fn put(
        &mut self,
        ticket: Ticket,
        body: Bytes,
        cursor: Option<Cursor>,
        until_ms: u64,
        now_ms: u64,
    ) -> bool {
        self.drop_old(now_ms);
        let is_full = self.replies.len() >= self.config.max_replies
            || self.bytes + body.len() > self.config.max_bytes
            || self.replies.contains_key(&ticket);
        if !is_full {
            self.bytes += body.len();
            self.replies.insert(ticket, Reply { body, cursor, until_ms });
            self.order.push_back(ticket);
        }
        !is_full
    }

    /// A reply, as often as it is asked for in its time: the connection may break under the first.
    pub fn fetch(&mut self, ticket: &Ticket, now_ms: u64) -> Option<(Bytes, Option<Cursor>)> {
        self.drop_old(now_ms);
        let reply = self.replies.get(ticket).filter(|reply| reply.until_ms > now_ms)?;
        Some((reply.body.clone(), reply.cursor))
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those at the front whose time is over. One behind a longer one waits for it; deadlines bound that.
    fn drop_old(&mut self, now_ms: u64) {
        while let Some(ticket) = self.order.front()
            && self.replies.get(ticket).is_none_or(|reply| reply.until_ms <= now_ms)
        {
            if let Some(reply) = self.replies.remove(ticket) {
                self.bytes -= reply.body.len();
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_there_until_its_time_is_over() {
        let mut held = Held::new(HeldConfig { max_replies: 3, max_bytes: 100 });
        assert!(held.put([1; 16], Bytes::from(vec![7; 60]), Some(Cursor::new(1, 2)), 50, 0));
        assert!(!held.put([1; 16], Bytes::new(), None, 50, 0), "a ticket is of one reply");
        assert!(!held.put([2; 16], Bytes::from(vec![7; 41]), None, 50, 0), "too many bytes");
        assert_eq!(held.fetch(&[1; 16], 49), Some((Bytes::from(vec![7; 60]), Some(Cursor::new(1, 2)))));
        assert_eq!(held.fetch(&[1; 16], 49).map(|(body, _)| body.len()), Some(60), "a second time");
        assert_eq!(held.fetch(&[3; 16], 49), None);
        assert_eq!((held.fetch(&[1; 16], 50), held.bytes()), (None, 0));
        assert!((0..3).all(|n| held.put([n; 16], Bytes::new(), None, 90, 60)));
        assert!(!held.put([9; 16], Bytes::new(), None, 90, 60), "too many replies");
        assert!(held.put([9; 16], Bytes::new(), None, 190, 90));
    }
}
