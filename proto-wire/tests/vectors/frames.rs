//! Client frames.

use bytes::Bytes;
use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Beat, Call, Class, Inline, Notify, Reply, kind, next_frame};
use proto_wire::names::Cursor as Place;
use proto_wire::pb;
use proto_wire::status::Code;
use serde::{Deserialize, Serialize};

use crate::text::{Cursor, Hex, U64};
use crate::vectors;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Good {
    name: String,
    bytes: Hex,
    frame: Value,
}

/// What a frame says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Value {
    Hello {
        version_major: u32,
        version_minor: u32,
        token: Hex,
        device: U64,
        counter: u32,
        applied: Option<Cursor>,
        network_kind: u32,
        network_operator: U64,
        last_end: i32,
        last_idle_ms: u32,
        ticket: Hex,
        client: String,
    },
    Welcome {
        version_major: u32,
        version_minor: u32,
        interval_ms: u32,
        server_time_ms: U64,
        max_body_bytes: u32,
        max_calls_in_flight: u32,
        ticket: Hex,
        alternates: Vec<String>,
        user: U64,
        ticket_good_s: u32,
    },
    Beat {
        applied: Option<Cursor>,
    },
    Call {
        id: u32,
        method: u16,
        attempt: u8,
        deadline_ms: u32,
        applied: Option<Cursor>,
        body: Hex,
    },
    Reply {
        id: u32,
        status: u16,
        given: Option<Cursor>,
        retry_after_ms: Option<u32>,
        body: Hex,
    },
    Notify {
        class: u8,
        newest: Cursor,
        prev: Option<U64>,
        page: Option<Hex>,
    },
    Goaway {
        reconnect_after_ms: u32,
        to: String,
    },
    Close {
        code: u32,
        text: String,
        reconnect_after_ms: u32,
        to: String,
    },
    /// Of a type that may be skipped.
    Skipped {
        kind: u8,
        body: Hex,
    },
}

#[test]
fn good_frames() {
    let cases = cases().into_iter().map(|(name, frame)| Good {
        name: name.to_owned(),
        bytes: Hex(put(&frame)),
        frame,
    });
    let about = "Whole frames and what they say. Numbers of 64 bits are strings, bytes are hex; page is an encoded moorgate.Page.";
    for vector in vectors("frames.json", about, cases.collect()) {
        assert_eq!(put(&vector.frame), vector.bytes.0, "{}", vector.name);
        assert_eq!(read(&vector.bytes.0), vector.frame, "{}", vector.name);
        for cut in 0..vector.bytes.0.len() {
            let mut input = &vector.bytes.0[..cut];
            assert_eq!(next_frame(&mut input, 65_536), Ok(None), "{} cut at {cut}", vector.name);
        }
    }
}

