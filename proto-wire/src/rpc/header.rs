//! The RPC header: 64 bytes with fixed fields, little-endian, then extensions, then the body.
//! `spec/rpc.md` describes each byte.

use bytes::Bytes;
use thiserror::Error;

use crate::limits;
use crate::names::{Cursor, Route};
use crate::status::Code;

/// "MG" as it stands on the wire.
pub const MAGIC: [u8; 2] = *b"MG";
pub const VERSION: u8 = 1;
/// Bytes of the fixed part.
pub const FIXED_BYTES: usize = 64;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Kind {
    /// A call. With `ONE_WAY` no reply is sent.
    #[default]
    Call = 1,
    Reply = 2,
    /// The caller gave the call up.
    Cancel = 3,
    /// The callee says how many calls it will hold at once: `credit`.
    Credit = 4,
    Ping = 5,
    Pong = 6,
    /// No new calls here: finish and connect elsewhere.
    GoAway = 7,
}

/// Bits of `flags`.
pub mod flag {
    /// No reply is wanted.
    pub const ONE_WAY: u16 = 1;
    /// The callee may run it again without harm.
    pub const IDEMPOTENT: u16 = 2;
    /// In a reply over UDP: the call ran, and its reply waits to be fetched over a connection with the ticket in the body.
    pub const HELD: u16 = 4;
}

/// Types of extensions: u16 type, u16 length, value. An unknown one is skipped.
pub mod ext {
    /// user u64, device u64, route (17 bytes): on whose behalf a phone's call is made.
    pub const IDENTITY: u16 = 1;
    /// log_epoch u32, number u64: in a call what the phone has applied, in a reply what a sync gave.
    pub const CURSOR: u16 = 2;
    /// u32 ms: when to try again.
    pub const RETRY_AFTER: u16 = 3;
    /// The W3C traceparent's bytes.
    pub const TRACE: u16 = 4;
    /// The caller's token, as the phone sent it.
    pub const TOKEN: u16 = 5;
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// 0 for a session without a token.
    pub user: u64,
    pub device: u64,
    pub route: Route,
}

/// A decoded header. Fields that a kind does not use are 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    pub kind: Kind,
    pub flags: u16,
    pub body_bytes: u32,
    /// What is left of the caller's time, in ms; 0: none given.
    pub deadline_ms: u32,
    pub call_id: u64,
    pub method: u16,
    pub status: u16,
    pub attempt: u8,
    pub home: u8,
    pub section: u16,
    pub table_version: u64,
    pub owner_epoch: u64,
    pub business_priority: u8,
    pub user_priority: u8,
    /// In replies: the lowest (business, user) level that the callee admits now.
    pub admission: u16,
    /// The caller's service.
    pub service: u16,
    pub compression: u8,
    /// In replies and `Credit`: calls that the callee will hold at once on this connection.
    pub credit: u32,
    pub identity: Option<Identity>,
    pub cursor: Option<Cursor>,
    pub retry_after_ms: Option<u32>,
    pub trace: Option<Bytes>,
}

/// What makes a sequence of bytes no RPC frame. The connection is closed: no later byte can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("the first bytes are {0:02x?}, not \"MG\"")]
    Magic([u8; 2]),
    #[error("RPC version {0} is not spoken here")]
    Version(u8),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("a header of {0} bytes is outside 64 to {max}", max = limits::MAX_RPC_HEADER_BYTES)]
    HeaderLength(u16),
    #[error("a body of {0} bytes is over the limit of {max}", max = limits::MAX_RPC_BODY_BYTES)]
    BodyLength(u32),
    #[error("an extension runs over the end of the header, or has the wrong length for its type")]
    Extension,
}

/// Takes the next whole frame from the front of `input`: its header, and where its body lies.
///
/// Returns `Ok(None)` when bytes are missing. `Ok(Some((header, header_bytes)))`: the body is
/// `input[header_bytes..header_bytes + header.body_bytes]`.
#[inline]
pub fn next_header(input: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    if input.len() < 8 {
        return check_start(input).map(|()| None);
    }
    check_start(input)?;
    let header_bytes = u16::from_le_bytes([input[6], input[7]]);
    if usize::from(header_bytes) < FIXED_BYTES || usize::from(header_bytes) > limits::MAX_RPC_HEADER_BYTES {
        return Err(HeaderError::HeaderLength(header_bytes));
    }
    let Some(fixed) = input.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let mut header = read_fixed(fixed)?;
    if header.body_bytes as usize > limits::MAX_RPC_BODY_BYTES {
        return Err(HeaderError::BodyLength(header.body_bytes));
    }
    let header_bytes = usize::from(header_bytes);
    if input.len() < header_bytes + header.body_bytes as usize {
        return Ok(None);
    }
    read_extensions(&input[FIXED_BYTES..header_bytes], &mut header)?;
    Ok(Some((header, header_bytes)))
}

