//! What is no client frame, and what it is instead.

use prost::Message;
use proto_wire::frame::{Beat, Call, FrameError, Notify, Reply, kind, next_frame};
use proto_wire::pb;
use proto_wire::varint::VarintError;
use serde::{Deserialize, Serialize};

use crate::text::Hex;
use crate::vectors;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bad {
    name: String,
    bytes: Hex,
    /// The largest body that the receiver takes.
    max_body_bytes: usize,
    error: String,
}

#[test]
fn bad_frames() {
    let long = |kind: u8, bytes: usize| {
        let mut out = vec![kind];
        proto_wire::varint::put(&mut out, bytes as u64);
        out
    };
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("http", b"GET / HTTP/1.1\r\n".to_vec(), 65_536),
        ("type_zero", vec![0, 0], 65_536),
        ("type_after_the_last_known", vec![9, 0], 65_536),
        ("type_below_the_skippable", vec![0x7f, 0], 65_536),
        ("type_above_the_skippable", vec![0xc0, 0], 65_536),
        ("nothing", vec![], 65_536),
        ("only_a_type", vec![kind::BEAT], 65_536),
        ("length_cut", vec![kind::CALL, 0x80], 65_536),
        ("length_overlong", vec![kind::CALL, 0x80, 0x00], 65_536),
        ("length_of_four_bytes", vec![kind::CALL, 0xff, 0xff, 0xff, 0x01], 65_536),
        ("body_over_the_limit", long(kind::CALL, 65_537), 65_536),
        ("body_over_a_smaller_limit", long(kind::CALL, 1_001), 1_000),
        ("hello_over_its_limit", long(kind::HELLO, 4_097), 65_536),
        ("skippable_over_its_limit", long(kind::EVENT, 4_097), 65_536),
        ("beat_of_one_byte", vec![kind::BEAT, 1, 0], 65_536),
        ("beat_of_thirteen_bytes", [&[kind::BEAT, 13][..], &[0; 13]].concat(), 65_536),
        ("call_too_short", [&[kind::CALL, 11][..], &[0; 11]].concat(), 65_536),
        ("call_with_unknown_flag", [&[kind::CALL, 12, 2][..], &[0; 11]].concat(), 65_536),
        ("call_without_its_cursor", [&[kind::CALL, 12, 1][..], &[0; 11]].concat(), 65_536),
        ("reply_with_unknown_flag", [&[kind::REPLY, 8, 4][..], &[0; 7]].concat(), 65_536),
        ("reply_with_second_byte", [&[kind::REPLY, 8, 0, 1][..], &[0; 6]].concat(), 65_536),
        ("reply_without_its_retry_after", [&[kind::REPLY, 8, 2][..], &[0; 7]].concat(), 65_536),
        ("notify_of_unknown_class", [&[kind::NOTIFY, 14, 0, 3][..], &[0; 12]].concat(), 65_536),
        ("notify_with_bytes_that_no_flag_names", [&[kind::NOTIFY, 15][..], &[0; 15]].concat(), 65_536),
        ("notify_without_its_prev", [&[kind::NOTIFY, 14, 1][..], &[0; 13]].concat(), 65_536),
        ("hello_that_is_no_protobuf", vec![kind::HELLO, 2, 0xff, 0xff], 65_536),
    ];
    let cases = cases.into_iter().map(|(name, bytes, max_body_bytes)| {
        let error = error_of(&bytes, max_body_bytes).to_owned();
        Bad { name: name.to_owned(), bytes: Hex(bytes), max_body_bytes, error }
    });
    let about = "What is no frame. incomplete: more bytes are needed, the connection stands. All else ends it: too_large with frame_too_large, the rest with bad_frame.";
    for vector in vectors("bad_frames.json", about, cases.collect()) {
        assert_eq!(error_of(&vector.bytes.0, vector.max_body_bytes), vector.error, "{}", vector.name);
    }
}

fn error_of(bytes: &[u8], max_body_bytes: usize) -> &'static str {
    match parse(bytes, max_body_bytes) {
        Ok(true) => "none",
        Ok(false) => "incomplete",
        Err(FrameError::UnknownType(_)) => "unknown_type",
        Err(FrameError::Length(VarintError::Overlong)) => "length_overlong",
        Err(FrameError::Length(VarintError::TooLarge)) => "length_too_large",
        Err(FrameError::TooLarge { .. }) => "too_large",
        Err(FrameError::Malformed { .. }) => "malformed",
    }
}

/// Whether a whole frame with a good body is there.
fn parse(bytes: &[u8], max_body_bytes: usize) -> Result<bool, FrameError> {
    let mut input = bytes;
    let Some(frame) = next_frame(&mut input, max_body_bytes)? else { return Ok(false) };
    let no_message = |_| FrameError::Malformed { kind: frame.kind, what: "it is no such message" };
    match frame.kind {
        kind::BEAT => Beat::parse(frame.body).map(drop)?,
        kind::CALL => Call::parse(frame.body).map(drop)?,
        kind::REPLY => Reply::parse(frame.body).map(drop)?,
        kind::NOTIFY => Notify::parse(frame.body).map(drop)?,
        kind::HELLO => pb::Hello::decode(frame.body).map(drop).map_err(no_message)?,
        _ => {}
    }
    Ok(true)
}
