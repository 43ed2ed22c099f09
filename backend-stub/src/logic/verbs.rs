//! What phones ask for beyond sending: each is an upload that is applied once, decided on records that are read
//! first, and written with its id in one commit.

use bytes::Bytes;
use prost::Message;
use proto_wire::pb;
use proto_wire::status::{Code, Status};

use super::api::At;
use super::append::Waiting;
use super::core::Core;
use super::keys::{self, Key};
use super::uploads::Begun;
use super::users::Place;
use super::values::{UploadAnswer, mark};

/// What an upload asks for.
#[derive(Debug, Clone)]
pub enum Verb {
    Ask { peer: u64, hello: String },
    Accept { peer: u64 },
    Remove { peer: u64 },
    Remark { peer: u64, remark: String },
    Block { peer: u64, on: bool },
    Star { peer: u64, on: bool },
    Recall { number: u64 },
    ChangeGroup { group: u64, change: pb::GroupEvent },
    Publish { post: pb::Post },
    Withdraw { moment: u64 },
    Say { comment: pb::Comment },
    Unsay { author: u64, moment: u64, from: u64, number: u64 },
    SetProfile { profile: pb::Profile },
    SetSetting { key: String, value: String },
    LogOut { device: u64 },
}

/// An upload as a service hands it in.
#[derive(Debug, Clone)]
pub struct Upload {
    pub id: Bytes,
    /// Tells two bodies of one id apart: `upload_hash` of the request.
    pub hash: [u8; 16],
    pub verb: Verb,
}

/// An upload that has begun.
pub(super) struct Begin {
    pub place: Place,
    pub user: u64,
    pub id: [u8; 16],
    pub verb: Verb,
}

/// Where a verb goes on when what it needs is in memory.
pub(super) enum Resume {
    Upload {
        token: u64,
        user: u64,
        device: u64,
        upload: Box<Upload>,
    },
    Verb(Box<Begin>),
    Send {
        token: u64,
        user: u64,
        device: u64,
        request: pb::SendRequest,
    },
    Mark {
        token: u64,
        user: u64,
        device: u64,
        request: pb::MarkRequest,
    },
    Pull {
        token: u64,
        user: u64,
        device: u64,
        request: pb::PullRequest,
    },
    LogIn {
        token: u64,
        user: u64,
        device: u64,
        name: String,
    },
    Admit {
        token: u64,
        user: u64,
        device: u64,
    },
    Typing {
        token: u64,
        user: u64,
        to: u64,
    },
    Profile {
        token: u64,
        user: u64,
    },
    Moment {
        token: u64,
        reader: u64,
        request: pb::GetMomentRequest,
    },
    /// A session of a report: was its device logged out?
    Report {
        report: u64,
        online: pb::Online,
    },
    /// Duties to this user.
    Held(u64),
}

/// The hash of a request without its id. Stored, so it must not change.
pub fn upload_hash(method: u16, request: &impl Message) -> [u8; 16] {
    super::uploads::hash_of(&[b"verb", &method.to_le_bytes(), &request.encode_to_vec()])
}