fn cases() -> Vec<(&'static str, Value)> {
    let at = |log_epoch, number| Some(Cursor { log_epoch, number: U64(number) });
    let page = pb::Page {
        log_epoch: 1,
        after: 41,
        upto: 42,
        changes: vec![pb::Change {
            number: 42,
            item: Some(pb::ItemId { origin: 7, number: 9 }),
            version: 1,
            deleted: false,
            body: Some(pb::change::Body::Message(pb::Message {
                from: 7,
                to: 8,
                sent_ms: 1_800_000_000_000,
                text: "héllo".to_owned(),
                group_number: 0,
                ..pb::Message::default()
            })),
        }],
        ..pb::Page::default()
    };
    let written = pb::SendReply {
        ack: pb::Ack::Local as i32,
        number: Some(pb::Cursor { log_epoch: 1, number: 42 }),
        server_time_ms: 1_800_000_000_000,
        repeated: false,
        page: page.encode_to_vec().into(),
    };
    vec![
        ("beat", Value::Beat { applied: None }),
        ("beat_with_cursor", Value::Beat { applied: at(1, 42) }),
        ("hello", hello(b"header.claims.signature", b"ticket")),
        ("hello_without_token", hello(b"", b"")),
        (
            "welcome",
            Value::Welcome {
                version_major: 1,
                version_minor: 0,
                interval_ms: 270_000,
                server_time_ms: U64(1_800_000_000_000),
                max_body_bytes: 65_536,
                max_calls_in_flight: 16,
                ticket: Hex(b"ticket".to_vec()),
                alternates: vec!["b.example:7600".to_owned()],
                user: U64(7),
                ticket_good_s: 43_200,
            },
        ),
        ("call", call(1, 0, 5_000, None, b"\x0a\x05hello")),
        ("call_again_with_cursor", call(0xffff_fffe, 255, 0, at(u32::MAX, u64::MAX), b"")),
        (
            "reply",
            Value::Reply {
                id: 1,
                status: 0,
                given: None,
                retry_after_ms: None,
                body: Hex(b"\x0a\x00".to_vec()),
            },
        ),
        (
            "reply_of_a_sync",
            Value::Reply {
                id: 2,
                status: 0,
                given: at(1, 42),
                retry_after_ms: None,
                body: Hex(page.encode_to_vec()),
            },
        ),
        (
            "reply_of_a_write_with_its_page",
            Value::Reply {
                id: 5,
                status: 0,
                given: at(1, 42),
                retry_after_ms: None,
                body: Hex(written.encode_to_vec()),
            },
        ),
        (
            "reply_overloaded",
            Value::Reply {
                id: 3,
                status: Code::Overloaded.0,
                given: None,
                retry_after_ms: Some(1_500),
                body: Hex(b"the server sheds load".to_vec()),
            },
        ),
        (
            "reply_with_all",
            Value::Reply {
                id: 4,
                status: 999,
                given: at(2, 1),
                retry_after_ms: Some(1),
                body: Hex::default(),
            },
        ),
        ("notify", Value::Notify { class: 2, newest: at(1, 42).expect("some"), prev: None, page: None }),
        (
            "notify_with_page",
            Value::Notify {
                class: 1,
                newest: at(1, 42).expect("some"),
                prev: Some(U64(41)),
                page: Some(Hex(page.encode_to_vec())),
            },
        ),
        ("goaway", Value::Goaway { reconnect_after_ms: 700, to: "b.example:7600".to_owned() }),
        ("goaway_empty", Value::Goaway { reconnect_after_ms: 0, to: String::new() }),
        (
            "close_overloaded",
            Value::Close {
                code: Reason::Overloaded as u32,
                text: "come back later".to_owned(),
                reconnect_after_ms: 30_000,
                to: String::new(),
            },
        ),
        (
            "close_expired_token",
            Value::Close {
                code: Reason::ExpiredToken as u32,
                text: "the token has expired".to_owned(),
                reconnect_after_ms: 0,
                to: String::new(),
            },
        ),
        (
            "close_logged_out",
            Value::Close {
                code: Reason::LoggedOut as u32,
                text: "this device was logged out".to_owned(),
                reconnect_after_ms: 0,
                to: String::new(),
            },
        ),
        ("reserved_event", Value::Skipped { kind: kind::EVENT, body: Hex(vec![1, 2, 3]) }),
        ("last_type_that_may_be_skipped", Value::Skipped { kind: 0xbf, body: Hex(vec![0xaa; 200]) }),
    ]
}

fn hello(token: &[u8], ticket: &[u8]) -> Value {
    Value::Hello {
        version_major: 1,
        version_minor: 0,
        token: Hex(token.to_vec()),
        device: U64(0x0102_0304_0506_0708),
        counter: 17,
        applied: Some(Cursor { log_epoch: 1, number: U64(41) }),
        network_kind: 4,
        network_operator: U64(46_000),
        last_end: pb::LastEnd::BeatLost as i32,
        last_idle_ms: 270_000,
        ticket: Hex(ticket.to_vec()),
        client: "vectors/1".to_owned(),
    }
}

fn call(id: u32, attempt: u8, deadline_ms: u32, applied: Option<Cursor>, body: &[u8]) -> Value {
    Value::Call { id, method: 0x0201, attempt, deadline_ms, applied, body: Hex(body.to_vec()) }
}

fn put(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Hello { .. } | Value::Welcome { .. } | Value::Goaway { .. } | Value::Close { .. } => {
            put_message(value, &mut out);
        }
        Value::Beat { applied } => Beat { applied: applied.map(Place::from) }.put(&mut out),
        Value::Call { id, method, attempt, deadline_ms, applied, body } => Call {
            id: *id,
            method: *method,
            attempt: *attempt,
            deadline_ms: *deadline_ms,
            applied: applied.map(Place::from),
            body: &body.0,
        }
        .put(&mut out),
        Value::Reply { id, status, given, retry_after_ms, body } => Reply {
            id: *id,
            status: Code(*status),
            given: given.map(Place::from),
            retry_after_ms: *retry_after_ms,
            body: &body.0,
        }
        .put(&mut out),
        Value::Notify { class, newest, prev, page } => Notify {
            class: Class::from_u8(*class).expect("a class"),
            newest: (*newest).into(),
            inline: prev.zip(page.as_ref()).map(|(prev, page)| Inline { prev: prev.0, page: &page.0 }),
        }
        .put(&mut out),
        Value::Skipped { kind, body } => {
            frame::put_header(&mut out, *kind, body.0.len());
            out.extend_from_slice(&body.0);
        }
    }
    out
}

