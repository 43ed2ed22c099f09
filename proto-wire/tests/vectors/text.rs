//! How numbers and bytes stand in JSON: u64 as decimal strings, bytes as hex.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A JSON number holds only 53 bits everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct U64(pub u64);

impl Serialize for U64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for U64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(U64).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hex(pub Vec<u8>);

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
            u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)
        };
        text.as_bytes().chunks(2).map(byte).collect::<Result<_, D::Error>>().map(Hex)
    }
}

/// A cursor as (log_epoch, number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub log_epoch: u32,
    pub number: U64,
}

impl From<proto_wire::names::Cursor> for Cursor {
    fn from(cursor: proto_wire::names::Cursor) -> Self {
        Self { log_epoch: cursor.log_epoch, number: U64(cursor.number) }
    }
}

impl From<Cursor> for proto_wire::names::Cursor {
    fn from(cursor: Cursor) -> Self {
        Self::new(cursor.log_epoch, cursor.number.0)
    }
}
