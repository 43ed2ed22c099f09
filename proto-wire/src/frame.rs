//! Client frames: a type byte, a varint length, a body. `spec/client.md` describes each byte.
//!
//! Nothing here copies a body: a decoded frame borrows from the bytes that came in, and an encoder
//! appends header and body to the buffer that will be sent.

use thiserror::Error;

use crate::limits;
use crate::names::Cursor;
use crate::status::Code;
use crate::varint::{self, VarintError};

/// The version that this code speaks. A peer of another minor version of the same major is welcome.
pub const VERSION_MAJOR: u32 = 1;
pub const VERSION_MINOR: u32 = 0;

/// The types of frames.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const WELCOME: u8 = 0x02;
    pub const BEAT: u8 = 0x03;
    pub const CALL: u8 = 0x04;
    pub const REPLY: u8 = 0x05;
    pub const NOTIFY: u8 = 0x06;
    pub const GOAWAY: u8 = 0x07;
    pub const CLOSE: u8 = 0x08;

    // In the range that may be skipped, so that a peer skips what it does not know. All but EVENT are reserved for later
    // versions.

    /// The server sets another heartbeat interval.
    pub const INTERVAL: u8 = 0x80;
    /// The phone tells its state: foreground, battery, network.
    pub const STATE: u8 = 0x81;
    /// The phone gives a call up.
    pub const CANCEL: u8 = 0x82;
    /// A notice that stands in no log.
    pub const EVENT: u8 = 0x83;
    /// The server asks for a trace of the phone's calls.
    pub const TRACE: u8 = 0x84;

    pub const fn is_skippable(kind: u8) -> bool {
        kind >= 0x80 && kind <= 0xbf
    }

    pub const fn is_known(kind: u8) -> bool {
        kind >= HELLO && kind <= CLOSE
    }
}

/// What makes a sequence of bytes no frame. Each closes the connection and has its own counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("frame type {0:#04x} is unknown and may not be skipped")]
    UnknownType(u8),
    #[error("the length of a frame is no varint: {0}")]
    Length(#[from] VarintError),
    #[error("a frame of type {kind:#04x} has {bytes} bytes, more than the {limit} allowed")]
    TooLarge { kind: u8, bytes: usize, limit: usize },
    #[error("the body of a frame of type {kind:#04x} is malformed: {what}")]
    Malformed { kind: u8, what: &'static str },
}

/// One frame, its body still as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
}

/// Takes the next whole frame from the front of `input`; `Ok(None)` when bytes are missing.
///
/// Stateless: a caller that keeps the unread bytes and appends what comes gets the same frames whatever
/// the cuts. A length over its limit is refused as soon as it is read, before its body came.
pub fn next_frame<'a>(input: &mut &'a [u8], max_body_bytes: usize) -> Result<Option<Frame<'a>>, FrameError> {
    let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
    let limit = match kind {
        kind::HELLO => limits::MAX_HELLO_BODY_BYTES.min(max_body_bytes),
        kind if kind::is_known(kind) => max_body_bytes,
        kind if kind::is_skippable(kind) => limits::MAX_SKIPPABLE_BODY_BYTES,
        kind => return Err(FrameError::UnknownType(kind)),
    };
    let Some((length, taken)) = varint::read(rest, limits::MAX_LENGTH_BYTES)? else { return Ok(None) };
    let length = length as usize;
    if length > limit {
        return Err(FrameError::TooLarge { kind, bytes: length, limit });
    }
    let rest = &rest[taken..];
    if rest.len() < length {
        return Ok(None);
    }
    let (body, after) = rest.split_at(length);
    *input = after;
    Ok(Some(Frame { kind, body }))
}

/// Appends the type and the length of a frame whose body of `body_bytes` follows.
pub fn put_header(out: &mut Vec<u8>, kind: u8, body_bytes: usize) {
    debug_assert!(body_bytes <= limits::MAX_FRAME_BODY_BYTES);
    out.push(kind);
    varint::put(out, body_bytes as u64);
}

/// Appends a frame with a protobuf body (HELLO, WELCOME, GOAWAY, CLOSE).
pub fn put_message(out: &mut Vec<u8>, kind: u8, message: &impl prost::Message) {
    put_header(out, kind, message.encoded_len());
    message.encode(out).expect("a Vec grows");
}

