//! What a row says: as a line for a person, and as JSON. Ids of users, groups and devices are strings in JSON, since they
//! do not fit into the numbers of most readers; numbers of rows are numbers.

use prost::Message as _;
use proto_wire::pb::{self, change::Body as Content};
use serde_json::{Map, Value, json};

use super::limits;
use crate::logic::duty::{PeerWord, StoredTask};
use crate::logic::values::{Body, BodyHead, GroupMeta, Kind, Malformed, mark};

/// What is in a body, by its kind.
pub(crate) fn content(body: &Body) -> Result<(BodyHead, Content), Malformed> {
    let (head, bytes) = body.split()?;
    let content = match head.kind {
        Kind::Message => pb::Message::decode(bytes).map(Content::Message),
        Kind::Group => pb::GroupState::decode(bytes).map(Content::Group),
        Kind::Peer => pb::Peer::decode(bytes).map(Content::Peer),
        Kind::Event => pb::GroupEvent::decode(bytes).map(Content::Event),
        Kind::Post => pb::Post::decode(bytes).map(Content::Post),
        Kind::PostRef => pb::PostRef::decode(bytes).map(Content::PostRef),
        Kind::Comment => pb::Comment::decode(bytes).map(Content::Comment),
        Kind::Me => pb::Me::decode(bytes).map(Content::Me),
    };
    content.map(|content| (head, content)).map_err(|_| Malformed("body"))
}

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Message => "message",
        Kind::Group => "group",
        Kind::Peer => "peer",
        Kind::Event => "event",
        Kind::Post => "moment",
        Kind::PostRef => "moment of a contact",
        Kind::Comment => "comment",
        Kind::Me => "me",
    }
}

pub(crate) fn marks(marks: u8) -> Vec<&'static str> {
    let names = [(mark::BLOCKS, "blocks somebody"), (mark::DEVICES, "logged a device out")];
    names.iter().filter(|(bit, _)| marks & bit != 0).map(|(_, name)| *name).collect()
}

/// A line for a person.
pub(crate) fn line(content: &Content) -> String {
    match content {
        Content::Message(message) if message.recalled => {
            format!("{} to {}: taken back", message.from, message.to)
        }
        Content::Message(message) => {
            let place =
                if message.group_number > 0 { format!(" #{}", message.group_number) } else { String::new() };
            let image = if message.image.is_some() { " [image]" } else { "" };
            format!("{} to {}{place}: {}{image}", message.from, message.to, short(&message.text))
        }
        Content::Group(state) => {
            format!(
                "group {} {:?}, {} members, owner {}",
                state.group,
                short(&state.name),
                state.members.len(),
                state.owner
            )
        }
        Content::Peer(peer) => peer_line(peer),
        Content::Event(event) => format!(
            "group {}: {} {}{}{}",
            event.group,
            event.by,
            action(event),
            event.users.iter().map(|user| format!(" {user}")).collect::<String>(),
            if event.name.is_empty() { String::new() } else { format!(" {:?}", short(&event.name)) },
        ),
        Content::Post(post) => format!("{} [{} images]", short(&post.text), post.images.len()),
        Content::PostRef(post) => format!("of {}", post.from),
        Content::Comment(comment) => {
            let what = if comment.like { "likes it".to_owned() } else { short(&comment.text) };
            format!("{} to moment {} of {}: {what}", comment.from, comment.post, comment.author)
        }
        Content::Me(me) => {
            let nick = me.profile.as_ref().map_or("", |profile| &profile.nick);
            format!("nick {:?}, {} settings, {} devices", short(nick), me.settings.len(), me.devices.len())
        }
    }
}

fn peer_line(peer: &pb::Peer) -> String {
    let mut line = format!("{}: {}", peer.peer, relation(peer));
    for (is, word) in [(peer.starred, ", starred"), (peer.blocked, ", blocked")] {
        line.push_str(if is { word } else { "" });
    }
    if !peer.remark.is_empty() {
        line.push_str(&format!(", called {:?}", short(&peer.remark)));
    }
    if peer.read > 0 {
        line.push_str(&format!(", read to {}", peer.read));
    }
    line
}

pub(crate) fn relation(peer: &pb::Peer) -> &'static str {
    match peer.relation() {
        pb::Relation::None => "no contact",
        pb::Relation::Asked => "asked",
        pb::Relation::Asks => "asks",
        pb::Relation::Contact => "contact",
    }
}

fn action(event: &pb::GroupEvent) -> &'static str {
    match event.action() {
        pb::GroupAction::Unknown => "did something unknown to",
        pb::GroupAction::Invite => "invites",
        pb::GroupAction::Leave => "leaves",
        pb::GroupAction::Remove => "removes",
        pb::GroupAction::Rename => "renames it to",
        pb::GroupAction::Owner => "hands it to",
    }
}