impl Header {
    /// Appends header and body. `body_bytes` of the header is taken from `body`.
    #[inline]
    pub fn put(&self, body: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.fixed(body.len() as u32));
        if let Some(identity) = &self.identity {
            put_extension(out, ext::IDENTITY, 16 + Route::BYTES);
            out.extend_from_slice(&identity.user.to_le_bytes());
            out.extend_from_slice(&identity.device.to_le_bytes());
            identity.route.put(out);
        }
        if let Some(cursor) = self.cursor {
            put_extension(out, ext::CURSOR, Cursor::BYTES);
            cursor.put(out);
        }
        if let Some(ms) = self.retry_after_ms {
            put_extension(out, ext::RETRY_AFTER, 4);
            out.extend_from_slice(&ms.to_le_bytes());
        }
        if let Some(trace) = &self.trace {
            put_extension(out, ext::TRACE, trace.len());
            out.extend_from_slice(trace);
        }
        let header_bytes = out.len() - start;
        debug_assert!(header_bytes <= limits::MAX_RPC_HEADER_BYTES);
        out[start + 6..start + 8].copy_from_slice(&(header_bytes as u16).to_le_bytes());
        out.extend_from_slice(body);
    }

    pub fn code(&self) -> Code {
        Code(self.status)
    }

    #[inline]
    fn fixed(&self, body_bytes: u32) -> [u8; FIXED_BYTES] {
        let mut b = [0; FIXED_BYTES];
        b[0..2].copy_from_slice(&MAGIC);
        b[2] = VERSION;
        b[3] = self.kind as u8;
        b[4..6].copy_from_slice(&self.flags.to_le_bytes());
        b[8..12].copy_from_slice(&body_bytes.to_le_bytes());
        b[12..16].copy_from_slice(&self.deadline_ms.to_le_bytes());
        b[16..24].copy_from_slice(&self.call_id.to_le_bytes());
        b[24..26].copy_from_slice(&self.method.to_le_bytes());
        b[26..28].copy_from_slice(&self.status.to_le_bytes());
        b[28] = self.attempt;
        b[29] = self.home;
        b[30..32].copy_from_slice(&self.section.to_le_bytes());
        b[32..40].copy_from_slice(&self.table_version.to_le_bytes());
        b[40..48].copy_from_slice(&self.owner_epoch.to_le_bytes());
        b[48] = self.business_priority;
        b[49] = self.user_priority;
        b[50..52].copy_from_slice(&self.admission.to_le_bytes());
        b[52..54].copy_from_slice(&self.service.to_le_bytes());
        b[54] = self.compression;
        b[56..60].copy_from_slice(&self.credit.to_le_bytes());
        b
    }
}

/// Sets what is left of the caller's time in a frame that was put before and waited.
pub fn set_deadline(frame: &mut [u8], left_ms: u32) {
    frame[12..16].copy_from_slice(&left_ms.to_le_bytes());
}

/// Whether a frame that was put before wants no reply.
pub fn is_one_way(frame: &[u8]) -> bool {
    u16::from_le_bytes([frame[4], frame[5]]) & flag::ONE_WAY != 0
}

#[inline]
fn check_start(input: &[u8]) -> Result<(), HeaderError> {
    match input {
        [a, b, ..] if [*a, *b] != MAGIC => Err(HeaderError::Magic([*a, *b])),
        [a] if *a != MAGIC[0] => Err(HeaderError::Magic([*a, 0])),
        [_, _, version, ..] if *version != VERSION => Err(HeaderError::Version(*version)),
        _ => Ok(()),
    }
}

#[inline]
fn read_fixed(b: &[u8; FIXED_BYTES]) -> Result<Header, HeaderError> {
    let u16_at = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    Ok(Header {
        kind: kind_of(b[3])?,
        flags: u16_at(4),
        body_bytes: u32_at(8),
        deadline_ms: u32_at(12),
        call_id: u64_at(16),
        method: u16_at(24),
        status: u16_at(26),
        attempt: b[28],
        home: b[29],
        section: u16_at(30),
        table_version: u64_at(32),
        owner_epoch: u64_at(40),
        business_priority: b[48],
        user_priority: b[49],
        admission: u16_at(50),
        service: u16_at(52),
        compression: b[54],
        credit: u32_at(56),
        ..Header::default()
    })
}

fn kind_of(value: u8) -> Result<Kind, HeaderError> {
    Ok(match value {
        1 => Kind::Call,
        2 => Kind::Reply,
        3 => Kind::Cancel,
        4 => Kind::Credit,
        5 => Kind::Ping,
        6 => Kind::Pong,
        7 => Kind::GoAway,
        other => return Err(HeaderError::Kind(other)),
    })
}