fn put_message(value: &Value, out: &mut Vec<u8>) {
    let bytes = |hex: &Hex| Bytes::from(hex.0.clone());
    match value {
        Value::Hello {
            version_major,
            version_minor,
            token,
            device,
            counter,
            applied,
            network_kind,
            network_operator,
            last_end,
            last_idle_ms,
            ticket,
            client,
        } => {
            let hello = pb::Hello {
                version_major: *version_major,
                version_minor: *version_minor,
                token: bytes(token),
                device: device.0,
                counter: *counter,
                applied: applied.map(|at| pb::Cursor { log_epoch: at.log_epoch, number: at.number.0 }),
                network: Some(pb::Network { kind: *network_kind, operator: network_operator.0 }),
                last_end: *last_end,
                last_idle_ms: *last_idle_ms,
                ticket: bytes(ticket),
                client: client.clone(),
            };
            frame::put_message(out, kind::HELLO, &hello);
        }
        Value::Welcome {
            version_major,
            version_minor,
            interval_ms,
            server_time_ms,
            max_body_bytes,
            max_calls_in_flight,
            ticket,
            alternates,
            user,
            ticket_good_s,
        } => {
            let welcome = pb::Welcome {
                version_major: *version_major,
                version_minor: *version_minor,
                interval_ms: *interval_ms,
                server_time_ms: server_time_ms.0,
                max_body_bytes: *max_body_bytes,
                max_calls_in_flight: *max_calls_in_flight,
                ticket: bytes(ticket),
                alternates: alternates.clone(),
                user: user.0,
                ticket_good_s: *ticket_good_s,
            };
            frame::put_message(out, kind::WELCOME, &welcome);
        }
        Value::Goaway { reconnect_after_ms, to } => {
            let goaway = pb::GoAway { reconnect_after_ms: *reconnect_after_ms, to: to.clone() };
            frame::put_message(out, kind::GOAWAY, &goaway);
        }
        Value::Close { code, text, reconnect_after_ms, to } => {
            let close = pb::Close {
                code: *code,
                text: text.clone(),
                reconnect_after_ms: *reconnect_after_ms,
                to: to.clone(),
            };
            frame::put_message(out, kind::CLOSE, &close);
        }
        other => panic!("{other:?} has no protobuf body"),
    }
}

/// Reads the one frame that `bytes` are.
fn read(bytes: &[u8]) -> Value {
    let mut input = bytes;
    let frame = next_frame(&mut input, 65_536).expect("well formed").expect("whole");
    assert!(input.is_empty());
    let body = frame.body;
    match frame.kind {
        kind::HELLO => {
            let hello = pb::Hello::decode(body).expect("a HELLO");
            let network = hello.network.unwrap_or_default();
            Value::Hello {
                version_major: hello.version_major,
                version_minor: hello.version_minor,
                token: Hex::from(&hello.token[..]),
                device: U64(hello.device),
                counter: hello.counter,
                applied: hello.applied.map(|at| Cursor { log_epoch: at.log_epoch, number: U64(at.number) }),
                network_kind: network.kind,
                network_operator: U64(network.operator),
                last_end: hello.last_end,
                last_idle_ms: hello.last_idle_ms,
                ticket: Hex::from(&hello.ticket[..]),
                client: hello.client,
            }
        }
        kind::WELCOME => {
            let welcome = pb::Welcome::decode(body).expect("a WELCOME");
            Value::Welcome {
                version_major: welcome.version_major,
                version_minor: welcome.version_minor,
                interval_ms: welcome.interval_ms,
                server_time_ms: U64(welcome.server_time_ms),
                max_body_bytes: welcome.max_body_bytes,
                max_calls_in_flight: welcome.max_calls_in_flight,
                ticket: Hex::from(&welcome.ticket[..]),
                alternates: welcome.alternates,
                user: U64(welcome.user),
                ticket_good_s: welcome.ticket_good_s,
            }
        }
        kind::BEAT => Value::Beat { applied: Beat::parse(body).expect("a beat").applied.map(Cursor::from) },
        kind::CALL => {
            let Call { id, method, attempt, deadline_ms, applied, body } = Call::parse(body).expect("a call");
            Value::Call {
                id,
                method,
                attempt,
                deadline_ms,
                applied: applied.map(Cursor::from),
                body: Hex::from(body),
            }
        }
        kind::REPLY => {
            let Reply { id, status, given, retry_after_ms, body } = Reply::parse(body).expect("a reply");
            let (status, given) = (status.0, given.map(Cursor::from));
            Value::Reply { id, status, given, retry_after_ms, body: Hex::from(body) }
        }
        kind::NOTIFY => {
            let Notify { class, newest, inline } = Notify::parse(body).expect("a notify");
            let (prev, page) = inline.map(|inline| (U64(inline.prev), Hex::from(inline.page))).unzip();
            Value::Notify { class: class as u8, newest: newest.into(), prev, page }
        }
        kind::GOAWAY => {
            let pb::GoAway { reconnect_after_ms, to } = pb::GoAway::decode(body).expect("a GOAWAY");
            Value::Goaway { reconnect_after_ms, to }
        }
        kind::CLOSE => {
            let pb::Close { code, text, reconnect_after_ms, to } = pb::Close::decode(body).expect("a CLOSE");
            Value::Close { code, text, reconnect_after_ms, to }
        }
        kind => Value::Skipped { kind, body: Hex::from(body) },
    }
}
