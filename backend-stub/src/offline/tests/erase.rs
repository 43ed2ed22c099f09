//! What erasing and exporting a user leave and give.

use std::fs;

use bytes::Bytes;
use proto_wire::names::section_of;
use proto_wire::pb;
use serde_json::Value;

use super::world::{Dir, World, tamper, tool, tool_both};
use crate::logic::duty::{StoredDuty, StoredTask};
use crate::logic::keys;

/// A cursor of the log's own epoch.
fn cursor(number: u64) -> pb::Cursor {
    pb::Cursor { log_epoch: 1, number }
}

#[test]
fn erasing_says_what_goes_and_does_it_when_it_is_told_to() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 2);
    let before = tool(&["user", "log", "2", "--json"], &dir.0).expect("a log");
    let (plan, refused) = tool_both(&["user", "erase", "alice"], &dir.0);
    assert!(refused.is_err_and(|error| error.contains("say --yes")));
    for words in ["its account: alice", "2 moments", "stays theirs", "still a member of group"] {
        assert!(plan.contains(words), "{words} in {plan}");
    }
    assert!(tool(&["user", "show", "alice"], &dir.0).is_ok(), "nothing was removed");

    let done = tool(&["user", "erase", "alice", "--yes"], &dir.0).expect("erased");
    assert!(done.ends_with("removed\n"), "{done}");
    assert!(tool(&["user", "show", "alice"], &dir.0).expect_err("gone").contains("nobody has the name"));
    let shown: Value =
        serde_json::from_str(&tool(&["user", "show", "1", "--json"], &dir.0).expect("shown")).expect("JSON");
    for empty in ["contacts", "other_peers", "moments", "uploads"] {
        assert_eq!(shown[empty], 0, "{empty}");
    }
    assert_eq!((&shown["rows"], &shown["devices"]), (&1.into(), &serde_json::json!([])));
    assert_eq!(
        tool(&["user", "log", "2", "--json"], &dir.0).expect("a log"),
        before,
        "others keep what they have"
    );
    tool(&["check"], &dir.0).expect("whole");
    let again = tool(&["user", "erase", "1", "--yes"], &dir.0).expect("nothing to do");
    assert_eq!(again, "nothing is stored of user 1\n");
}

#[test]
fn numbers_are_not_given_twice_and_a_phone_that_stayed_forgets() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 1);
    let newest = tool(&["user", "log", "1"], &dir.0).expect("a log").lines().count() as u64 - 1;
    tool(&["user", "erase", "1", "--yes"], &dir.0).expect("erased");
    let mut world = World::open(&dir.0, 1);
    let page = world.pull(1, cursor(newest), Bytes::new());
    assert!(page.snapshot, "it forgets what it had: {page:?}");
    assert_eq!(
        page.changes.iter().map(|change| change.deleted).collect::<Vec<_>>(),
        vec![true; page.changes.len()]
    );
    assert_eq!(world.send(1, 2, "I am back"), newest + 2);
    drop(world);
    tool(&["check"], &dir.0).expect("whole");
}

#[test]
fn duties_of_an_erased_user_go_too() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 2);
    let plant = |section: u16, sequence: u64, task: StoredTask| {
        let mut value = Vec::new();
        StoredDuty { created_ms: 1, task }.encode(&mut value);
        tamper(&dir, &keys::duty(section, sequence), Some(&value));
    };
    plant(section_of(1), 98, StoredTask::User { receiver: 2, sender: 1, number: 1 });
    plant(section_of(2), 99, StoredTask::User { receiver: 1, sender: 2, number: 1 });
    let shown = tool(&["user", "show", "1"], &dir.0).expect("shown");
    assert!(shown.contains("1 from it, 1 to it"), "{shown}");
    tool(&["user", "erase", "1", "--yes"], &dir.0).expect("erased");
    let shown = tool(&["user", "show", "1"], &dir.0).expect("shown");
    assert!(shown.contains("0 from it, 0 to it"), "{shown}");
    tool(&["check"], &dir.0).expect("whole");
}

#[test]
fn an_export_has_all_but_the_passwords_hash() {
    let (dir, out) = (Dir::new(), Dir::new());
    World::lived_in(&dir.0, 2);
    let to = out.0.to_str().expect("a plain path");
    tool(&["user", "export", "alice", to], &dir.0).expect("exported");
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(out.join(name)).expect("there");
        assert!(!text.contains("argon2"), "no hash in {name}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let account = lines("account.jsonl");
    assert_eq!((&account[0]["user"], &account[0]["names"]), (&"1".into(), &serde_json::json!(["alice"])));
    assert_eq!(account[0]["me"]["profile"]["nick"], "Alice");
    assert_eq!(account[0]["me"]["settings"]["colour"], "blue");
    let log = tool(&["user", "log", "1", "--json"], &dir.0).expect("a log");
    assert_eq!(lines("rows.jsonl").len(), log.lines().count());
    assert!(lines("rows.jsonl").iter().any(|row| row["body"]["text"] == "to the group"));
    assert!(lines("peers.jsonl").iter().any(|peer| peer["state"]["remark"] == "bobby"));
    let moments = lines("moments.jsonl");
    assert_eq!(moments.len(), 2);
    assert_eq!(moments[0]["post"]["text"], "a fine day");
    assert_eq!(moments[0]["said"].as_array().map(Vec::len), Some(1), "one was taken away");
    assert_eq!(moments[0]["said"][0]["text"], "indeed");
    assert_eq!(moments[1]["withdrawn"], true);
    let again = tool(&["user", "export", "alice", to], &dir.0).expect_err("it is not empty");
    assert!(again.contains("holds something already"), "{again}");
}

#[test]
fn compacting_changes_no_row() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 2);
    let before = tool(&["user", "log", "1", "--json"], &dir.0).expect("a log");
    let said = tool(&["compact"], &dir.0).expect("compacted");
    assert!(said.contains("bytes on the disk before,"), "{said}");
    assert_eq!(tool(&["user", "log", "1", "--json"], &dir.0).expect("a log"), before);
    tool(&["check"], &dir.0).expect("whole");
}
