//! RPC frames, good and bad.

use bytes::Bytes;
use proto_wire::names::{Cursor as Place, Route};
use proto_wire::rpc::header::{self, Header, HeaderError, Identity, Kind, ext, flag, next_header};
use serde::{Deserialize, Serialize};

use crate::text::{Cursor, Hex, U64};
use crate::vectors;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Good {
    name: String,
    bytes: Hex,
    /// Carries what this version reads but does not write.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    decode_only: bool,
    header: Value,
    body: Hex,
}

/// What a header says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Value {
    kind: u8,
    flags: u16,
    deadline_ms: u32,
    call_id: U64,
    method: u16,
    status: u16,
    attempt: u8,
    home: u8,
    section: u16,
    table_version: U64,
    owner_epoch: U64,
    business_priority: u8,
    user_priority: u8,
    admission: u16,
    service: u16,
    compression: u8,
    credit: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    identity: Option<IdentityValue>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    cursor: Option<Cursor>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    retry_after_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace: Option<Hex>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct IdentityValue {
    user: U64,
    device: U64,
    gateway: U64,
    shard: u16,
    slot: u32,
    generation: u32,
}

#[test]
fn good_headers() {
    let cases = cases().into_iter().map(|(name, header, body, extra)| {
        let bytes = with_extension(put(&header, body), extra);
        Good {
            name: name.to_owned(),
            bytes: Hex(bytes),
            decode_only: !extra.is_empty(),
            header: value(&header),
            body: Hex::from(body),
        }
    });
    let about = "Whole RPC frames: header, extensions, body. Numbers of 64 bits are strings, bytes are hex.";
    for vector in vectors("rpc.json", about, cases.collect()) {
        let bytes = &vector.bytes.0[..];
        let (header, header_bytes) = next_header(bytes).expect("well formed").expect("whole");
        assert_eq!(value(&header), vector.header, "{}", vector.name);
        assert_eq!(bytes[header_bytes..], vector.body.0, "{}", vector.name);
        if !vector.decode_only {
            assert_eq!(put(&header_of(&vector.header), &vector.body.0), bytes, "{}", vector.name);
        }
        for cut in 0..bytes.len() {
            assert_eq!(next_header(&bytes[..cut]), Ok(None), "{} cut at {cut}", vector.name);
        }
    }
}

