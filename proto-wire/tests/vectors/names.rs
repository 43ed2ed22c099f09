//! Sections, ids of uploads, routes, varints.

use proto_wire::limits::{UPLOAD_MEMORY_MS, UPLOAD_SKEW_MS};
use proto_wire::names::{GROUP_BIT, Route, UploadId, UploadIdError, section_of};
use proto_wire::varint::{self, VarintError};
use serde::{Deserialize, Serialize};

use crate::text::{Hex, U64};
use crate::vectors;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Section {
    id: U64,
    section: u16,
}

#[test]
fn sections() {
    let ids = [0, 1, 2, 3, 42, 1_000, 123_456_789, u64::from(u32::MAX), GROUP_BIT, GROUP_BIT | 7, u64::MAX];
    let cases = ids.into_iter().map(|id| Section { id: U64(id), section: section_of(id) }).collect();
    for vector in vectors("sections.json", "The section of a user or a group.", cases) {
        assert_eq!(section_of(vector.id.0), vector.section);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Upload {
    created_ms: U64,
    random: Hex,
    id: Hex,
    /// The server's clock, and what it says to the id then.
    now_ms: U64,
    verdict: String,
}

#[test]
fn upload_ids() {
    const CREATED: u64 = 1_800_000_000_123;
    let cases = [
        (CREATED, CREATED),
        (CREATED, CREATED + UPLOAD_MEMORY_MS - 1),
        (CREATED, CREATED + UPLOAD_MEMORY_MS),
        (CREATED, CREATED - UPLOAD_SKEW_MS),
        (CREATED, CREATED - UPLOAD_SKEW_MS - 1),
        (0, 0),
        ((1 << 48) - 1, (1 << 48) - 1),
    ];
    let cases = cases.map(|(created_ms, now_ms)| {
        let id = UploadId::new(created_ms, *b"\x00\x01\x02\x03\x04\xfb\xfc\xfd\xfe\xff");
        Upload {
            created_ms: U64(created_ms),
            random: Hex(id.0[6..].to_vec()),
            id: Hex(id.0.to_vec()),
            now_ms: U64(now_ms),
            verdict: verdict(&id, now_ms).to_owned(),
        }
    });
    let about = "Ids of uploads, and what a server says to them when its clock shows now_ms.";
    for vector in vectors("upload_ids.json", about, cases.into()) {
        let id = UploadId::from_slice(&vector.id.0).expect("16 bytes");
        assert_eq!(id.created_ms(), vector.created_ms.0);
        assert_eq!(id, UploadId::new(vector.created_ms.0, vector.random.0.try_into().expect("10 bytes")));
        assert_eq!(verdict(&id, vector.now_ms.0), vector.verdict);
    }
}

fn verdict(id: &UploadId, now_ms: u64) -> &'static str {
    match id.check(now_ms) {
        Ok(()) => "ok",
        Err(UploadIdError::Expired) => "expired",
        Err(UploadIdError::Future) => "future",
        Err(UploadIdError::Length) => "length",
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RouteVector {
    gateway: U64,
    shard: u16,
    slot: u32,
    generation: u32,
    bytes: Hex,
}

#[test]
fn routes() {
    let routes = [
        Route::default(),
        Route { gateway: 0x0102_0304_0506_0708, shard: 0x0a0b, slot: 0x1112_1314, generation: 0x0021_2223 },
        Route { gateway: u64::MAX, shard: u16::MAX, slot: u32::MAX, generation: 0x00ff_ffff },
    ];
    let cases = routes.map(|route| {
        let mut out = Vec::new();
        route.put(&mut out);
        let Route { gateway, shard, slot, generation } = route;
        RouteVector { gateway: U64(gateway), shard, slot, generation, bytes: Hex(out) }
    });
    for vector in vectors("routes.json", "Routes as they stand in extensions: 17 bytes.", cases.into()) {
        let RouteVector { gateway, shard, slot, generation, bytes } = vector;
        let route = Route { gateway: gateway.0, shard, slot, generation };
        let mut out = Vec::new();
        route.put(&mut out);
        assert_eq!(out, bytes.0);
        assert_eq!(Route::from_bytes(&bytes.0.try_into().expect("17 bytes")), route);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Varint {
    bytes: Hex,
    /// How many bytes its field may have.
    max_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value: Option<U64>,
    /// `overlong`, `too_large`, `incomplete`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    error: Option<String>,
}

#[test]
fn varints() {
    let good = [0, 1, 127, 128, 300, 16_383, 16_384, 65_536, 2_097_151].map(|value| {
        let mut out = Vec::new();
        varint::put(&mut out, value);
        (out, 3)
    });
    let wide = [2_097_152, u64::from(u32::MAX), u64::MAX].map(|value| {
        let mut out = Vec::new();
        varint::put(&mut out, value);
        (out, 10)
    });
    let bad: [(&[u8], usize); 8] = [
        (&[], 3),
        (&[0x80], 3),
        (&[0xff, 0xff], 3),
        (&[0x80, 0x00], 3),
        (&[0xff, 0x80, 0x00], 3),
        (&[0x80, 0x80, 0x80], 3),
        (&[0xff, 0xff, 0xff, 0x01], 3),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], 10),
    ];
    let bad = bad.map(|(bytes, max_bytes)| (bytes.to_vec(), max_bytes));
    let cases = good.into_iter().chain(wide).chain(bad).map(|(bytes, max_bytes)| {
        let (value, error) = read(&bytes, max_bytes);
        Varint { bytes: Hex(bytes), max_bytes, value, error }
    });
    let about = "A value has one encoding. Lengths of frames have max_bytes 3.";
    for vector in vectors("varints.json", about, cases.collect()) {
        assert_eq!(read(&vector.bytes.0, vector.max_bytes), (vector.value, vector.error));
        if let Some(U64(value)) = vector.value {
            let mut out = Vec::new();
            varint::put(&mut out, value);
            assert_eq!(out, vector.bytes.0);
        }
    }
}

fn read(bytes: &[u8], max_bytes: usize) -> (Option<U64>, Option<String>) {
    match varint::read(bytes, max_bytes) {
        Ok(Some((value, taken))) => {
            assert_eq!(taken, bytes.len());
            (Some(U64(value)), None)
        }
        Ok(None) => (None, Some("incomplete".to_owned())),
        Err(VarintError::Overlong) => (None, Some("overlong".to_owned())),
        Err(VarintError::TooLarge) => (None, Some("too_large".to_owned())),
    }
}