/// A heartbeat is two bytes, or carries what the phone has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    pub applied: Option<Cursor>,
}

impl Beat {
    /// The empty beat as it stands on the wire, both ways.
    pub const EMPTY: [u8; 2] = [kind::BEAT, 0];

    pub fn put(self, out: &mut Vec<u8>) {
        put_header(out, kind::BEAT, if self.applied.is_some() { Cursor::BYTES } else { 0 });
        if let Some(applied) = self.applied {
            applied.put(out);
        }
    }

    pub fn parse(body: &[u8]) -> Result<Self, FrameError> {
        match body.len() {
            0 => Ok(Self { applied: None }),
            Cursor::BYTES => Ok(Self { applied: Some(cursor(kind::BEAT, &mut &*body)?) }),
            _ => Err(malformed(kind::BEAT, "a beat has 0 or 12 bytes")),
        }
    }
}

/// CALL: flags u8, attempt u8, method u16, id u32, deadline u32 in ms, [applied 12], body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Chosen by the phone, unique among its calls in flight.
    pub id: u32,
    pub method: u16,
    /// 0 for the first time, then counted up; an upload's own id tells repeats.
    pub attempt: u8,
    /// How long the phone will wait. 0: as long as the method's own deadline.
    pub deadline_ms: u32,
    pub applied: Option<Cursor>,
    pub body: &'a [u8],
}

impl<'a> Call<'a> {
    const FIXED: usize = 12;
    /// What stands before the body at most.
    pub const MAX_HEAD_BYTES: usize = Self::FIXED + Cursor::BYTES;
    const HAS_APPLIED: u8 = 1;

    pub fn put(&self, out: &mut Vec<u8>) {
        let applied_bytes = if self.applied.is_some() { Cursor::BYTES } else { 0 };
        put_header(out, kind::CALL, Self::FIXED + applied_bytes + self.body.len());
        out.push(if self.applied.is_some() { Self::HAS_APPLIED } else { 0 });
        out.push(self.attempt);
        out.extend_from_slice(&self.method.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.deadline_ms.to_le_bytes());
        if let Some(applied) = self.applied {
            applied.put(out);
        }
        out.extend_from_slice(self.body);
    }

    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut rest = body;
        let fixed = take::<12>(kind::CALL, &mut rest)?;
        let [flags, attempt, m0, m1, i0, i1, i2, i3, d0, d1, d2, d3] = fixed;
        check_flags(kind::CALL, flags, Self::HAS_APPLIED)?;
        let applied = optional_cursor(kind::CALL, flags & Self::HAS_APPLIED != 0, &mut rest)?;
        Ok(Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            method: u16::from_le_bytes([m0, m1]),
            attempt,
            deadline_ms: u32::from_le_bytes([d0, d1, d2, d3]),
            applied,
            body: rest,
        })
    }
}

/// REPLY: flags u8, zero u8, status u16, id u32, [given 12], [retry-after u32 in ms], body.
///
/// The body of a reply whose status is not `Ok` is one UTF-8 sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    pub id: u32,
    pub status: Code,
    /// The highest number that a sync's page gave.
    pub given: Option<Cursor>,
    pub retry_after_ms: Option<u32>,
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    const FIXED: usize = 8;
    const HAS_GIVEN: u8 = 1;
    const HAS_RETRY_AFTER: u8 = 2;

    pub fn put(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        let mut bytes = Self::FIXED + self.body.len();
        if self.given.is_some() {
            flags |= Self::HAS_GIVEN;
            bytes += Cursor::BYTES;
        }
        if self.retry_after_ms.is_some() {
            flags |= Self::HAS_RETRY_AFTER;
            bytes += 4;
        }
        put_header(out, kind::REPLY, bytes);
        out.extend_from_slice(&[flags, 0]);
        out.extend_from_slice(&self.status.0.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        if let Some(given) = self.given {
            given.put(out);
        }
        if let Some(ms) = self.retry_after_ms {
            out.extend_from_slice(&ms.to_le_bytes());
        }
        out.extend_from_slice(self.body);
    }

    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut rest = body;
        let [flags, zero, s0, s1, i0, i1, i2, i3] = take::<8>(kind::REPLY, &mut rest)?;
        check_flags(kind::REPLY, flags, Self::HAS_GIVEN | Self::HAS_RETRY_AFTER)?;
        if zero != 0 {
            return Err(malformed(kind::REPLY, "the second byte is not zero"));
        }
        let given = optional_cursor(kind::REPLY, flags & Self::HAS_GIVEN != 0, &mut rest)?;
        let retry_after_ms = match flags & Self::HAS_RETRY_AFTER {
            0 => None,
            _ => Some(u32::from_le_bytes(take(kind::REPLY, &mut rest)?)),
        };
        Ok(Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            status: Code(u16::from_le_bytes([s0, s1])),
            given,
            retry_after_ms,
            body: rest,
        })
    }
}

