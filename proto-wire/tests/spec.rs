//! The tables of `spec/*.md` say what the code says.

use proto_wire::close::Reason;
use proto_wire::frame::kind;
use proto_wire::rpc::header::{Kind, ext};
use proto_wire::services;
use proto_wire::status::Code;
use proto_wire::{frame, limits};

const CLIENT: &str = include_str!("../spec/client.md");
const RPC: &str = include_str!("../spec/rpc.md");

/// The rows of all tables, each as its cells without marks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.replace(['*', '`'], "").trim().to_owned()).collect()
    };
    text.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// Whether a row begins with these cells.
fn has_row(rows: &[Vec<String>], first: &str, second: &str) -> bool {
    rows.iter().any(|row| row.len() > 1 && row[0] == first && row[1] == second)
}

#[test]
fn every_close_code_is_described() {
    let rows = rows(CLIENT);
    for &reason in Reason::ALL {
        let never_sent = matches!(reason, Reason::PeerClosed | Reason::Reset);
        let found = if never_sent {
            has_row(&rows, "8, 9", "peer_closed, reset")
        } else {
            has_row(&rows, &(reason as u16).to_string(), reason.name())
        };
        assert!(found, "{reason:?}");
    }
}

#[test]
fn every_status_is_described_and_says_whether_it_is_safe() {
    let rows = rows(CLIENT);
    let known: Vec<Code> = (0..=u16::MAX).map(Code).filter(|code| code.name() != "unknown_code").collect();
    assert_eq!(known.len(), 18);
    for code in known {
        let row = rows.iter().find(|row| row[0] == code.0.to_string() && row[1] == code.name());
        let row = row.unwrap_or_else(|| panic!("{code:?}"));
        assert_eq!(row[2] == "not applied, send again", code.is_safe_to_retry(), "{code:?}");
    }
}

#[test]
fn every_frame_type_is_described() {
    let rows = rows(CLIENT);
    for (frame_kind, name) in [
        (kind::HELLO, "HELLO"),
        (kind::WELCOME, "WELCOME"),
        (kind::BEAT, "BEAT"),
        (kind::CALL, "CALL"),
        (kind::REPLY, "REPLY"),
        (kind::NOTIFY, "NOTIFY"),
        (kind::GOAWAY, "GOAWAY"),
        (kind::CLOSE, "CLOSE"),
    ] {
        assert!(kind::is_known(frame_kind) && has_row(&rows, &format!("{frame_kind:02x}"), name), "{name}");
    }
    // Used, and in the range that may be skipped: a phone that shows no notices need not know it.
    assert!(kind::is_skippable(kind::EVENT) && has_row(&rows, "83", "EVENT"));
    for (frame_kind, name) in [
        (kind::INTERVAL, "INTERVAL"),
        (kind::STATE, "STATE"),
        (kind::CANCEL, "CANCEL"),
        (kind::TRACE, "TRACE"),
    ] {
        assert!(
            kind::is_skippable(frame_kind) && CLIENT.contains(&format!("`{frame_kind:02x}` {name}")),
            "{name}"
        );
    }
    assert!(CLIENT.starts_with(&format!(
        "# The client protocol, version {}.{}\n",
        frame::VERSION_MAJOR,
        frame::VERSION_MINOR
    )));
}

#[test]
fn the_limits_are_the_code_s() {
    let rows = rows(CLIENT);
    for (what, limit) in [
        ("body of a frame", limits::MAX_FRAME_BODY_BYTES),
        ("body of HELLO", limits::MAX_HELLO_BODY_BYTES),
        ("token", limits::MAX_TOKEN_BYTES),
        ("body of a skipped frame", limits::MAX_SKIPPABLE_BODY_BYTES),
        ("inline page of a NOTIFY", limits::MAX_INLINE_BYTES),
        ("calls in flight", limits::MAX_PHONE_CALLS_IN_FLIGHT),
        ("ticket", limits::MAX_TICKET_BYTES),
        ("address in to", limits::MAX_ADDRESS_BYTES),
        ("text of a message", limits::MAX_TEXT_BYTES),
        ("members of a group", limits::MAX_GROUP_MEMBERS),
    ] {
        // The table of limits is the last one that names these.
        let row = rows.iter().rfind(|row| row[0] == what).unwrap_or_else(|| panic!("{what}"));
        let number: String =
            row[1].chars().take_while(|c| *c != 'B' && *c != ',').filter(char::is_ascii_digit).collect();
        assert_eq!(number, limit.to_string(), "{what}");
    }
}

#[test]
fn kinds_extensions_and_tiers_of_the_rpc_are_described() {
    let rows = rows(RPC);
    for (kind, name) in [
        (Kind::Call, "CALL"),
        (Kind::Reply, "REPLY"),
        (Kind::Cancel, "CANCEL"),
        (Kind::Credit, "CREDIT"),
        (Kind::GoAway, "GOAWAY"),
    ] {
        assert!(has_row(&rows, &(kind as u8).to_string(), name), "{name}");
    }
    assert!(has_row(&rows, &format!("{}, {}", Kind::Ping as u8, Kind::Pong as u8), "PING, PONG"));
    for (kind, name) in [
        (ext::IDENTITY, "identity"),
        (ext::CURSOR, "cursor"),
        (ext::RETRY_AFTER, "retry after"),
        (ext::TRACE, "trace"),
        (ext::TOKEN, "token"),
    ] {
        assert!(has_row(&rows, &kind.to_string(), name), "{name}");
    }
    for method in services::METHODS {
        let tier = format!("{:02x}xx", method.id >> 8);
        assert!(has_row(&rows, &method.service.to_lowercase(), &tier), "{} {tier}", method.service);
    }
}
