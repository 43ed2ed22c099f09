//! Puts and deletes that are committed together.

use super::{Fenced, limits};

/// One atomic commit. Its operations lie in one buffer: length of the key (u16), length of the value
/// (u32, all ones: a delete), key, value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The owner's name for it; comes back with the completion.
    pub token: u64,
    /// Which owner writes it: what the store gave at its opening. A lower one than the store's is refused.
    pub owner_epoch: u64,
    data: Vec<u8>,
    ops: usize,
}

const DELETE: u32 = u32::MAX;
const HEAD_BYTES: usize = 6;

impl Batch {
    pub fn new(token: u64) -> Self {
        Self { token, owner_epoch: 0, data: Vec::new(), ops: 0 }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.head(key, value.len() as u32);
        self.data.extend_from_slice(value);
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.head(key, DELETE);
    }

    fn head(&mut self, key: &[u8], value_length: u32) {
        assert!(key.len() <= limits::MAX_KEY_BYTES, "keys are made by the logic and short");
        self.data.reserve(HEAD_BYTES + key.len());
        self.data.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.data.extend_from_slice(&value_length.to_le_bytes());
        self.data.extend_from_slice(key);
        self.ops += 1;
    }

    /// Why a store that was claimed with this owner_epoch refuses it, if it does.
    pub fn fenced_by(&self, claimed: u64) -> Option<Fenced> {
        (self.owner_epoch < claimed).then_some(Fenced { owner_epoch: self.owner_epoch, claimed })
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.ops
    }

    pub fn is_empty(&self) -> bool {
        self.ops == 0
    }

    /// What it takes in memory and about what it takes in the journal.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Its operations in order; no value: a delete.
    pub fn iter(&self) -> Ops<'_> {
        Ops { rest: &self.data }
    }
}

/// The operations of a batch.
pub struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Ops<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_first_chunk::<HEAD_BYTES>()?;
        let key_length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let value_length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let (key, rest) = rest.split_at(key_length);
        if value_length == DELETE {
            self.rest = rest;
            return Some((key, None));
        }
        let (value, rest) = rest.split_at(value_length as usize);
        self.rest = rest;
        Some((key, Some(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn operations_come_out_as_they_went_in(ops: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let mut batch = Batch::new(7);
            for (key, value) in &ops {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            prop_assert_eq!(batch.len(), ops.len());
            let out: Vec<_> = batch.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(out, ops);
        }
    }
}
