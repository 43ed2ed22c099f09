//! Bytes on their way out: what a send owns, and a pool that keeps sends from allocating.

use bytes::Bytes;

use crate::limits;

/// Bytes to send. The ring owns them while the send is in flight and gives them back with its completion.
#[derive(Debug)]
pub struct SendBuf {
    data: Data,
    /// How much of the front has been sent.
    start: usize,
}

#[derive(Debug)]
enum Data {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl SendBuf {
    /// What is yet to be sent.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.data {
            Data::Owned(vec) => &vec[self.start..],
            Data::Shared(bytes) => &bytes[self.start..],
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves the first `sent` bytes behind, after a short send.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, sent: usize) {
        assert!(sent <= self.len(), "more bytes sent than there were");
        self.start += sent;
    }

    /// The vector that this was made of, whole, if it was made of one.
    pub fn into_vec(self) -> Option<Vec<u8>> {
        match self.data {
            Data::Owned(vec) => Some(vec),
            Data::Shared(_) => None,
        }
    }
}

impl From<Vec<u8>> for SendBuf {
    fn from(vec: Vec<u8>) -> Self {
        Self { data: Data::Owned(vec), start: 0 }
    }
}

impl From<Bytes> for SendBuf {
    fn from(bytes: Bytes) -> Self {
        Self { data: Data::Shared(bytes), start: 0 }
    }
}

/// Vectors of three sizes that come and go, so that a send allocates only when the pool is empty.
///
/// It keeps at most a fixed number of each size; what is given back beyond that is freed, so that memory
/// goes back after a burst.
#[derive(Debug)]
pub struct SendPool {
    classes: [Class; 3],
    keep: usize,
}

#[derive(Debug)]
struct Class {
    bytes: usize,
    free: Vec<Vec<u8>>,
}

impl SendPool {
    /// A notify or a beat: a turn may send one to each of thousands of clients.
    pub const SMALL_BYTES: usize = 512;
    /// A turn's frames for one client.
    pub const MEDIUM_BYTES: usize = 4 << 10;
    /// A turn's calls for one backend.
    pub const LARGE_BYTES: usize = 64 << 10;

    /// A pool that keeps at most `keep` vectors of each size: as many as a turn has in flight, or sends allocate.
    pub fn new(keep: usize) -> Self {
        let class = |bytes| Class { bytes, free: Vec::new() };
        Self {
            classes: [class(Self::SMALL_BYTES), class(Self::MEDIUM_BYTES), class(Self::LARGE_BYTES)],
            keep,
        }
    }

    /// An empty vector with room for `len` bytes.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        match self.classes.iter_mut().find(|class| class.bytes >= len) {
            Some(class) => class.free.pop().unwrap_or_else(|| Vec::with_capacity(class.bytes)),
            None => Vec::with_capacity(len),
        }
    }

    /// Takes a vector back, to lend again if it is of one of the three sizes.
    pub fn put(&mut self, mut vec: Vec<u8>) {
        let keep = self.keep;
        if let Some(class) = self.classes.iter_mut().find(|class| class.bytes == vec.capacity())
            && class.free.len() < keep
        {
            vec.clear();
            class.free.push(vec);
        }
    }

    /// As [`SendPool::put`], for what a completion gave back.
    pub fn put_sent(&mut self, sent: SendBuf) {
        if let Some(vec) = sent.into_vec() {
            self.put(vec);
        }
    }
}

impl Default for SendPool {
    fn default() -> Self {
        Self::new(limits::POOLED_BUFFERS_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_lends_again_what_came_back_and_keeps_no_more_than_told() {
        let mut pool = SendPool::new(1);
        let (mut a, b) = (pool.take(10), pool.take(512));
        a.extend_from_slice(b"hello");
        let address = a.as_ptr();
        pool.put_sent(a.into());
        pool.put(b);
        let again = pool.take(1);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert_eq!(pool.classes[0].free.len(), 0);
        assert_eq!(pool.take(4097).capacity(), SendPool::LARGE_BYTES);
        assert!(pool.take(100_000).capacity() >= 100_000);
    }

    #[test]
    fn advance_leaves_the_rest() {
        let mut buf = SendBuf::from(Bytes::from_static(b"abcdef"));
        buf.advance(4);
        assert_eq!(buf.as_slice(), b"ef");
        buf.advance(2);
        assert!(buf.is_empty());
        assert_eq!(SendBuf::from(b"xyz".to_vec()).into_vec().as_deref(), Some(&b"xyz"[..]));
    }
}
