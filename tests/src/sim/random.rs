//! The one source of chance in a run.

/// The phones' generator, with what a run draws from it.
#[derive(Debug)]
pub struct Random(proto_wire::random::Random);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(proto_wire::random::Random::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// From 0 to `end`, without it; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Both ends are possible.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// Small values are as likely as large ones: each power of two has its turn.
    pub fn spread(&mut self, to: u64) -> u64 {
        let bits = u64::from(u64::BITS - to.leading_zeros());
        let most = 1 << self.below(bits + 1);
        self.below(most.min(to) + 1)
    }

    /// # Panics
    /// When there is nothing to pick from.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
