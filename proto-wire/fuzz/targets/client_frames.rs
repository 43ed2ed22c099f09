//! Any bytes as client frames: what is read is written to the same bytes again, and the cuts of the stream
//! change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto_wire::frame::{Beat, Call, FrameError, Notify, Reply, kind, next_frame};
use proto_wire::pb;

/// What a stream ends in.
type End = Result<(), FrameError>;

fuzz_target!(|bytes: &[u8]| {
    let (frames, end) = read_whole(bytes);
    assert_eq!((&frames, end), (&read_bytewise(bytes).0, read_bytewise(bytes).1));
    for (kind, body) in &frames {
        check(*kind, body);
    }
});

fn read_whole(mut input: &[u8]) -> (Vec<(u8, Vec<u8>)>, End) {
    let mut frames = Vec::new();
    loop {
        match next_frame(&mut input, 4_096) {
            Ok(Some(frame)) => frames.push((frame.kind, frame.body.to_vec())),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn read_bytewise(bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, End) {
    let (mut frames, mut held) = (Vec::new(), Vec::new());
    for &byte in bytes {
        held.push(byte);
        let mut input = &held[..];
        match next_frame(&mut input, 4_096) {
            Ok(Some(frame)) => {
                frames.push((frame.kind, frame.body.to_vec()));
                held.clear();
            }
            Ok(None) => {}
            Err(error) => return (frames, Err(error)),
        }
    }
    (frames, Ok(()))
}

fn check(frame_kind: u8, body: &[u8]) {
    let mut out = Vec::new();
    match frame_kind {
        kind::BEAT => Beat::parse(body).map(|beat| beat.put(&mut out)).unwrap_or_default(),
        kind::CALL => Call::parse(body).map(|call| call.put(&mut out)).unwrap_or_default(),
        kind::REPLY => Reply::parse(body).map(|reply| reply.put(&mut out)).unwrap_or_default(),
        kind::NOTIFY => Notify::parse(body).map(|notify| notify.put(&mut out)).unwrap_or_default(),
        kind::HELLO => drop(pb::Hello::decode(body)),
        kind::WELCOME => drop(pb::Welcome::decode(body)),
        kind::GOAWAY => drop(pb::GoAway::decode(body)),
        kind::CLOSE => drop(pb::Close::decode(body)),
        _ => {}
    }
    if !out.is_empty() {
        let mut input = &out[..];
        let frame = next_frame(&mut input, 65_536).expect("our own frame").expect("whole");
        assert_eq!((frame.kind, frame.body, input.len()), (frame_kind, body, 0));
    }
}
