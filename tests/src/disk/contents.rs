//! The bytes of one file: as they are, and as they were when the file was last synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

/// What is read and written at once by a disk; less may never be torn.
pub const SECTOR_BYTES: usize = 512;

const PAGE_BYTES: usize = 4096;

type Page = Arc<[u8; PAGE_BYTES]>;

/// Sparse: a page that was never written is zeros and takes no room.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    size: u64,
    pages: BTreeMap<u64, Page>,
    synced_size: u64,
    /// Pages that were touched since the last sync, as they were then.
    before: BTreeMap<u64, Option<Page>>,
}

/// How much of what was not synced outlives a cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Survival {
    Nothing,
    Everything,
    /// Each 512 bytes for themselves, with this chance.
    Some(f64),
}

impl Contents {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The room that it takes.
    pub fn allocated(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// The room that a write would take on top.
    pub fn would_allocate(&self, offset: u64, length: usize) -> u64 {
        let missing = pages_of(offset, length).filter(|page| !self.pages.contains_key(page));
        (missing.count() * PAGE_BYTES) as u64
    }

    pub fn is_synced(&self) -> bool {
        self.before.is_empty() && self.size == self.synced_size
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = (offset + length as u64).min(self.size);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for number in pages_of(offset, bytes.len()) {
            if let Some(page) = self.pages.get(&number) {
                let (in_page, in_bytes) = overlap(number, offset, bytes.len());
                bytes[in_bytes].copy_from_slice(&page[in_page]);
            }
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for number in pages_of(offset, bytes.len()) {
            let (in_page, in_bytes) = overlap(number, offset, bytes.len());
            self.page(number)[in_page].copy_from_slice(&bytes[in_bytes]);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    pub fn set_size(&mut self, size: u64) {
        if size < self.size {
            let first_gone = size.div_ceil(PAGE_BYTES as u64);
            for (number, page) in self.pages.split_off(&first_gone) {
                self.before.entry(number).or_insert(Some(page));
            }
            let kept = (size % PAGE_BYTES as u64) as usize;
            if kept > 0 && self.pages.contains_key(&(size / PAGE_BYTES as u64)) {
                self.page(size / PAGE_BYTES as u64)[kept..].fill(0);
            }
        }
        self.size = size;
    }

    /// All that was written is on the disk.
    pub fn sync(&mut self) {
        self.before.clear();
        self.synced_size = self.size;
    }

    /// The power goes: what was not synced is there or not, in pieces.
    pub fn cut(&mut self, survival: Survival, random: &mut StdRng) {
        let size = match survival {
            Survival::Nothing => self.synced_size,
            Survival::Everything => self.size,
            // The size is in the inode, apart from the data.
            Survival::Some(chance) if random.random_bool(chance) => self.size,
            Survival::Some(_) => self.synced_size,
        };
        let before = std::mem::take(&mut self.before);
        for (number, old) in before {
            let new = self.pages.remove(&number);
            let zeros = || Arc::new([0; PAGE_BYTES]);
            let is_zero = old.is_none() && new.is_none();
            let (old, new) = (old.unwrap_or_else(zeros), new.unwrap_or_else(zeros));
            let mut kept = (*old).clone();
            for at in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                let survives = match survival {
                    Survival::Nothing => false,
                    Survival::Everything => true,
                    Survival::Some(chance) => random.random_bool(chance),
                };
                if survives {
                    kept[at..at + SECTOR_BYTES].copy_from_slice(&new[at..at + SECTOR_BYTES]);
                }
            }
            if !is_zero {
                self.pages.insert(number, Arc::new(kept));
            }
        }
        self.set_size(size);
        self.sync();
    }

    /// The page to be changed, kept as it was if it was not changed since the last sync.
    fn page(&mut self, number: u64) -> &mut [u8; PAGE_BYTES] {
        let before = self.pages.get(&number).cloned();
        self.before.entry(number).or_insert(before);
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }
}

fn pages_of(offset: u64, length: usize) -> impl Iterator<Item = u64> {
    let page = PAGE_BYTES as u64;
    offset / page..(offset + length as u64).div_ceil(page).max(offset / page)
}

/// The part of a page, and of the bytes from `offset` on, that are the same.
fn overlap(page: u64, offset: u64, length: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let start = page * PAGE_BYTES as u64;
    let from = start.max(offset);
    let to = (start + PAGE_BYTES as u64).min(offset + length as u64);
    ((from - start) as usize..(to - start) as usize, (from - offset) as usize..(to - offset) as usize)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn random() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn what_is_written_is_read_and_holes_are_zeros() {
        let mut file = Contents::default();
        file.write(5_000, b"hello");
        assert_eq!(file.size(), 5_005);
        assert_eq!(file.read(4_998, 100), b"\0\0hello");
        assert_eq!(file.allocated(), 4_096);
        assert_eq!((file.would_allocate(4_096, 10), file.would_allocate(4_000, 200)), (0, 4_096));
        file.set_size(5_002);
        file.set_size(5_004);
        assert_eq!(file.read(5_000, 100), b"he\0\0");
    }

    #[test]
    fn what_was_synced_outlives_every_cut_and_the_rest_does_not() {
        let mut file = Contents::default();
        file.write(0, &[1; 10_000]);
        file.sync();
        file.write(9_000, &[2; 10_000]);
        file.write(100, &[3; 10]);
        let mut nothing = file.clone();
        nothing.cut(Survival::Nothing, &mut random());
        assert_eq!(nothing.read(0, 20_000), vec![1; 10_000]);
        let mut everything = file.clone();
        let whole = file.read(0, 20_000);
        everything.cut(Survival::Everything, &mut random());
        assert_eq!(everything.read(0, 20_000), whole);
        assert!(everything.is_synced() && !file.is_synced());
    }

    #[test]
    fn pieces_of_512_bytes_survive_each_for_itself() {
        let mut file = Contents::default();
        file.set_size(64 << 10);
        file.sync();
        file.write(100, &vec![7; 40_000]);
        let whole = file.read(0, 64 << 10);
        file.cut(Survival::Some(0.5), &mut random());
        let kept = file.read(0, 64 << 10);
        let is_old = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
        let pairs = || kept.chunks(SECTOR_BYTES).zip(whole.chunks(SECTOR_BYTES)).take(78);
        assert!(pairs().all(|(kept, whole)| kept == whole || is_old(kept)), "no piece is torn");
        let old = pairs().filter(|(kept, _)| is_old(kept)).count();
        assert!((20..60).contains(&old), "{old} of 78 are lost");
    }

    #[test]
    fn a_cut_that_was_not_synced_may_come_back() {
        let mut file = Contents::default();
        file.write(0, &[1; 10_000]);
        file.sync();
        file.set_size(10);
        file.cut(Survival::Nothing, &mut random());
        assert_eq!(file.read(0, 20_000), vec![1; 10_000]);
    }
}
