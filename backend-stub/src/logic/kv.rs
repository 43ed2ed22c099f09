//! A small area of names and values on the same commit path: accounts by name.

use bytes::Bytes;
use proto_wire::names::section_of;
use proto_wire::status::{Code, Status};

use super::api::{Answer, KvKey};
use super::core::{Core, Effect, Purpose};
use super::{keys, limits};
use crate::storage::{Query, ReadError, Rows};

impl Core {
    pub fn kv_get(&mut self, token: u64, key: KvKey) {
        if self.kv_checked_key(token, &key, 0) {
            self.kv_read_key(&key, Purpose::KvGet { token });
        }
    }

    /// Writes a value whether or not there is one.
    pub fn kv_put(&mut self, token: u64, key: KvKey, value: Bytes) {
        if !self.kv_checked_key(token, &key, value.len()) || !self.admit(token, section_of(key.owner)) {
            return;
        }
        self.kv_write(&key, &value);
        self.effect(section_of(key.owner), Effect::Kv { token });
    }

    /// Writes a value unless there is one, which is the answer then.
    pub fn kv_create(&mut self, token: u64, key: KvKey, value: Bytes) {
        if !self.kv_checked_key(token, &key, value.len()) || !self.admit(token, section_of(key.owner)) {
            return;
        }
        if !self.kv_creating.insert(key.clone()) {
            return self.refuse(token, Status::new(Code::Overloaded, "this name is being taken right now"));
        }
        self.kv_read_key(&key.clone(), Purpose::KvCreate { token, key, value });
    }

    fn kv_checked_key(&mut self, token: u64, key: &KvKey, value_bytes: usize) -> bool {
        let fits = key.name.len() <= limits::MAX_KV_NAME_BYTES && value_bytes <= limits::MAX_KV_VALUE_BYTES;
        if fits && !keys::KINDS.contains(&key.kind) {
            return true;
        }
        self.answer(token, Err(Status::invalid("this name or value cannot be stored")));
        false
    }

    fn kv_read_key(&mut self, key: &KvKey, purpose: Purpose) {
        let query = Query::Get(keys::kv(key.owner, key.kind, &key.name));
        self.read(self.partition(section_of(key.owner)), vec![query], purpose);
    }

    fn kv_write(&mut self, key: &KvKey, value: &[u8]) {
        self.open(section_of(key.owner)).put(&keys::kv(key.owner, key.kind, &key.name), value);
    }

    pub(super) fn kv_read(&mut self, token: u64, answer: Result<Vec<Rows>, ReadError>) {
        let answer = answer.map(|rows| Answer::Kv(rows.first().and_then(Rows::value).cloned()));
        self.answer(token, answer.map_err(unreadable));
    }

    pub(super) fn kv_checked(
        &mut self,
        token: u64,
        key: KvKey,
        value: Bytes,
        answer: Result<Vec<Rows>, ReadError>,
    ) {
        match answer.map(|rows| rows.first().and_then(Rows::value).cloned()) {
            Ok(None) => {
                self.kv_write(&key, &value);
                self.effect(section_of(key.owner), Effect::KvCreated { token, key });
            }
            Ok(existing) => {
                self.kv_creating.remove(&key);
                self.answer(token, Ok(Answer::Kv(existing)));
            }
            Err(error) => {
                self.kv_creating.remove(&key);
                self.answer(token, Err(unreadable(error)));
            }
        }
    }
}

fn unreadable(error: ReadError) -> Status {
    Status::new(Code::Internal, error.to_string())
}
