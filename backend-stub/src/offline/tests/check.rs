//! A check finds nothing in a store that is whole, and each fault that is planted.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proto_wire::names::section_of;
use proto_wire::pb;

use super::world::{Dir, World, tamper, tool, tool_both};
use crate::logic::duty::{StoredDuty, StoredTask};
use crate::logic::keys;
use crate::logic::values::{Kept, Row, RowBody, decode_index, encode_number};
use crate::offline::store::Store;

fn faults(dir: &Dir) -> Vec<String> {
    let mut faults = Vec::new();
    crate::offline::check::check(&dir.store(), &mut |fault| faults.push(fault.to_string()));
    faults
}

/// One fault and no other, with these words.
fn assert_finds(dir: &Dir, words: &str) {
    let found = faults(dir);
    assert!(!found.is_empty() && found.iter().any(|fault| fault.contains(words)), "{words} in {found:?}");
    let (out, result) = tool_both(&["check"], &dir.0);
    assert!(out.contains(words) && result.is_err_and(|error| error.contains("faults")), "{out}");
}

fn first_of(dir: &Dir, owner: u64, kind: u8) -> (Vec<u8>, Bytes) {
    let store = dir.store();
    store.prefix(&keys::kv(owner, kind, &[])).next().expect("there is one").expect("read")
}

fn rows(dir: &Dir, user: u64) -> Vec<(u64, Row)> {
    let store = dir.store();
    let rows = store.prefix(&keys::kv(user, keys::ROW, &[])).map(|row| {
        let (key, value) = row.expect("read");
        let number = keys::last_number(&key).expect("a number");
        (number, Row::decode(number, &value).expect("a row"))
    });
    rows.collect()
}

fn put_row(dir: &Dir, user: u64, number: u64, row: &Row) {
    let mut value = Vec::new();
    row.encode(number, &mut value);
    tamper(dir, &keys::row(user, number), Some(&value));
}

#[test]
fn a_store_that_was_lived_in_is_whole() {
    for partitions in [1, 3] {
        let dir = Dir::new();
        World::lived_in(&dir.0, partitions);
        assert_eq!(faults(&dir), [""; 0]);
        let out = tool(&["check"], &dir.0).expect("whole");
        assert!(
            out.contains("4 users") && out.contains("2 accounts") && out.ends_with("0 faults\n"),
            "{out}"
        );
    }
}

#[test]
fn a_missing_row_is_found_wherever_it_was() {
    for (planted, words) in [(1, "the row 1 before it is missing"), (9, "the row 9 before it is missing")] {
        let dir = Dir::new();
        World::lived_in(&dir.0, 2);
        tamper(&dir, &keys::row(1, planted), None);
        assert_finds(&dir, words);
    }
    // Nothing follows the last row; what names it tells that it is missing.
    let dir = Dir::new();
    let mut world = World::open(&dir.0, 1);
    world.send(1, 2, "one");
    world.send(1, 2, "two");
    drop(world);
    tamper(&dir, &keys::row(1, 2), None);
    assert_finds(&dir, "user 1, number 2: an upload was answered with this number");
}

#[test]
fn a_row_that_does_not_follow_or_cannot_be_read_is_found() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 1);
    let (number, row) = rows(&dir, 1)[5].clone();
    put_row(&dir, 1, number, &Row { prev: number - 3, ..row.clone() });
    assert_finds(
        &dir,
        &format!("number {number}: it follows {}, and says that it follows {}", number - 1, number - 3),
    );
    tamper(&dir, &keys::row(1, number), Some(&[9, 9]));
    assert_finds(&dir, &format!("user 1, number {number}: a stored row cannot be read"));
    put_row(&dir, 1, number, &Row { replaced: number + 1, ..row.clone() });
    assert_finds(&dir, "cannot be the last row that replaced one");
    put_row(&dir, 1, number, &row);
    assert_eq!(faults(&dir), [""; 0]);
    let (number, row) = rows(&dir, 1).pop().expect("a last row");
    put_row(&dir, 1, number, &Row { marks: 0, ..row });
    assert_finds(&dir, "a mark of the rows before is lost");
}