/// The beginning of a text, on one line.
fn short(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String =
        chars.by_ref().take(limits::TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// The content as JSON, with the names of the `.proto` files.
pub(crate) fn to_json(content: &Content) -> Value {
    match content {
        Content::Message(message) => json!({
            "from": id(message.from), "to": id(message.to), "sent_ms": message.sent_ms, "text": message.text,
            "group_number": message.group_number, "image": message.image.as_ref().map(image), "recalled": message.recalled,
        }),
        Content::Group(state) => json!({
            "group": id(state.group), "name": state.name, "members": ids(&state.members), "owner": id(state.owner),
        }),
        Content::Peer(peer) => json!({
            "peer": id(peer.peer), "relation": relation(peer), "remark": peer.remark, "starred": peer.starred,
            "blocked": peer.blocked, "hello": peer.hello, "read": peer.read, "delivered_there": peer.delivered_there,
            "read_there": peer.read_there, "delivered_here": peer.delivered_here, "read_here": peer.read_here,
            "ended": peer.ended,
            "full": peer.full,
        }),
        Content::Event(event) => json!({
            "group": id(event.group), "by": id(event.by), "action": action(event), "users": ids(&event.users),
            "name": event.name, "time_ms": event.time_ms, "group_number": event.group_number,
        }),
        Content::Post(post) => json!({
            "posted_ms": post.posted_ms, "text": post.text, "images": post.images.iter().map(image).collect::<Vec<_>>(),
            "hidden_from": ids(&post.hidden_from),
        }),
        Content::PostRef(post) => json!({ "from": id(post.from), "posted_ms": post.posted_ms }),
        Content::Comment(comment) => json!({
            "author": id(comment.author), "post": comment.post, "from": id(comment.from), "sent_ms": comment.sent_ms,
            "text": comment.text, "like": comment.like,
        }),
        Content::Me(me) => me_json(me),
    }
}

fn me_json(me: &pb::Me) -> Value {
    let profile = me.profile.as_ref().map(|profile| {
        json!({ "nick": profile.nick, "picture": profile.picture.as_ref().map(image), "about": profile.about })
    });
    let settings: Map<String, Value> =
        me.settings.iter().map(|setting| (setting.key.clone(), json!(setting.value))).collect();
    let devices: Vec<Value> = me
        .devices
        .iter()
        .map(|known| json!({ "device": id(known.device), "name": known.name, "time_ms": known.time_ms, "out": known.out }))
        .collect();
    json!({ "profile": profile, "settings": settings, "devices": devices })
}

fn image(image: &pb::Image) -> Value {
    let sha256: String = image.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "url": image.url, "sha256": sha256, "width": image.width, "height": image.height, "bytes": image.bytes,
    })
}

pub(crate) fn id(id: u64) -> Value {
    Value::String(id.to_string())
}

fn ids(ids: &[u64]) -> Vec<Value> {
    ids.iter().map(|&user| id(user)).collect()
}

/// Whose duty it is, and for whom: users or groups.
pub(crate) fn parties(task: &StoredTask) -> (u64, Option<u64>) {
    match task {
        StoredTask::User { receiver, sender, .. }
        | StoredTask::Peer { receiver, sender, .. }
        | StoredTask::Receipt { receiver, sender, .. } => (*sender, Some(*receiver)),
        StoredTask::Group { group, sender, .. } => (*sender, Some(*group)),
        StoredTask::Create { group, meta } => (meta.owner, Some(*group)),
        StoredTask::Fanout { group, .. } => (*group, None),
        StoredTask::Moment { author, .. } => (*author, None),
        StoredTask::Member { receiver, group, .. } => (*group, Some(*receiver)),
        StoredTask::Reference { receiver, author, .. } => (*author, Some(*receiver)),
    }
}

/// A duty in words.
pub(crate) fn duty_line(task: &StoredTask) -> String {
    match task {
        StoredTask::User { receiver, sender, number } => {
            format!("change {number} of user {sender} for user {receiver}")
        }
        StoredTask::Group { group, sender, number } => {
            format!("change {number} of user {sender} for group {group}")
        }
        StoredTask::Create { group, meta } => {
            let GroupMeta { owner, members, .. } = &**meta;
            format!("group {group} of user {owner} with {} members is to be made", members.len())
        }
        StoredTask::Fanout { group, number, .. } => {
            format!("message {number} of group {group} for its members")
        }
        StoredTask::Peer { receiver, sender, word, .. } => match word {
            PeerWord::Wants { .. } => format!("user {sender} wants user {receiver} as a contact"),
            PeerWord::Ends { .. } => format!("user {sender} ends it with user {receiver}"),
        },
        StoredTask::Receipt { receiver, sender, .. } => {
            format!("a receipt of user {sender} for user {receiver}")
        }
        StoredTask::Moment { author, moment, .. } => {
            format!("moment {moment} of user {author} for the contacts")
        }
        StoredTask::Member { receiver, group, number } => {
            format!("message {number} of group {group} for user {receiver}, set aside")
        }
        StoredTask::Reference { receiver, author, moment, .. } => {
            format!("moment {moment} of user {author} for user {receiver}, set aside")
        }
    }
}
