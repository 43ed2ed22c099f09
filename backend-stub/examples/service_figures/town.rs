//! Users and what they do.

use std::time::Duration;

use backend_stub::logic::{Answer, Upload, Verb, upload_hash};
use proto_wire::pb;

use crate::host::{Host, fail};
use crate::load::{Call, load};

pub const TEXT: &str = "a message of some forty characters or so";

/// For what is only prepared.
pub const PREPARING: usize = 256;
pub const LONG: Duration = Duration::from_secs(3600);

pub fn send(host: &mut Host, user: u64, to: u64) -> Call {
    let (id, text) = (host.upload_id(), TEXT.to_owned());
    let request = pb::SendRequest { id, to, text, wants_page: true, ..Default::default() };
    let token = host.call(|core, at, token| core.send(at, token, user, 1, &request));
    Call { token, user }
}

pub fn verb(host: &mut Host, user: u64, verb: Verb) -> Call {
    let id = host.upload_id();
    // As much to hash as a short request has.
    let hash = upload_hash(1, &pb::PostRef { from: user, posted_ms: host.at().unix_ms });
    let token = host.call(|core, at, token| core.upload(at, token, user, 1, Upload { id, hash, verb }));
    Call { token, user }
}

pub fn mark(host: &mut Host, user: u64, peer: u64, item: u64) -> Call {
    let request = pb::MarkRequest { peer, read: 0, delivered_item: item, read_item: item };
    let token = host.call(|core, at, token| core.mark(at, token, user, 1, &request));
    Call { token, user }
}

pub fn make_group(host: &mut Host, members: &[u64]) -> u64 {
    let request =
        pb::CreateGroupRequest { id: host.upload_id(), name: "g".into(), members: members.to_vec() };
    let answer = host.ask(|core, at, token| core.create_group(at, token, members[0], &request));
    let Answer::Group(reply) = answer else { fail("a group was asked for") };
    host.drain();
    reply.group
}

/// Both sides of each pair ask: they are contacts then.
pub fn befriend(host: &mut Host, pairs: &[(u64, u64)]) {
    for turned in [false, true] {
        let mut left = pairs.iter();
        let next = |host: &mut Host| {
            let (a, b) = *left.next()?;
            let (user, peer) = if turned { (b, a) } else { (a, b) };
            Some(verb(host, user, Verb::Ask { peer, hello: String::new() }))
        };
        let asked = load(host, PREPARING, LONG, next, |_, _| {});
        if asked.refused > 0 {
            fail("contacts were refused");
        }
    }
}

/// A user's log as a life fills it: messages of 20 others, and a mark after every tenth.
pub fn fill_log(host: &mut Host, user: u64, messages: u64) {
    let mut made = 0;
    let next = |host: &mut Host| {
        if made == messages * 11 / 10 {
            return None;
        }
        made += 1;
        let from = user + 1 + made / 11 % 20;
        Some(if made % 11 == 10 { mark(host, user, from, made) } else { send(host, from, user) })
    };
    load(host, PREPARING, LONG, next, |_, _| {});
}
