//! What is told of one user.

use serde_json::Value;

use super::world::{Dir, World, tool};

#[test]
fn all_of_a_user_is_shown_by_name_and_by_number() {
    let dir = Dir::new();
    let lived = World::lived_in(&dir.0, 2);
    let by_name = tool(&["user", "show", "alice"], &dir.0).expect("shown");
    assert_eq!(by_name, tool(&["user", "show", "1"], &dir.0).expect("shown"));
    assert!(by_name.contains("tablet\", logged in at") && by_name.contains("logged out"), "{by_name}");

    let json = tool(&["user", "show", "alice", "--json"], &dir.0).expect("shown");
    let shown: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(shown["user"], "1");
    assert_eq!((&shown["contacts"], &shown["other_peers"]), (&2.into(), &1.into()));
    assert_eq!(shown["groups"].as_array().map(Vec::len), Some(2));
    assert!(shown["groups"].to_string().contains(&lived.group.to_string()));
    assert_eq!(shown["devices"].as_array().map(Vec::len), Some(2));
    assert_eq!((&shown["moments"], &shown["moments_withdrawn"]), (&1.into(), &1.into()));
    assert_eq!(shown["marks"], serde_json::json!(["logged a device out"]));
    assert_eq!((&shown["duties_from"], &shown["duties_to"]), (&0.into(), &0.into()));
    let log = tool(&["user", "log", "1", "--json"], &dir.0).expect("shown");
    assert_eq!(shown["rows"], log.lines().count());

    // One who left a group is not shown in it.
    let third: Value =
        serde_json::from_str(&tool(&["user", "show", "3", "--json"], &dir.0).expect("shown")).expect("JSON");
    assert_eq!(third["groups"], serde_json::json!([]));
}

#[test]
fn a_log_is_a_line_a_row_with_its_chain() {
    let dir = Dir::new();
    World::lived_in(&dir.0, 1);
    let lines = tool(&["user", "log", "alice", "--json"], &dir.0).expect("shown");
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(rows.len() > 20);
    for (before, row) in rows.iter().zip(&rows[1..]) {
        assert_eq!(row["prev"], before["number"]);
    }
    assert!(rows.iter().all(|row| row["kind"].is_string() && row["body"].is_object()), "{lines}");
    let text = tool(&["user", "log", "alice"], &dir.0).expect("shown");
    for expected in ["1 to 2: good morning", "taken back", "called \"bobby\"", "#", "a fine day", "(deleted)"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let some =
        tool(&["user", "log", "alice", "--from", "5", "--limit", "3", "--json"], &dir.0).expect("shown");
    let numbers: Vec<Value> = some
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["number"].clone())
        .collect();
    assert_eq!(numbers, rows.iter().map(|row| row["number"].clone()).skip(4).take(3).collect::<Vec<_>>());
}

#[test]
fn who_is_unknown_what_is_no_store_and_a_store_in_use_are_told() {
    let dir = Dir::new();
    let missing = tool(&["user", "show", "1"], &dir.0).expect_err("nothing is there");
    assert!(missing.contains("holds no store") && missing.contains("--data"), "{missing}");
    assert!(!dir.0.exists(), "looking makes no store");
    World::lived_in(&dir.0, 1);
    let nobody = tool(&["user", "show", "carol"], &dir.0).expect_err("no such name");
    assert!(nobody.contains("nobody has the name \"carol\""), "{nobody}");
    for bad in ["0", "9223372036854775808", "Käthe"] {
        let error = tool(&["user", "show", bad], &dir.0).expect_err("no user");
        assert!(error.contains("is no user"), "{error}");
    }
    let _held = World::open(&dir.0, 1);
    let held = tool(&["user", "log", "1"], &dir.0).expect_err("in use");
    assert!(held.contains("is in use by another process"), "{held}");
}
