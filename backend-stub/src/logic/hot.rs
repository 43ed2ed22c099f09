//! Recent rows and group bodies in memory, bounded in bytes, oldest out first.
//!
//! A phone syncs right after a notify, so what it asks for was written a moment ago: such a sync never
//! reads the disk, and notifies can carry their changes inline.

use std::collections::VecDeque;

use ahash::AHashMap;

use super::values::{Body, Row, RowBody};

/// The cost of an entry beside its body: the map's and the queue's slots.
const ENTRY_BYTES: usize = 112;

pub struct Hot {
    rows: AHashMap<(u64, u64), Row>,
    bodies: AHashMap<(u64, u64), Body>,
    order: VecDeque<(u64, u64)>,
    bytes: usize,
    max_bytes: usize,
}

impl Hot {
    pub fn new(max_bytes: usize) -> Self {
        Self { rows: AHashMap::new(), bodies: AHashMap::new(), order: VecDeque::new(), bytes: 0, max_bytes }
    }

    pub fn put_row(&mut self, user: u64, number: u64, row: Row) {
        self.bytes += row_bytes(&row);
        if let Some(old) = self.rows.insert((user, number), row) {
            self.bytes -= row_bytes(&old);
        } else {
            self.order.push_back((user, number));
        }
        self.shrink();
    }

    /// Users and groups share one space of ids, so a body's key is never a row's.
    pub fn put_body(&mut self, group: u64, number: u64, body: Body) {
        self.bytes += body_bytes(&body);
        if let Some(old) = self.bodies.insert((group, number), body) {
            self.bytes -= body_bytes(&old);
        } else {
            self.order.push_back((group, number));
        }
        self.shrink();
    }

    pub fn row(&self, user: u64, number: u64) -> Option<&Row> {
        self.rows.get(&(user, number))
    }

    pub fn body(&self, group: u64, number: u64) -> Option<&Body> {
        self.bodies.get(&(group, number))
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn shrink(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(row) = self.rows.remove(&oldest) {
                self.bytes -= row_bytes(&row);
            } else if let Some(body) = self.bodies.remove(&oldest) {
                self.bytes -= body_bytes(&body);
            }
        }
    }
}

fn row_bytes(row: &Row) -> usize {
    match &row.body {
        RowBody::Own(body) => body_bytes(body),
        RowBody::Group { .. } => ENTRY_BYTES,
    }
}

fn body_bytes(body: &Body) -> usize {
    // A body that two logs share is counted twice: an upper bound.
    ENTRY_BYTES + body.0.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_bound_holds() {
        let mut hot = Hot::new(10 * ENTRY_BYTES);
        for number in 1..=100 {
            hot.put_row(
                7,
                number,
                Row { prev: number - 1, replaced: 0, marks: 0, body: RowBody::Group { group: 9, number } },
            );
            assert!(hot.bytes() <= 10 * ENTRY_BYTES);
        }
        assert!(hot.row(7, 90).is_none());
        assert!((91..=100).all(|number| hot.row(7, number).is_some()));
    }
}
