//! Pages as they go over the wire: written field by field from stored bodies, without decoding them.

use bytes::{BufMut, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::values::Body;

/// A page being written. Its changes come in order; its ends are known last, and the order of fields
/// means nothing in protobuf.
pub struct PageWriter {
    out: Vec<u8>,
    changes: usize,
}

impl PageWriter {
    pub fn new() -> Self {
        Self { out: Vec::with_capacity(256), changes: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn changes(&self) -> usize {
        self.changes
    }

    /// A body that cannot be read was checked before it came here; it is left out.
    pub fn change(&mut self, number: u64, body: &Body) {
        let Ok((head, message)) = body.split() else { return };
        let item_length = 9 + 1 + encoded_len_varint(head.item);
        let length = 1
            + encoded_len_varint(number)
            + 2
            + item_length
            + 1
            + encoded_len_varint(head.version)
            + if head.deleted { 2 } else { 1 + encoded_len_varint(message.len() as u64) + message.len() };
        let out = &mut self.out;
        out.push(0x2a);
        encode_varint(length as u64, out);
        out.push(0x08);
        encode_varint(number, out);
        out.push(0x12);
        out.push(item_length as u8);
        out.push(0x09);
        out.put_u64_le(head.origin);
        out.push(0x10);
        encode_varint(head.item, out);
        out.push(0x18);
        encode_varint(head.version, out);
        if head.deleted {
            out.extend_from_slice(&[0x20, 1]);
        } else {
            out.push(head.kind.tag());
            encode_varint(message.len() as u64, out);
            out.extend_from_slice(message);
        }
        self.changes += 1;
    }

    pub fn finish(mut self, ends: Ends) -> Bytes {
        for (tag, value) in [
            (0x08, u64::from(ends.log_epoch)),
            (0x10, ends.after),
            (0x18, ends.upto),
            (0x20, u64::from(ends.more)),
        ] {
            if value != 0 {
                self.out.push(tag);
                encode_varint(value, &mut self.out);
            }
        }
        if ends.snapshot {
            self.out.extend_from_slice(&[0x30, 1]);
            if ends.more {
                let next = snapshot_place(ends.log_epoch, ends.upto);
                self.out.extend_from_slice(&[0x3a, next.len() as u8]);
                self.out.extend_from_slice(&next);
            }
        }
        self.out.into()
    }
}

/// What a page says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub log_epoch: u32,
    pub after: u64,
    pub upto: u64,
    pub more: bool,
    pub snapshot: bool,
}

/// Where a snapshot goes on, for the phone to give back.
fn snapshot_place(log_epoch: u32, upto: u64) -> [u8; 12] {
    let mut place = [0; 12];
    place[..4].copy_from_slice(&log_epoch.to_be_bytes());
    place[4..].copy_from_slice(&upto.to_be_bytes());
    place
}

/// The number after which a snapshot goes on; `None`: it is of another epoch or not ours.
pub fn parse_snapshot_place(log_epoch: u32, place: &[u8]) -> Option<u64> {
    let (epoch, number) = place.split_first_chunk::<4>()?;
    let number: [u8; 8] = number.try_into().ok()?;
    (u32::from_be_bytes(*epoch) == log_epoch).then_some(u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::values::{BodyHead, Kind};
    use proptest::prelude::*;
    use prost::Message as _;
    use proto_wire::pb;

    proptest! {
        #[test]
        fn a_page_is_the_protobuf_that_it_says(
            changes: Vec<(u64, u64, u64, String, u8)>, after: u64, upto: u64, more: bool, snapshot: bool, log_epoch: u32,
        ) {
            let mut writer = PageWriter::new();
            let mut expected = Vec::new();
            for (number, item, origin, text, kind) in changes {
                let (body, version, deleted, content) = match kind % 3 {
                    0 => {
                        let message = pb::Message { from: origin, to: 5, sent_ms: 6, text: text.clone(), ..Default::default() };
                        (Body::message(item, origin, 5, 6, &text), 1, false, Some(pb::change::Body::Message(message)))
                    }
                    1 => {
                        let state = pb::GroupState { group: origin, name: text, members: vec![1, 2], owner: 1 };
                        let head = BodyHead { deleted: false, kind: Kind::Group, origin, item, version: 9 };
                        (Body::encode(head, &state), 9, false, Some(pb::change::Body::Group(state)))
                    }
                    _ => (Body::tombstone(Kind::Post, origin, item, 3, &pb::Post::default()), 3, true, None),
                };
                writer.change(number, &body);
                let item = Some(pb::ItemId { origin, number: item });
                expected.push(pb::Change { number, item, version, deleted, body: content });
            }
            let bytes = writer.finish(Ends { log_epoch, after, upto, more, snapshot });
            let page = pb::Page::decode(bytes).unwrap();
            prop_assert_eq!(&page.changes, &expected);
            prop_assert_eq!((page.log_epoch, page.after, page.upto), (log_epoch, after, upto));
            prop_assert_eq!((page.more, page.snapshot), (more, snapshot));
            prop_assert_eq!(page.snapshot_next.is_empty(), !(snapshot && more));
            if snapshot && more {
                prop_assert_eq!(parse_snapshot_place(log_epoch, &page.snapshot_next), Some(upto));
            }
        }
    }
}