/// How urgent news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Rides on the next heartbeat.
    Lazy = 0,
    /// Waits for the radio: a frame from the phone, or a window.
    Soon = 1,
    /// At once.
    Now = 2,
}

impl Class {
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Class::Lazy),
            1 => Some(Class::Soon),
            2 => Some(Class::Now),
            _ => None,
        }
    }
}

/// Changes that came with a notify, so that a phone whose cursor is `prev` needs no round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inline<'a> {
    /// The number that the phone must have applied for these to fit.
    pub prev: u64,
    /// An encoded `Page`.
    pub page: &'a [u8],
}

/// NOTIFY: flags u8, class u8, log_epoch u32, newest u64, [prev u64, page].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify<'a> {
    pub class: Class,
    pub newest: Cursor,
    pub inline: Option<Inline<'a>>,
}

impl<'a> Notify<'a> {
    const FIXED: usize = 2 + Cursor::BYTES;
    const HAS_INLINE: u8 = 1;

    pub fn put(&self, out: &mut Vec<u8>) {
        let inline_bytes = self.inline.map_or(0, |inline| 8 + inline.page.len());
        put_header(out, kind::NOTIFY, Self::FIXED + inline_bytes);
        out.push(if self.inline.is_some() { Self::HAS_INLINE } else { 0 });
        out.push(self.class as u8);
        self.newest.put(out);
        if let Some(inline) = self.inline {
            out.extend_from_slice(&inline.prev.to_le_bytes());
            out.extend_from_slice(inline.page);
        }
    }

    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut rest = body;
        let [flags, class] = take::<2>(kind::NOTIFY, &mut rest)?;
        check_flags(kind::NOTIFY, flags, Self::HAS_INLINE)?;
        let class =
            Class::from_u8(class).ok_or(malformed(kind::NOTIFY, "the class is none of lazy, soon, now"))?;
        let newest = cursor(kind::NOTIFY, &mut rest)?;
        let inline = match flags & Self::HAS_INLINE {
            0 if !rest.is_empty() => return Err(malformed(kind::NOTIFY, "bytes follow that no flag names")),
            0 => None,
            _ => {
                let prev = u64::from_le_bytes(take(kind::NOTIFY, &mut rest)?);
                Some(Inline { prev, page: rest })
            }
        };
        Ok(Self { class, newest, inline })
    }
}

fn malformed(kind: u8, what: &'static str) -> FrameError {
    FrameError::Malformed { kind, what }
}

fn check_flags(kind: u8, flags: u8, known: u8) -> Result<(), FrameError> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(malformed(kind, "a flag is set that this version does not know"))
    }
}

fn take<const N: usize>(kind: u8, rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(malformed(kind, "it is too short"))?;
    *rest = tail;
    Ok(*head)
}

fn cursor(kind: u8, rest: &mut &[u8]) -> Result<Cursor, FrameError> {
    Ok(Cursor::from_bytes(&take(kind, rest)?))
}

