//! What is wrong with a request whatever the state of the world: sizes, ids, empty names. Each has a sentence.

use proto_wire::limits as wire;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::limits;
use super::verbs::Verb;

impl Verb {
    pub(super) fn check(&self, user: u64) -> Result<(), Status> {
        match self {
            Verb::Ask { peer, hello } => {
                check_peer(user, *peer)?;
                check_bytes("the question", hello, limits::MAX_HELLO_BYTES)
            }
            Verb::Accept { peer } | Verb::Remove { peer } => check_peer(user, *peer),
            Verb::Block { peer, .. } | Verb::Star { peer, .. } => check_peer(user, *peer),
            Verb::Remark { peer, remark } => {
                check_peer(user, *peer)?;
                check_bytes("the remark", remark, limits::MAX_REMARK_BYTES)
            }
            Verb::Recall { number } | Verb::Withdraw { moment: number } if *number == 0 => {
                Err(Status::invalid("items are numbered from 1"))
            }
            Verb::Recall { .. } | Verb::Withdraw { .. } => Ok(()),
            Verb::ChangeGroup { group, change } => check_group_change(*group, change),
            Verb::Publish { post } => check_post(post),
            Verb::Say { comment } => check_comment(comment),
            Verb::Unsay { author, from, .. } => {
                check_user(*author)?;
                check_user(*from)
            }
            Verb::SetProfile { profile } => check_profile(profile),
            Verb::SetSetting { key, value } => {
                if key.is_empty() {
                    return Err(Status::invalid("a setting has a key"));
                }
                check_bytes("the key of a setting", key, limits::MAX_SETTING_KEY_BYTES)?;
                check_bytes("the value of a setting", value, limits::MAX_SETTING_BYTES)
            }
            Verb::LogOut { device } if *device == 0 => Err(Status::invalid("a device has a number")),
            Verb::LogOut { .. } => Ok(()),
        }
    }
}

pub(super) fn check_send(request: &pb::SendRequest) -> Result<(), Status> {
    if request.to == 0 {
        return Err(Status::invalid("a message needs a receiver"));
    }
    if request.text.len() > wire::MAX_TEXT_BYTES {
        return Err(Status::new(Code::Limit, "the text is longer than 8 KiB"));
    }
    request.image.as_ref().map_or(Ok(()), check_image)
}

/// The members of a new group: the caller and the others, each once, sorted.
pub(super) fn check_members(owner: u64, request: &pb::CreateGroupRequest) -> Result<Vec<u64>, Status> {
    check_group_name(&request.name)?;
    check_are_users(&request.members)?;
    let mut members = request.members.clone();
    members.push(owner);
    members.sort_unstable();
    members.dedup();
    if members.len() > wire::MAX_GROUP_MEMBERS {
        return Err(too_many_members());
    }
    Ok(members)
}

pub(super) fn too_many_members() -> Status {
    Status::new(Code::Limit, "a group has at most 500 members")
}

fn check_group_change(group: u64, change: &pb::GroupEvent) -> Result<(), Status> {
    if group & GROUP_BIT == 0 {
        return Err(Status::invalid("this is not the id of a group"));
    }
    check_are_users(&change.users)?;
    // All of it goes to every member, also what this action has no use for.
    check_bytes("the name of a group", &change.name, limits::MAX_GROUP_NAME_BYTES)?;
    if change.users.len() > wire::MAX_GROUP_MEMBERS {
        return Err(Status::invalid("between 1 and 500 users are invited or removed at once"));
    }
    let one_or_more = !change.users.is_empty();
    match change.action() {
        pb::GroupAction::Invite | pb::GroupAction::Remove if one_or_more => Ok(()),
        pb::GroupAction::Invite | pb::GroupAction::Remove => {
            Err(Status::invalid("between 1 and 500 users are invited or removed at once"))
        }
        pb::GroupAction::Owner if change.users.len() == 1 => Ok(()),
        pb::GroupAction::Owner => Err(Status::invalid("a group has one owner")),
        pb::GroupAction::Rename => check_group_name(&change.name),
        pb::GroupAction::Leave => Ok(()),
        pb::GroupAction::Unknown => Err(Status::invalid("it is not said what is to change")),
    }
}

fn check_group_name(name: &str) -> Result<(), Status> {
    if name.is_empty() || name.len() > limits::MAX_GROUP_NAME_BYTES {
        return Err(Status::invalid("the name of a group has 1 to 128 bytes"));
    }
    Ok(())
}

fn check_are_users(users: &[u64]) -> Result<(), Status> {
    if users.iter().any(|user| *user == 0 || user & GROUP_BIT != 0) {
        return Err(Status::invalid("members of a group are users"));
    }
    Ok(())
}

pub(super) fn check_user(user: u64) -> Result<(), Status> {
    if user == 0 || user & GROUP_BIT != 0 {
        return Err(Status::invalid("this is not the id of a user"));
    }
    Ok(())
}

fn check_peer(user: u64, peer: u64) -> Result<(), Status> {
    check_user(peer)?;
    if user == peer {
        return Err(Status::invalid("nobody is a contact of oneself"));
    }
    Ok(())
}

fn check_post(post: &pb::Post) -> Result<(), Status> {
    check_text(&post.text)?;
    if post.text.is_empty() && post.images.is_empty() {
        return Err(Status::invalid("a moment has a text or an image"));
    }
    if post.images.len() > limits::MAX_POST_IMAGES {
        return Err(Status::new(Code::Limit, "a moment has at most 9 images"));
    }
    if post.hidden_from.len() > limits::MAX_HIDDEN {
        return Err(Status::new(Code::Limit, "a moment is hidden from at most 1000 contacts"));
    }
    post.images.iter().try_for_each(check_image)
}

fn check_comment(comment: &pb::Comment) -> Result<(), Status> {
    check_user(comment.author)?;
    check_text(&comment.text)?;
    if comment.like != comment.text.is_empty() {
        return Err(Status::invalid("a comment has a text, a like has none"));
    }
    Ok(())
}

fn check_profile(profile: &pb::Profile) -> Result<(), Status> {
    check_bytes("the nickname", &profile.nick, limits::MAX_NICK_BYTES)?;
    check_bytes("the text about oneself", &profile.about, limits::MAX_ABOUT_BYTES)?;
    profile.picture.as_ref().map_or(Ok(()), check_image)
}

fn check_text(text: &str) -> Result<(), Status> {
    check_bytes("the text", text, wire::MAX_TEXT_BYTES)
}

fn check_image(image: &pb::Image) -> Result<(), Status> {
    if image.url.is_empty() || image.url.len() > limits::MAX_URL_BYTES {
        return Err(Status::invalid("the address of an image has 1 to 512 bytes"));
    }
    if !matches!(image.sha256.len(), 0 | 32) {
        return Err(Status::invalid("the hash of an image has 32 bytes"));
    }
    Ok(())
}

fn check_bytes(what: &str, text: &str, max: usize) -> Result<(), Status> {
    if text.len() > max {
        return Err(Status::new(Code::Limit, format!("{what} has at most {max} bytes")));
    }
    Ok(())
}