#[test]
fn an_index_out_of_step_is_found() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 1);
    let (key, value) = first_of(&dir, 1, keys::ITEM);
    let (number, version) = decode_index(&value).expect("an entry");
    let planted = |number: u64, version: u64| {
        let mut value = Vec::new();
        encode_number(number, &mut value);
        prost::encoding::encode_varint(version, &mut value);
        value
    };
    tamper(&dir, &key, None);
    assert_finds(&dir, "rows and no index entry");
    tamper(&dir, &key, Some(&planted(number - 1, version)));
    assert_finds(&dir, &format!("names it, and the newest row is {number}"));
    tamper(&dir, &key, Some(&planted(number, version + 1)));
    assert_finds(&dir, &format!("says version {}, and the row has {version}", version + 1));
    tamper(&dir, &key, Some(&[1]));
    assert_finds(&dir, "a stored index entry cannot be read");
    tamper(&dir, &key, Some(&value));
    tamper(&dir, &keys::item(1, 77, 1), Some(&planted(2, 2)));
    assert_finds(&dir, "the index of item 77/1 names it, and no row has that item");
    tamper(&dir, &keys::item(1, 77, 1), None);
    assert_eq!(faults(&dir), [""; 0]);
}

#[test]
fn a_body_of_a_group_that_is_missing_or_damaged_is_found() {
    let dir = Dir::new();
    let lived = World::lived_in(&dir.0, 2);
    let group_row = |(_, row): &(u64, Row)| match row.body {
        RowBody::Group { group, number } if group == lived.group => Some(number),
        _ => None,
    };
    let message = rows(&dir, 1).iter().find_map(group_row).expect("a row of the group");
    let key = keys::body(section_of(1), lived.group, message);
    let body = dir.store().get(&key).expect("read").expect("a copy");
    tamper(&dir, &key, None);
    assert_finds(&dir, &format!("message {message} of group {}, its body, is missing", lived.group));
    tamper(&dir, &key, Some(b"\x01"));
    assert_finds(&dir, &format!("group {}, number {message}: a stored body cannot be read", lived.group));
    tamper(&dir, &key, Some(&body));
    tamper(&dir, &keys::group(lived.group, 2), None);
    assert_finds(&dir, "version 2 of the membership is missing");
}

#[test]
fn what_is_kept_of_peers_and_moments_must_agree_with_the_rows() {
    let dir = Dir::new();
    let lived = World::lived_in(&dir.0, 1);
    let key = keys::peer(1, 2);
    let value = dir.store().get(&key).expect("read").expect("kept");
    let kept = Kept::<pb::Peer>::decode(&value).expect("kept");
    let mut stale = Vec::new();
    Kept { number: kept.number - 1, ..kept.clone() }.encode(&mut stale);
    tamper(&dir, &key, Some(&stale));
    assert_finds(&dir, "what is kept of item 2/0 names it, and the newest row is");
    tamper(&dir, &key, None);
    assert_finds(&dir, "there are 1 contacts, and 2 are counted");
    tamper(&dir, &key, Some(&value));
    tamper(&dir, &keys::contacts(1), None);
    assert_finds(&dir, "there are 2 contacts, and 0 are counted");
    let mut count = Vec::new();
    encode_number(2, &mut count);
    tamper(&dir, &keys::contacts(1), Some(&count));
    assert_eq!(faults(&dir), [""; 0]);
    tamper(&dir, &keys::moment(1, lived.moment), None);
    assert_finds(&dir, "and it is no moment");
    tamper(&dir, &keys::moment(1, lived.moment), Some(&[1, 0, 1]));
    assert_finds(&dir, "the moment names row 1, and that is not its newest");
}

#[test]
fn a_duty_without_its_row_or_that_cannot_be_read_is_found() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 2);
    let planted = |task: StoredTask| {
        let mut value = Vec::new();
        StoredDuty { created_ms: 1, task }.encode(&mut value);
        value
    };
    let key = keys::duty(section_of(1), 99);
    tamper(&dir, &key, Some(&planted(StoredTask::User { receiver: 2, sender: 1, number: 1 })));
    assert_eq!(faults(&dir), [""; 0], "its row is there");
    tamper(&dir, &key, Some(&planted(StoredTask::User { receiver: 2, sender: 1, number: 5000 })));
    assert_finds(&dir, "duty 99: change 5000 of user 1 for user 2: the sender's row is missing");
    tamper(&dir, &key, Some(&planted(StoredTask::Group { group: 7, sender: 2, number: 1 })));
    assert_finds(&dir, "it is not of section");
    tamper(&dir, &key, Some(&[1, 99]));
    assert_finds(&dir, "duty 99: a stored duty cannot be read");
}