fn put_extension(out: &mut Vec<u8>, kind: u16, bytes: usize) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(bytes as u16).to_le_bytes());
}

fn read_extensions(mut rest: &[u8], header: &mut Header) -> Result<(), HeaderError> {
    while !rest.is_empty() {
        let ([k0, k1, l0, l1], tail) = rest.split_first_chunk::<4>().ok_or(HeaderError::Extension)?;
        let bytes = usize::from(u16::from_le_bytes([*l0, *l1]));
        let (value, after) = tail.split_at_checked(bytes).ok_or(HeaderError::Extension)?;
        match u16::from_le_bytes([*k0, *k1]) {
            ext::IDENTITY => header.identity = Some(read_identity(value)?),
            ext::CURSOR => {
                header.cursor =
                    Some(Cursor::from_bytes(value.try_into().map_err(|_| HeaderError::Extension)?));
            }
            ext::RETRY_AFTER => {
                header.retry_after_ms =
                    Some(u32::from_le_bytes(value.try_into().map_err(|_| HeaderError::Extension)?));
            }
            ext::TRACE => header.trace = Some(Bytes::copy_from_slice(value)),
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

fn read_identity(value: &[u8]) -> Result<Identity, HeaderError> {
    let (user, rest) = value.split_first_chunk::<8>().ok_or(HeaderError::Extension)?;
    let (device, route) = rest.split_first_chunk::<8>().ok_or(HeaderError::Extension)?;
    let route: &[u8; Route::BYTES] = route.try_into().map_err(|_| HeaderError::Extension)?;
    Ok(Identity {
        user: u64::from_le_bytes(*user),
        device: u64::from_le_bytes(*device),
        route: Route::from_bytes(route),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(call_id: u64, method: u16, with: u8) -> Header {
        Header {
            kind: if with & 1 == 0 { Kind::Call } else { Kind::Reply },
            flags: flag::IDEMPOTENT,
            deadline_ms: 1500,
            call_id,
            method,
            status: 7,
            attempt: 2,
            home: 3,
            section: 4095,
            table_version: 1 << 40,
            owner_epoch: 1 << 41,
            business_priority: 5,
            user_priority: 6,
            admission: 0x0506,
            service: 9,
            compression: 1,
            credit: 77,
            identity: (with & 2 != 0).then_some(Identity {
                user: 11,
                device: 12,
                route: Route { gateway: 13, shard: 14, slot: 15, generation: 16 },
            }),
            cursor: (with & 4 != 0).then(|| Cursor::new(1, 2)),
            retry_after_ms: (with & 8 != 0).then_some(250),
            trace: (with & 16 != 0).then(|| Bytes::from_static(b"00-abc")),
            body_bytes: 0,
        }
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_put(call_id: u64, method: u16, with: u8, body: Vec<u8>) {
            let mut header = sample(call_id, method, with);
            let mut out = Vec::new();
            header.put(&body, &mut out);
            header.body_bytes = body.len() as u32;
            for cut in 0..out.len() {
                prop_assert_eq!(next_header(&out[..cut]), Ok(None));
            }
            let (read, header_bytes) = next_header(&out).expect("well formed").expect("whole");
            prop_assert_eq!(&out[header_bytes..], &body[..]);
            prop_assert_eq!(read, header);
        }

        #[test]
        fn any_bytes_are_answered(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), honest: bool) {
            if honest && bytes.len() >= 12 {
                bytes[..4].copy_from_slice(&[b'M', b'G', VERSION, 1]);
                bytes[6..8].copy_from_slice(&80u16.to_le_bytes());
                bytes[8..12].fill(0);
            }
            let _ = next_header(&bytes);
        }
    }

    #[test]
    fn an_unknown_extension_is_skipped_and_a_broken_one_refused() {
        let mut out = Vec::new();
        Header::default().put(&[], &mut out);
        out.extend_from_slice(&[0xff, 0x7f, 2, 0, 9, 9]);
        out[6] = 70;
        assert!(next_header(&out).expect("skipped").is_some());
        out[66] = 3;
        assert_eq!(next_header(&out), Err(HeaderError::Extension));
    }

    #[test]
    fn a_length_over_its_limit_is_refused_before_the_body_comes() {
        let mut out = Vec::new();
        Header::default().put(&[], &mut out);
        out[8..12].copy_from_slice(&(100u32 << 20).to_le_bytes());
        assert_eq!(next_header(&out), Err(HeaderError::BodyLength(100 << 20)));
        assert_eq!(next_header(b"GET / HT"), Err(HeaderError::Magic(*b"GE")));
    }
}
