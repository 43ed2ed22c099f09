//! The small values that every part shares: cursors, items, routes, sections, ids of uploads.

use crate::limits;
use crate::random::mix;

/// A place in a user's log: numbers compare within their epoch, and a later epoch is later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// Rises when the log was restored and may have lost a tail.
    pub log_epoch: u32,
    /// The number of a change; 0 is before the first.
    pub number: u64,
}

impl Cursor {
    /// Bytes of a cursor where it stands with fixed fields.
    pub const BYTES: usize = 12;

    pub const fn new(log_epoch: u32, number: u64) -> Self {
        Self { log_epoch, number }
    }

    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.log_epoch.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    /// Reads a cursor from exactly its bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, number @ ..] = *bytes;
        Self { log_epoch: u32::from_le_bytes([a, b, c, d]), number: u64::from_le_bytes(number) }
    }
}

/// Where a phone's connection is: what the backend gives back to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Route {
    /// A gateway process, random at each start.
    pub gateway: u64,
    pub shard: u16,
    pub slot: u32,
    /// How often the slot was used before, 24 bits: tells a stale route.
    pub generation: u32,
}

impl Route {
    pub const BYTES: usize = 17;

    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.gateway.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes()[..3]);
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let [a, b, c, d] = word(0);
        let [e, f, g, h] = word(4);
        Self {
            gateway: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            shard: u16::from_le_bytes([bytes[8], bytes[9]]),
            slot: u32::from_le_bytes(word(10)),
            generation: u32::from_le_bytes([bytes[14], bytes[15], bytes[16], 0]),
        }
    }
}

/// Sections are the unit of ownership, of move and of fan-out. The count is fixed for ever.
pub const SECTIONS: u16 = 4096;

/// The section of a user or a group: the top 12 bits of the splitmix64 finaliser of its id.
///
/// Source: Vigna, `splitmix64.c` (2015), without the increment. Vectors are in `spec/vectors`.
pub const fn section_of(id: u64) -> u16 {
    (mix(id) >> 52) as u16
}

/// Groups and users share one space of ids; a group's has this bit, a user's never.
pub const GROUP_BIT: u64 = 1 << 63;

/// The client's id of an upload: 48 bits of creation time in ms by the server's clock, big-endian,
/// then 80 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub [u8; 16]);

/// Why an upload's id is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadIdError {
    #[error("the id of an upload has 16 bytes")]
    Length,
    #[error("the id of this upload is older than 7 days")]
    Expired,
    #[error("the id of this upload is from the future")]
    Future,
}

impl UploadId {
    pub fn new(created_ms: u64, random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&created_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        Self(id)
    }

    pub fn from_slice(bytes: &[u8]) -> Result<Self, UploadIdError> {
        bytes.try_into().map(Self).map_err(|_| UploadIdError::Length)
    }

    pub fn created_ms(&self) -> u64 {
        self.0[..6].iter().fold(0, |ms, &byte| ms << 8 | u64::from(byte))
    }

    /// Whether a server whose clock says `now_ms` may still apply this upload.
    pub fn check(&self, now_ms: u64) -> Result<(), UploadIdError> {
        let created = self.created_ms();
        if created + limits::UPLOAD_MEMORY_MS <= now_ms {
            Err(UploadIdError::Expired)
        } else if created > now_ms + limits::UPLOAD_SKEW_MS {
            Err(UploadIdError::Future)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_route_keeps_its_17_bytes(gateway: u64, shard: u16, slot: u32, generation in 0u32..1 << 24) {
            let route = Route { gateway, shard, slot, generation };
            let mut out = Vec::new();
            route.put(&mut out);
            let bytes: [u8; Route::BYTES] = out.try_into().expect("17 bytes");
            prop_assert_eq!(Route::from_bytes(&bytes), route);
        }

        #[test]
        fn a_cursor_keeps_its_12_bytes(log_epoch: u32, number: u64) {
            let mut out = Vec::new();
            Cursor::new(log_epoch, number).put(&mut out);
            let bytes: [u8; Cursor::BYTES] = out.try_into().expect("12 bytes");
            prop_assert_eq!(Cursor::from_bytes(&bytes), Cursor::new(log_epoch, number));
        }
    }

    #[test]
    fn cursors_compare_by_epoch_first() {
        assert!(Cursor::new(2, 1) > Cursor::new(1, 99));
    }

    #[test]
    fn sections_are_even() {
        let mut count = vec![0u32; usize::from(SECTIONS)];
        for user in 1..=409_600u64 {
            count[usize::from(section_of(user))] += 1;
        }
        assert!(count.iter().all(|&n| (50..=160).contains(&n)), "100 expected in each");
    }

    #[test]
    fn an_upload_is_refused_when_too_old_or_from_the_future() {
        let now = 1_800_000_000_000;
        let id = |ms| UploadId::new(ms, [7; 10]);
        assert_eq!(id(now).created_ms(), now);
        assert_eq!(id(now).check(now), Ok(()));
        assert_eq!(id(now - limits::UPLOAD_MEMORY_MS).check(now), Err(UploadIdError::Expired));
        assert_eq!(id(now + limits::UPLOAD_SKEW_MS + 1).check(now), Err(UploadIdError::Future));
    }
}