fn optional_cursor(kind: u8, present: bool, rest: &mut &[u8]) -> Result<Option<Cursor>, FrameError> {
    if present { cursor(kind, rest).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Option<Cursor>> {
        proptest::option::of((any::<u32>(), any::<u64>()).prop_map(|(e, n)| Cursor::new(e, n)))
    }

    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..200)
    }

    fn only_frame(bytes: &[u8]) -> Frame<'_> {
        let mut input = bytes;
        let frame = next_frame(&mut input, limits::MAX_FRAME_BODY_BYTES).expect("a frame").expect("whole");
        assert!(input.is_empty());
        frame
    }

    proptest! {
        #[test]
        fn a_call_is_read_as_it_was_put(
            id: u32, method: u16, attempt: u8, deadline_ms: u32, applied in cursors(), body in bodies()
        ) {
            let call = Call { id, method, attempt, deadline_ms, applied, body: &body };
            let mut out = Vec::new();
            call.put(&mut out);
            prop_assert_eq!(Call::parse(only_frame(&out).body), Ok(call));
        }

        #[test]
        fn a_reply_is_read_as_it_was_put(
            id: u32, status: u16, given in cursors(), retry_after_ms: Option<u32>, body in bodies()
        ) {
            let reply = Reply { id, status: Code(status), given, retry_after_ms, body: &body };
            let mut out = Vec::new();
            reply.put(&mut out);
            prop_assert_eq!(Reply::parse(only_frame(&out).body), Ok(reply));
        }

        #[test]
        fn a_notify_is_read_as_it_was_put(newest in cursors(), prev: Option<u64>, page in bodies()) {
            let inline = prev.map(|prev| Inline { prev, page: &page });
            let notify = Notify { class: Class::Soon, newest: newest.unwrap_or_default(), inline };
            let mut out = Vec::new();
            notify.put(&mut out);
            prop_assert_eq!(Notify::parse(only_frame(&out).body), Ok(notify));
        }

        #[test]
        fn frames_do_not_depend_on_the_cuts(
            frames in proptest::collection::vec((1u8..=8, bodies()), 1..6), cuts in proptest::collection::vec(1usize..40, 1..20)
        ) {
            let mut stream = Vec::new();
            for (kind, body) in &frames {
                put_header(&mut stream, *kind, body.len());
                stream.extend_from_slice(body);
            }
            let (mut got, mut held, mut fed) = (Vec::new(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while fed < stream.len() {
                let step = (*cuts.next().expect("endless")).min(stream.len() - fed);
                held.extend_from_slice(&stream[fed..fed + step]);
                fed += step;
                let mut input = &held[..];
                while let Some(frame) = next_frame(&mut input, 1 << 16).expect("well formed") {
                    got.push((frame.kind, frame.body.to_vec()));
                }
                held = input.to_vec();
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut input = &bytes[..];
            while let Ok(Some(frame)) = next_frame(&mut input, 1 << 10) {
                let _ = (Beat::parse(frame.body), Call::parse(frame.body), Reply::parse(frame.body), Notify::parse(frame.body));
            }
        }
    }

    #[test]
    fn a_beat_is_two_bytes() {
        let mut out = Vec::new();
        Beat { applied: None }.put(&mut out);
        assert_eq!(out, Beat::EMPTY);
        assert_eq!(Beat::parse(&[]), Ok(Beat { applied: None }));
        assert!(Beat::parse(&[0]).is_err());
    }

    #[test]
    fn what_is_no_frame_is_told_early() {
        fn read(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
            next_frame(&mut &*bytes, 1000)
        }
        assert_eq!(read(b"GET / HTTP/1.1"), Err(FrameError::UnknownType(b'G')));
        assert_eq!(read(&[kind::CALL, 0x80, 0x00]), Err(FrameError::Length(VarintError::Overlong)));
        assert_eq!(read(&[kind::CALL, 0xff, 0xff, 0xff]), Err(FrameError::Length(VarintError::TooLarge)));
        assert_eq!(
            read(&[kind::CALL, 0xe9, 0x07]),
            Err(FrameError::TooLarge { kind: 4, bytes: 1001, limit: 1000 })
        );
        assert_eq!(read(&[kind::EVENT, 0x01, 0xaa]), Ok(Some(Frame { kind: kind::EVENT, body: &[0xaa] })));
        assert!(matches!(read(&[0xbf, 0x81, 0x20]), Err(FrameError::TooLarge { .. })));
    }
}