#[test]
fn records_in_a_wrong_place_or_of_no_kind_are_found() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 2);
    for (key, words) in [
        (keys::kv(1, b'Z', b"x"), "a record of kind 'Z'"),
        (keys::kv(1, keys::ROW, b"x"), "a record of kind 'L' has the key"),
        (keys::kv(1, crate::logic::services::ACCOUNT, b"carol"), "the name \"carol\" is not kept here"),
        (
            keys::origin((section_of(1) + 2) % 4096, 1, 2).to_vec(),
            "user 1, number 0: a record of it lies in section",
        ),
        (vec![0, 1, 2], "is none of the store's"),
    ] {
        tamper(&dir, &key, Some(&[1, 1]));
        assert_finds(&dir, words);
        tamper(&dir, &key, None);
    }
    assert_eq!(faults(&dir), [""; 0]);
    let store: Store = dir.store();
    let mut batch = crate::storage::Batch::new(0);
    batch.put(&keys::origin(section_of(1), 1, 9), &[1, 1]);
    store.commit(1 - store.partition(section_of(1)), batch).expect("written");
    drop(store);
    assert_finds(&dir, "lie in partition");
}

#[test]
fn an_upload_an_account_a_horizon_and_a_comment_that_cannot_be_read_are_found() {
    let dir = Dir::new();
    let lived = World::lived_in(&dir.0, 1);
    let account = crate::logic::services::key_of("alice").expect("a name");
    let account = keys::kv(account.owner, account.kind, &account.name);
    for (key, words) in [
        (first_of(&dir, 1, keys::UPLOAD).0, "a stored upload cannot be read"),
        (account, "the account of \"alice\""),
        (keys::horizon(1).to_vec(), "a stored horizon cannot be read"),
        (keys::said(1, lived.moment, 2, 1).to_vec(), "a stored comment cannot be read"),
        (keys::origin(section_of(1), 1, 2).to_vec(), "a stored number cannot be read"),
        (keys::moment(1, lived.moment).to_vec(), "a stored moment cannot be read"),
        (keys::peer(1, 1).to_vec(), "a stored peer cannot be read"),
        (keys::group(lived.group, 1).to_vec(), "a stored group cannot be read"),
    ] {
        let before = dir.store().get(&key).expect("read");
        tamper(&dir, &key, Some(&[7]));
        assert_finds(&dir, words);
        tamper(&dir, &key, before.as_deref());
    }
    assert_eq!(faults(&dir), [""; 0]);
}

#[test]
fn a_block_that_cannot_be_read_hides_no_other_user() {
    let dir = Dir::new();
    let mut world = World::open(&dir.0, 1);
    for number in 0..40 {
        for user in 1..=8 {
            world.send(
                user,
                user % 8 + 1,
                &format!("{number}, with a text that takes its room {}", "x".repeat(150)),
            );
        }
    }
    drop(world);
    tool(&["compact"], &dir.0).expect("compacted");
    let rows = |dir: &Dir, found: &mut Vec<String>| {
        crate::offline::check::check(&dir.store(), &mut |fault| found.push(fault.to_string())).rows
    };
    let whole = rows(&dir, &mut Vec::new());
    assert_eq!(whole, 8 * 80);
    let table = largest_table(&dir.join("store/p0"));
    let mut bytes = fs::read(&table).expect("a table");
    let at = bytes.len() * 2 / 5;
    bytes[at] ^= 0x20;
    fs::write(&table, bytes).expect("written");
    let mut found = Vec::new();
    let left = rows(&dir, &mut found);
    assert!(
        found.iter().any(|fault| fault.starts_with("user ") && fault.contains("cannot be read")),
        "{found:?}"
    );
    assert!(left < whole && left > whole / 2, "{left} of {whole} rows");
    assert!(tool(&["check"], &dir.0).is_err_and(|error| error.contains("faults")));
}

fn largest_table(dir: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => dirs.push(path),
                false => files.push(path),
            }
        }
    }
    files.retain(|path| path.extension().is_none_or(|extension| extension != "jnl"));
    files.into_iter().max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("a table")
}
