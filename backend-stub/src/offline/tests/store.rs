//! Rows of a store, read in order.

use super::world::Dir;
use crate::offline::limits;
use crate::offline::store::Store;
use crate::storage::Batch;
use crate::storage::embedded::Options;

#[test]
fn a_scan_goes_on_beyond_one_read_and_stops_at_its_end() {
    let dir = Dir::new();
    let store = Store::open_with(&Options::new(dir.join("store"))).expect("made");
    let rows = u64::from(limits::SCAN_ROWS) * 2 + 7;
    let mut batch = Batch::new(0);
    for number in 0..rows {
        batch.put(&[&[0, 0][..], &number.to_be_bytes()].concat(), &number.to_le_bytes());
    }
    store.commit(0, batch).expect("written");
    let read: Vec<u64> = store
        .all(0)
        .map(|row| u64::from_be_bytes(row.expect("read").0[2..].try_into().expect("8 bytes")))
        .collect();
    assert!(read.iter().copied().eq(0..rows), "{} of {rows}", read.len());
    // Few bytes a read, so that bytes and not rows end it.
    let mut batch = Batch::new(0);
    for number in 0..5u8 {
        batch.put(&[0, 1, number], &vec![number; limits::SCAN_BYTES as usize / 2 + 1]);
    }
    store.commit(0, batch).expect("written");
    assert_eq!(store.prefix(&[0, 1]).count(), 5);
    assert_eq!(store.prefix(&[0, 2]).count(), 0);
    // One that is let go half way leaves nothing that a later one would take for its own.
    assert_eq!(store.all(0).take(10).count(), 10);
    assert_eq!(store.prefix(&[0, 1]).count(), 5);
}
