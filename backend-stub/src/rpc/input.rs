//! What one connection has sent and nobody has taken yet: a buffer that is read into, and given out as slices of itself.

use std::cell::OnceCell;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::limits;

/// The buffer of a connection's reader.
pub struct Input {
    /// All of it can be written; the first `filled` bytes came from the peer.
    buffer: BytesMut,
    filled: usize,
    /// Reads in a row that took little of it.
    calm: u32,
}

/// What has come, while its frames are taken.
pub struct Taken {
    /// The whole buffer, if bodies are slices of it; else it stands in `kept`.
    shared: Option<Bytes>,
    kept: BytesMut,
    /// A copy of what came, made for the first body.
    copy: OnceCell<Bytes>,
    filled: usize,
}

impl Default for Input {
    fn default() -> Self {
        Self::of(limits::READ_BYTES)
    }
}

impl Input {
    fn of(bytes: usize) -> Self {
        Self { buffer: BytesMut::zeroed(bytes), filled: 0, calm: 0 }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes have come.
    pub fn came(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The last read took all that there was room for.
    pub fn is_full(&self) -> bool {
        self.filled == self.buffer.len()
    }

    /// Lends out what has come; give it back with `put_back`.
    pub fn take(&mut self) -> Taken {
        let (buffer, filled) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.filled));
        if filled < limits::COPY_BYTES {
            Taken { shared: None, kept: buffer, copy: OnceCell::new(), filled }
        } else {
            Taken { shared: Some(buffer.freeze()), kept: BytesMut::new(), copy: OnceCell::new(), filled }
        }
    }

    /// The first `used` bytes are done with. The rest moves to the front, and finds room behind it.
    pub fn put_back(&mut self, taken: Taken, used: usize) {
        let Taken { shared, kept, filled, .. } = taken;
        let rest = filled - used;
        // An error: a handler has kept a body.
        let whole = shared.map_or(Ok(kept), Bytes::try_into_mut);
        let was = whole.as_ref().map_or_else(Bytes::len, |buffer| buffer.len());
        self.calm = if filled < was / 8 { self.calm + 1 } else { 0 };
        let mut wanted = wanted(was, filled, rest);
        if wanted == was && (whole.is_err() || self.calm >= limits::CALM_READS) {
            self.calm = 0;
            wanted = (filled * 2).next_power_of_two().clamp(limits::READ_BYTES.min(was), was);
        }
        let buffer = match whole {
            Ok(mut buffer) if wanted == was => {
                buffer.copy_within(used..filled, 0);
                buffer
            }
            Ok(buffer) => moved(&buffer[used..filled], wanted),
            Err(bytes) => moved(&bytes[used..filled], wanted),
        };
        (self.buffer, self.filled) = (buffer, rest);
    }
}

fn moved(rest: &[u8], bytes: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(bytes);
    buffer[..rest.len()].copy_from_slice(rest);
    buffer
}

/// The size for the next read. A frame that is longer than the buffer doubles it: its length was checked, so this ends.
fn wanted(was: usize, filled: usize, rest: usize) -> usize {
    if rest == was || (filled == was && was < limits::READ_MAX_BYTES) {
        was * 2
    } else if was > limits::READ_MAX_BYTES && rest < limits::READ_MAX_BYTES {
        limits::READ_MAX_BYTES
    } else {
        was
    }
}

impl Taken {
    pub fn bytes(&self) -> &[u8] {
        let buffer = self.shared.as_deref().unwrap_or(&self.kept);
        &buffer[..self.filled]
    }

    /// A part of it that outlives the next read.
    pub fn body(&self, range: Range<usize>) -> Bytes {
        if range.is_empty() {
            return Bytes::new();
        }
        match &self.shared {
            Some(shared) => shared.slice(range),
            None => self.copy.get_or_init(|| Bytes::copy_from_slice(self.bytes())).slice(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 64 * 1024;

    fn fill(input: &mut Input, bytes: usize, with: u8) -> usize {
        let room = input.room();
        let bytes = bytes.min(room.len());
        room[..bytes].fill(with);
        input.came(bytes);
        bytes
    }

    #[test]
    fn bodies_outlive_what_comes_after_them() {
        for bytes in [100, 10_000, 20_000, ROOM] {
            let mut input = Input::of(ROOM);
            assert_eq!(fill(&mut input, bytes, 1), bytes);
            let taken = input.take();
            let (kept, empty) = (taken.body(10..90), taken.body(5..5));
            input.put_back(taken, bytes - 7);
            assert!(empty.is_empty() && !input.is_empty());
            fill(&mut input, 20_000, 2);
            let again = input.take();
            assert_eq!(&again.bytes()[..9], &[1, 1, 1, 1, 1, 1, 1, 2, 2], "{bytes}");
            assert_eq!(&kept[..], &[1; 80], "{bytes}");
            input.put_back(again, 0);
        }
    }

    #[test]
    fn a_long_frame_finds_room_and_the_room_goes_again() {
        let mut input = Input::default();
        let mut came = 0;
        while came < 3 * limits::READ_MAX_BYTES {
            came += fill(&mut input, usize::MAX, 3);
            assert!(input.is_full());
            let taken = input.take();
            assert_eq!(taken.bytes().len(), came);
            input.put_back(taken, 0);
        }
        let taken = input.take();
        input.put_back(taken, came);
        assert!(input.is_empty() && input.room().len() == limits::READ_MAX_BYTES);
    }

    #[test]
    fn a_buffer_that_grew_goes_when_little_comes() {
        let mut input = Input::default();
        while input.room().len() < limits::READ_MAX_BYTES {
            let bytes = fill(&mut input, usize::MAX, 3);
            let taken = input.take();
            input.put_back(taken, bytes);
        }
        for at in 0..=limits::CALM_READS {
            assert_eq!(input.room().len() == limits::READ_MAX_BYTES, at < limits::CALM_READS, "{at}");
            fill(&mut input, 1_000, at as u8);
            let taken = input.take();
            assert!(taken.bytes() == [at as u8; 1_000]);
            input.put_back(taken, 1_000);
        }
        assert_eq!(input.room().len(), limits::READ_BYTES);
    }

    #[test]
    fn a_buffer_that_nobody_kept_is_used_again() {
        let mut input = Input::of(ROOM);
        let at = input.room().as_ptr();
        for bytes in [100, 20_000, 30_000] {
            fill(&mut input, bytes, 1);
            let taken = input.take();
            drop(taken.body(3..bytes));
            input.put_back(taken, bytes);
            assert_eq!(input.room().as_ptr(), at, "{bytes}");
        }
    }
}