type Case = (&'static str, Header, &'static [u8], &'static [u8]);

fn cases() -> Vec<Case> {
    let route =
        Route { gateway: 0x0102_0304_0506_0708, shard: 3, slot: 0x2000_0001, generation: 0x0001_0203 };
    let call = Header {
        call_id: 1,
        method: 0x0201,
        deadline_ms: 5_000,
        flags: flag::IDEMPOTENT,
        section: 2_748,
        business_priority: 1,
        service: 2,
        ..Header::default()
    };
    let identity = Some(Identity { user: 7, device: 9, route });
    let all = Header {
        kind: Kind::Reply,
        flags: 0xffff,
        deadline_ms: u32::MAX,
        call_id: u64::MAX - 1,
        method: 0xfffe,
        status: 10,
        attempt: 254,
        home: 253,
        section: 4_095,
        table_version: 0x1112_1314_1516_1718,
        owner_epoch: 0x2122_2324_2526_2728,
        business_priority: 0x31,
        user_priority: 0x32,
        admission: 0x4142,
        service: 0x5152,
        compression: 0,
        credit: 0x6162_6364,
        identity,
        cursor: Some(Place::new(0x7172_7374, 0x8182_8384_8586_8788)),
        retry_after_ms: Some(0x9192_9394),
        trace: Some(Bytes::from_static(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        body_bytes: 0,
    };
    let control = |kind, call_id, credit| Header { kind, call_id, credit, ..Header::default() };
    vec![
        ("call", call.clone(), b"\x0a\x05hello", b""),
        (
            "call_of_a_phone",
            Header { identity, cursor: Some(Place::new(1, 41)), attempt: 1, ..call.clone() },
            b"",
            b"",
        ),
        ("one_way", Header { flags: flag::ONE_WAY, ..call.clone() }, b"x", b""),
        (
            "reply",
            Header { kind: Kind::Reply, call_id: 1, credit: 4_096, ..Header::default() },
            b"\x0a\x00",
            b"",
        ),
        (
            "reply_overloaded",
            Header {
                kind: Kind::Reply,
                call_id: 2,
                status: 8,
                admission: 0x0240,
                retry_after_ms: Some(250),
                ..Header::default()
            },
            b"later",
            b"",
        ),
        (
            "reply_held",
            Header { kind: Kind::Reply, flags: flag::HELD, call_id: 3, ..Header::default() },
            b"ticket of 16 b.\x00",
            b"",
        ),
        ("all_fields", all, b"body", b""),
        ("cancel", control(Kind::Cancel, 5, 0), b"", b""),
        ("credit", control(Kind::Credit, 0, 128), b"", b""),
        ("ping", control(Kind::Ping, 0, 0), b"", b""),
        ("pong", control(Kind::Pong, 0, 0), b"", b""),
        ("goaway", control(Kind::GoAway, 0, 0), b"", b""),
        ("unknown_extension", call, b"hello", b"\xff\x7f\x03\x00abc"),
    ]
}

fn put(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    header.put(body, &mut out);
    out
}

/// Adds an extension behind those of a frame.
fn with_extension(mut frame: Vec<u8>, extension: &[u8]) -> Vec<u8> {
    let header_bytes = u16::from_le_bytes([frame[6], frame[7]]);
    let at = usize::from(header_bytes);
    frame.splice(at..at, extension.iter().copied());
    frame[6..8].copy_from_slice(&(header_bytes + extension.len() as u16).to_le_bytes());
    frame
}

fn value(header: &Header) -> Value {
    Value {
        kind: header.kind as u8,
        flags: header.flags,
        deadline_ms: header.deadline_ms,
        call_id: U64(header.call_id),
        method: header.method,
        status: header.status,
        attempt: header.attempt,
        home: header.home,
        section: header.section,
        table_version: U64(header.table_version),
        owner_epoch: U64(header.owner_epoch),
        business_priority: header.business_priority,
        user_priority: header.user_priority,
        admission: header.admission,
        service: header.service,
        compression: header.compression,
        credit: header.credit,
        identity: header.identity.map(|Identity { user, device, route }| IdentityValue {
            user: U64(user),
            device: U64(device),
            gateway: U64(route.gateway),
            shard: route.shard,
            slot: route.slot,
            generation: route.generation,
        }),
        cursor: header.cursor.map(Cursor::from),
        retry_after_ms: header.retry_after_ms,
        trace: header.trace.as_ref().map(|trace| Hex::from(&trace[..])),
    }
}

fn header_of(value: &Value) -> Header {
    const KINDS: [Kind; 7] =
        [Kind::Call, Kind::Reply, Kind::Cancel, Kind::Credit, Kind::Ping, Kind::Pong, Kind::GoAway];
    Header {
        kind: KINDS[usize::from(value.kind) - 1],
        flags: value.flags,
        body_bytes: 0,
        deadline_ms: value.deadline_ms,
        call_id: value.call_id.0,
        method: value.method,
        status: value.status,
        attempt: value.attempt,
        home: value.home,
        section: value.section,
        table_version: value.table_version.0,
        owner_epoch: value.owner_epoch.0,
        business_priority: value.business_priority,
        user_priority: value.user_priority,
        admission: value.admission,
        service: value.service,
        compression: value.compression,
        credit: value.credit,
        identity: value.identity.as_ref().map(|who| Identity {
            user: who.user.0,
            device: who.device.0,
            route: Route {
                gateway: who.gateway.0,
                shard: who.shard,
                slot: who.slot,
                generation: who.generation,
            },
        }),
        cursor: value.cursor.map(Place::from),
        retry_after_ms: value.retry_after_ms,
        trace: value.trace.as_ref().map(|trace| Bytes::from(trace.0.clone())),
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bad {
    name: String,
    bytes: Hex,
    error: String,
}

#[test]
fn bad_headers() {
    let good = put(&Header::default(), b"");
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let extended = |extension: &[u8]| with_extension(good.clone(), extension);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("http", b"GET / HTTP/1.1\r\n".to_vec()),
        ("half_of_the_magic", b"M".to_vec()),
        ("wrong_after_half_of_the_magic", b"MX".to_vec()),
        ("version_2", changed(2, &[2])),
        ("kind_0", changed(3, &[0])),
        ("kind_8", changed(3, &[8])),
        ("header_of_63_bytes", changed(6, &63u16.to_le_bytes())),
        ("header_of_4097_bytes", changed(6, &4_097u16.to_le_bytes())),
        ("body_of_4_mib_and_1", changed(8, &(4 * 1024 * 1024 + 1u32).to_le_bytes())),
        ("body_missing", changed(8, &1u32.to_le_bytes())),
        ("extension_cut_in_its_head", extended(&[1, 0, 1])),
        ("extension_over_the_end", extended(&[0xff, 0x7f, 2, 0, 9])),
        ("cursor_of_11_bytes", extended(&[&[ext::CURSOR as u8, 0, 11, 0][..], &[0; 11]].concat())),
        ("identity_of_32_bytes", extended(&[&[ext::IDENTITY as u8, 0, 32, 0][..], &[0; 32]].concat())),
        ("retry_after_of_5_bytes", extended(&[&[ext::RETRY_AFTER as u8, 0, 5, 0][..], &[0; 5]].concat())),
    ];
    assert_eq!(good.len(), header::FIXED_BYTES);
    let cases = cases.into_iter().map(|(name, bytes)| {
        let error = error_of(&bytes).to_owned();
        Bad { name: name.to_owned(), bytes: Hex(bytes), error }
    });
    let about = "What is no RPC frame. incomplete: more bytes are needed. All else ends the connection.";
    for vector in vectors("bad_rpc.json", about, cases.collect()) {
        assert_eq!(error_of(&vector.bytes.0), vector.error, "{}", vector.name);
    }
}

fn error_of(bytes: &[u8]) -> &'static str {
    match next_header(bytes) {
        Ok(Some(_)) => "none",
        Ok(None) => "incomplete",
        Err(HeaderError::Magic(_)) => "magic",
        Err(HeaderError::Version(_)) => "version",
        Err(HeaderError::Kind(_)) => "kind",
        Err(HeaderError::HeaderLength(_)) => "header_length",
        Err(HeaderError::BodyLength(_)) => "body_length",
        Err(HeaderError::Extension) => "extension",
    }
}
