//! What a phone shows: the newest state of each item, without what the model cannot know (times, numbers).

use std::collections::BTreeMap;

use proto_wire::pb::{self, change::Body};

pub type Item = (u64, u64);
pub type Book = BTreeMap<Item, Body>;

/// A body without times and numbers that only the server gives.
pub fn plain(body: Body) -> Body {
    match body {
        Body::Message(message) => Body::Message(pb::Message { sent_ms: 0, group_number: 0, ..message }),
        Body::Event(event) => Body::Event(pb::GroupEvent { time_ms: 0, group_number: 0, ..event }),
        Body::Post(post) => Body::Post(pb::Post { posted_ms: 0, ..post }),
        Body::PostRef(post) => Body::PostRef(pb::PostRef { posted_ms: 0, ..post }),
        Body::Comment(comment) => Body::Comment(pb::Comment { sent_ms: 0, ..comment }),
        Body::Peer(peer) => {
            // Where the user's own log was read is a number of that log.
            Body::Peer(pb::Peer { read: peer.read.min(1), ..peer })
        }
        other => other,
    }
}

pub fn apply(book: &mut Book, changes: Vec<pb::Change>) {
    for change in changes {
        let item = change.item.map(|item| (item.origin, item.number)).expect("a change has an item");
        match change.body {
            Some(body) => drop(book.insert(item, plain(body))),
            None => drop(book.remove(&item)),
        }
    }
}
