//! The names that travel through the kernel: tokens, slots, error numbers.

use std::fmt;

/// What a completion is told apart by: op 8 bits, generation 24 bits, slot 32 bits.
///
/// The caller chooses all three. The generation must change whenever the slot is given to another
/// connection: completions of the old one can come after the slot's reuse
/// (Linux 6.18, test `a_stale_completion_is_told_by_its_generation`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The op that the wrapper keeps for itself. Every other value is the caller's.
    pub const RESERVED_OP: u8 = 255;
    /// Generations run from 0 to this and wrap.
    pub const GENERATION_MAX: u32 = (1 << 24) - 1;

    /// # Panics
    /// If `op` is [`Token::RESERVED_OP`]: such a token could forge the completion of a request that owns
    /// memory. The generation is taken modulo 2^24.
    #[inline]
    pub const fn new(op: u8, generation: u32, slot: u32) -> Self {
        assert!(op != Self::RESERVED_OP, "op 255 is reserved for the ring");
        Self::pack(op, generation, slot)
    }

    #[inline]
    pub const fn op(self) -> u8 {
        (self.0 >> 56) as u8
    }

    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION_MAX
    }

    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn reserved(detail: u32, index: u32) -> Self {
        Self::pack(Self::RESERVED_OP, detail, index)
    }

    pub(crate) const fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    pub(crate) const fn user_data(self) -> u64 {
        self.0
    }

    const fn pack(op: u8, generation: u32, slot: u32) -> Self {
        Self((op as u64) << 56 | ((generation & Self::GENERATION_MAX) as u64) << 32 | slot as u64)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(op {} generation {} slot {})", self.op(), self.generation(), self.slot())
    }
}

/// A place in a ring's table of direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// An error number of the kernel, as a completion carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Nothing to receive, or no room to send.
    pub const AGAIN: Self = Self(libc::EAGAIN);
    /// The buffer group was empty; a multishot receive has ended. Re-arm when buffers come back.
    pub const NO_BUFFERS: Self = Self(libc::ENOBUFS);
    /// Cancelled.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// The table of direct descriptors was full: the accepted socket was closed, the multishot has ended.
    pub const TABLE_FULL: Self = Self(libc::ENFILE);
    /// No such descriptor, or an empty slot.
    pub const BAD_DESCRIPTOR: Self = Self(libc::EBADF);
    pub const NOT_FOUND: Self = Self(libc::ENOENT);
    pub const BROKEN_PIPE: Self = Self(libc::EPIPE);
    pub const RESET: Self = Self(libc::ECONNRESET);
    pub const REFUSED: Self = Self(libc::ECONNREFUSED);
    pub const TIMED_OUT: Self = Self(libc::ETIMEDOUT);
    pub const INTERRUPTED: Self = Self(libc::EINTR);
    pub const NO_MEMORY: Self = Self(libc::ENOMEM);
    pub const ADDRESS_UNAVAILABLE: Self = Self(libc::EADDRNOTAVAIL);
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {})", self.0, std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_three_parts() {
        let token = Token::new(254, Token::GENERATION_MAX, u32::MAX);
        assert_eq!((token.op(), token.generation(), token.slot()), (254, Token::GENERATION_MAX, u32::MAX));
        let token = Token::new(0, 1 << 24, 7);
        assert_eq!((token.op(), token.generation(), token.slot()), (0, 0, 7));
    }

    #[test]
    #[should_panic(expected = "reserved")]
    fn the_reserved_op_is_refused() {
        let _ = Token::new(255, 0, 0);
    }
}
