//! A group as a whole: its memberships.

use super::Found;
use crate::logic::keys;
use crate::logic::values::{GroupMeta, decode_number};

pub(super) struct GroupCheck {
    pub id: u64,
    /// The version of the membership before.
    version: u64,
}

impl GroupCheck {
    pub fn new(id: u64) -> Self {
        Self { id, version: 0 }
    }

    pub fn record(&mut self, found: &mut Found<'_>, kind: u8, rest: &[u8], value: &[u8]) {
        let number = keys::last_number(rest).unwrap_or_default();
        match kind {
            keys::GROUP => self.membership(found, number, value),
            keys::ORIGIN => {
                if let Err(error) = decode_number(value) {
                    found.fault(self.id, 0, format!("what it remembers of {number}: {error}"));
                }
            }
            other => {
                found.fault(self.id, 0, format!("groups have no records of kind {:?}", char::from(other)))
            }
        }
    }

    fn membership(&mut self, found: &mut Found<'_>, version: u64, value: &[u8]) {
        match GroupMeta::decode(value) {
            Ok(meta) if meta.version != version => {
                found.fault(
                    self.id,
                    version,
                    format!("the membership says that it is version {}", meta.version),
                );
            }
            Ok(_) => {}
            Err(error) => found.fault(self.id, version, error.to_string()),
        }
        if version != self.version + 1 {
            found.fault(
                self.id,
                version,
                format!("version {} of the membership is missing", self.version + 1),
            );
        }
        self.version = version;
    }

    pub fn end(self, found: &mut Found<'_>) {
        found.counts.groups += u64::from(self.version > 0);
    }
}
