//! Calls of phones as uploads of the core, as `backend_stub::logic::services` makes them.

use backend_stub::logic::{Upload, Verb, upload_hash};
use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method;
use proto_wire::services::{account, contacts, messages, moments};
use proto_wire::status::Status;

macro_rules! upload {
    ($method:expr, $body:expr, $Request:ty, |$request:ident| $verb:expr) => {
        method::decode_request(&$method, $body).map(|mut $request: $Request| {
            let id = std::mem::take(&mut $request.id);
            let hash = upload_hash($method.id, &$request);
            Upload { id, hash, verb: $verb }
        })
    };
}

/// None: another kind of call.
pub fn upload_of(id: u16, body: Bytes) -> Option<Result<Upload, Status>> {
    let upload = match id {
        id if id == messages::RECALL.id => {
            upload!(messages::RECALL, body, pb::RecallRequest, |asked| Verb::Recall { number: asked.number })
        }
        id if id == messages::CHANGE_GROUP.id => {
            upload!(messages::CHANGE_GROUP, body, pb::ChangeGroupRequest, |asked| Verb::ChangeGroup {
                group: asked.group,
                change: pb::GroupEvent {
                    action: asked.action,
                    users: asked.users,
                    name: asked.name,
                    ..Default::default()
                },
            })
        }
        id if id == contacts::ASK.id => {
            upload!(contacts::ASK, body, pb::AskRequest, |asked| Verb::Ask {
                peer: asked.user,
                hello: asked.hello
            })
        }
        id if id == contacts::ACCEPT.id => {
            upload!(contacts::ACCEPT, body, pb::PeerRequest, |asked| Verb::Accept { peer: asked.user })
        }
        id if id == contacts::REMOVE.id => {
            upload!(contacts::REMOVE, body, pb::PeerRequest, |asked| Verb::Remove { peer: asked.user })
        }
        id if id == contacts::REMARK.id => {
            upload!(contacts::REMARK, body, pb::RemarkRequest, |asked| Verb::Remark {
                peer: asked.user,
                remark: asked.remark
            })
        }
        id if id == contacts::BLOCK.id => {
            upload!(contacts::BLOCK, body, pb::SwitchRequest, |asked| Verb::Block {
                peer: asked.user,
                on: asked.on
            })
        }
        id if id == contacts::STAR.id => {
            upload!(contacts::STAR, body, pb::SwitchRequest, |asked| Verb::Star {
                peer: asked.user,
                on: asked.on
            })
        }
        id if id == moments::PUBLISH.id => {
            upload!(moments::PUBLISH, body, pb::PublishRequest, |asked| Verb::Publish {
                post: pb::Post {
                    posted_ms: 0,
                    text: asked.text,
                    images: asked.images,
                    hidden_from: asked.hidden_from,
                },
            })
        }
        id if id == moments::WITHDRAW.id => {
            upload!(moments::WITHDRAW, body, pb::WithdrawRequest, |asked| Verb::Withdraw {
                moment: asked.number
            })
        }
        id if id == moments::SAY.id => {
            upload!(moments::SAY, body, pb::SayRequest, |asked| Verb::Say {
                comment: pb::Comment {
                    author: asked.author,
                    post: asked.post,
                    text: asked.text,
                    like: asked.like,
                    ..Default::default()
                },
            })
        }
        id if id == moments::UNSAY.id => {
            upload!(moments::UNSAY, body, pb::UnsayRequest, |asked| Verb::Unsay {
                author: asked.author,
                moment: asked.post,
                from: asked.from,
                number: asked.number
            })
        }
        id if id == account::SET_PROFILE.id => {
            upload!(account::SET_PROFILE, body, pb::SetProfileRequest, |asked| Verb::SetProfile {
                profile: asked.profile.unwrap_or_default()
            })
        }
        id if id == account::SET_SETTING.id => {
            upload!(account::SET_SETTING, body, pb::SetSettingRequest, |asked| Verb::SetSetting {
                key: asked.key,
                value: asked.value
            })
        }
        id if id == account::LOG_OUT.id => {
            upload!(account::LOG_OUT, body, pb::LogOutRequest, |asked| Verb::LogOut { device: asked.device })
        }
        _ => return None,
    };
    Some(upload)
}
