//! The order of one group, as its members tell it.

/// Which message each number is, and which members have seen it.
#[derive(Debug, Default)]
pub(super) struct GroupOrder {
    /// By group number.
    pub order: Vec<Option<u32>>,
    members: Vec<Seen>,
}

/// What one member has seen.
#[derive(Debug, Default, Clone)]
struct Seen {
    last: u32,
    bits: Vec<u64>,
}

/// What a delivery shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Another member has another message under this number.
    pub instead_of: Option<u32>,
    /// This member has had this number.
    pub again: bool,
    /// This member has had a higher number before.
    pub behind: Option<u32>,
}

impl GroupOrder {
    pub fn new(members: usize) -> Self {
        Self { order: Vec::new(), members: vec![Seen::default(); members] }
    }

    /// `member` got message `id` under `number`.
    pub fn see(&mut self, member: usize, number: u32, id: u32) -> Sight {
        let at = number as usize;
        if self.order.len() <= at {
            self.order.resize(at + 1, None);
        }
        let first = *self.order[at].get_or_insert(id);
        let seen = &mut self.members[member];
        let (word, bit) = (at / 64, 1 << (at % 64));
        if seen.bits.len() <= word {
            seen.bits.resize(word + 1, 0);
        }
        let again = seen.bits[word] & bit != 0;
        seen.bits[word] |= bit;
        let behind = (number < seen.last).then_some(seen.last);
        seen.last = seen.last.max(number);
        Sight { instead_of: (first != id).then_some(first), again, behind }
    }

    pub fn has(&self, member: usize, number: u32) -> bool {
        let at = number as usize;
        self.members[member].bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}