impl Core {
    /// Applies an upload of a device of a user. The answer is `Answer::Sent`: the change's number.
    pub fn upload(&mut self, at: At, token: u64, user: u64, device: u64, upload: Upload) {
        if let Err(refusal) = upload.verb.check(user) {
            return self.answer(token, Err(refusal));
        }
        let Some((place, id)) = self.begin(at, token, user, &upload.id) else { return };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Upload { token, device, upload: Box::new(upload) });
        }
        let resume = || Resume::Upload { token, user, device, upload: Box::new(upload.clone()) };
        if !self.admits_device(token, place, device, resume) {
            return;
        }
        let begun = self.begin_upload(token, place, id, upload.hash, None);
        let begin = Begin { place, user, id, verb: upload.verb };
        match begun {
            Begun::New => self.apply(at, Box::new(begin)),
            Begun::Ask => self.ask_upload(super::uploads::CheckedUpload::verb(begin)),
            Begun::Waits => {}
        }
    }

    /// Applies a verb once its records are in memory.
    pub(super) fn apply(&mut self, at: At, begin: Box<Begin>) {
        let keys = begin.verb.keys(begin.user);
        let Some(Resume::Verb(begin)) = self.need(&keys, Resume::Verb(begin)) else { return };
        let Begin { place, user, id, verb } = *begin;
        let outcome = match verb {
            Verb::ChangeGroup { group, change } => {
                return self
                    .change_group(at, Begin { place, user, id, verb: Verb::ChangeGroup { group, change } });
            }
            Verb::Recall { .. } => return self.recall(at, Begin { place, user, id, verb }),
            Verb::Publish { post } => self.publish(at, place, post),
            Verb::Withdraw { moment } => self.withdraw(at, place, moment),
            Verb::Say { comment } => self.say(at, place, comment),
            Verb::Unsay { author, moment, from, number } => {
                self.unsay(at, place, author, moment, from, number)
            }
            Verb::SetProfile { profile } => self.change_me(place, |me| {
                me.profile = Some(profile);
                Ok(())
            }),
            Verb::SetSetting { key, value } => self.change_me(place, |me| set_setting(me, key, value)),
            Verb::LogOut { device } => self.log_out(place, device),
            other => self.change_peer(at, place, other),
        };
        self.applied_verb(at, user, id, outcome);
    }

    /// A verb was decided: its row is in the batch, or it is refused and nothing is.
    pub(super) fn applied_verb(&mut self, at: At, user: u64, id: [u8; 16], outcome: Result<u64, Status>) {
        match outcome {
            Ok(number) => self.record_upload(user, id, UploadAnswer::Sent { number, time_ms: at.unix_ms }),
            Err(refusal) => self.upload_failed(user, id, &refusal),
        }
    }

    /// Takes up what waited for records.
    pub(super) fn resume(&mut self, at: At, resume: Resume) {
        match resume {
            Resume::Upload { token, user, device, upload } => self.upload(at, token, user, device, *upload),
            Resume::Verb(begin) => self.apply(at, begin),
            Resume::Send { token, user, device, request } => self.send(at, token, user, device, &request),
            Resume::Mark { token, user, device, request } => self.mark(at, token, user, device, &request),
            Resume::Pull { token, user, device, request } => self.pull(at, token, user, device, &request),
            Resume::LogIn { token, user, device, name } => self.log_in(at, token, user, device, &name),
            Resume::Admit { token, user, device } => self.admit_device(at, token, user, device),
            Resume::Typing { token, user, to } => self.typing(token, user, to),
            Resume::Profile { token, user } => self.profile(token, user),
            Resume::Moment { token, reader, request } => self.moment(token, reader, &request),
            Resume::Report { report, online } => {
                let place = self.users.find(online.user);
                self.session_looked_up(report, &online, place);
            }
            Resume::Held(receiver) => self.release(at, receiver),
        }
    }

    /// Whether a call of a device goes on: not when the device was logged out. For users who never logged one out
    /// it costs nothing; for others their list of devices is brought first.
    pub(super) fn admits_device(
        &mut self,
        token: u64,
        place: Place,
        device: u64,
        resume: impl FnOnce() -> Resume,
    ) -> bool {
        let user = self.users.peek(place);
        if user.marks & mark::DEVICES == 0 {
            return true;
        }
        let key = keys::peer(user.id, user.id);
        if self.need(&[key], resume()).is_none() {
            return false;
        }
        match self.is_out(place, device) {
            Ok(true) => {
                self.answer(token, Err(Status::new(Code::Denied, "this device was logged out")));
                // It is let in while the list of devices cannot be read: its session was looked up in vain then.
                self.cut_off(place, device);
                false
            }
            Ok(false) => true,
            Err(status) => {
                self.answer(token, Err(status));
                false
            }
        }
    }

    /// Whether a device was logged out. `need` has brought the list of a user who ever logged one out.
    pub(super) fn is_out(&self, place: Place, device: u64) -> Result<bool, Status> {
        let user = self.users.peek(place);
        if user.marks & mark::DEVICES == 0 {
            return Ok(false);
        }
        let me = self.kept::<pb::Me>(&keys::peer(user.id, user.id))?.state;
        Ok(me.devices.iter().any(|known| known.device == device && known.out))
    }
}

fn set_setting(me: &mut pb::Me, key: String, value: String) -> Result<(), Status> {
    me.settings.retain(|setting| setting.key != key);
    if value.is_empty() {
        return Ok(());
    }
    if me.settings.len() >= super::limits::MAX_SETTINGS {
        return Err(Status::new(Code::Limit, "a user has at most 128 settings"));
    }
    me.settings.push(pb::Setting { key, value });
    Ok(())
}

impl Verb {
    /// The records that the verb decides on.
    fn keys(&self, user: u64) -> Vec<Key> {
        match self {
            Verb::Ask { peer, .. } | Verb::Accept { peer } | Verb::Remove { peer } => {
                vec![keys::peer(user, *peer), keys::contacts(user)]
            }
            Verb::Remark { peer, .. } | Verb::Block { peer, .. } | Verb::Star { peer, .. } => {
                vec![keys::peer(user, *peer)]
            }
            Verb::Recall { number } => vec![keys::row(user, *number), keys::item(user, user, *number)],
            Verb::Withdraw { moment } => vec![keys::moment(user, *moment)],
            Verb::Say { comment } => {
                let pb::Comment { author, post, .. } = *comment;
                vec![keys::peer(author, user), keys::moment(author, post), keys::row(author, post)]
            }
            Verb::Unsay { author, moment, from, number } => {
                vec![keys::said(*author, *moment, *from, *number)]
            }
            Verb::SetProfile { .. } | Verb::SetSetting { .. } | Verb::LogOut { .. } => {
                vec![keys::peer(user, user)]
            }
            Verb::ChangeGroup { .. } | Verb::Publish { .. } => Vec::new(),
        }
    }
}
