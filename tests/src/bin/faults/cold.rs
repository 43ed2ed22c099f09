//! Users whose logs lie in tables of the store: reading them needs the disk once their phones are off and the backend
//! was started anew.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use prost::Message;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::services::{messages, sync};
use proto_wire::status::Code;
use tests::fleet::PhoneId;
use tests::wire::Wire;
use tests::{fleet, limits};

use crate::run::Run;

/// Users from this one on are cold.
const FIRST_USER: u64 = 5_000;

pub const USERS: u64 = 8;

/// Of each user, to itself: each lies on the disk once, in a block of its own.
const MESSAGES: usize = 350;
const TEXT_BYTES: usize = 7_000;

/// So many are sent at once.
const BURST: usize = 7;

/// Devices of bare phones.
const FIRST_DEVICE: u64 = 1 << 40;

pub struct Cold {
    pub phones: Vec<PhoneId>,
    devices: u64,
}

impl Cold {
    /// Fills the logs, more than a memtable holds, and switches the phones off.
    pub fn fill(run: &mut Run) -> Result<Self> {
        let fleet = &mut run.fleet;
        let phones = fleet.add_many(FIRST_USER, USERS as usize)?;
        fleet.more_text_bytes = TEXT_BYTES;
        for _ in 0..MESSAGES / BURST {
            for &phone in &phones {
                for _ in 0..BURST {
                    fleet.send(phone, fleet.user(phone));
                }
            }
            fleet.settle(limits::SOON_MS)?;
        }
        fleet.more_text_bytes = 0;
        let cold = Self { phones, devices: FIRST_DEVICE };
        cold.switch_off(run);
        Ok(cold)
    }

    /// No such users, only bare phones.
    pub fn none() -> Self {
        Self { phones: Vec::new(), devices: 2 * FIRST_DEVICE }
    }

    pub fn switch_off(&self, run: &mut Run) {
        self.phones.iter().for_each(|&phone| run.fleet.cut(phone));
    }

    /// A phone of a new device reads a whole log. Gives how many changes there are, or the status that ended it.
    pub fn read_log(&mut self, run: &Run, user: u64) -> Result<Result<usize, (Code, String)>> {
        self.devices += 1;
        let mut phone = bare(run, user, self.devices)?;
        let (mut from, mut changes) = (0, 0);
        for call in 1.. {
            let request = pb::PullRequest {
                cursor: Some(pb::Cursor { log_epoch: 1, number: from }),
                ..pb::PullRequest::default()
            };
            phone.call(call, sync::PULL.id, 0, &request.encode_to_vec())?;
            let (status, body) = phone.reply(call)?;
            if status != Code::Ok {
                return Ok(Err((status, String::from_utf8_lossy(&body).into_owned())));
            }
            let page = pb::Page::decode(&body[..])?;
            changes += page.changes.len();
            if !page.more {
                return Ok(Ok(changes));
            }
            from = page.upto;
        }
        bail!("a log without an end")
    }
}

/// A phone of `user` without a machine.
pub fn bare(run: &Run, user: u64, device: u64) -> Result<Wire> {
    let token = fleet::token(&run.system.issuer()?, user);
    Wire::greet(run.system.gateways[0].address(), &token, device).context("a bare phone")
}

/// A bare phone sends a text under an id of its own. Gives the status and the reply.
pub fn send_as(phone: &mut Wire, call: u32, to: u64, id: UploadId) -> Result<(Code, pb::SendReply)> {
    let request = pb::SendRequest {
        id: Bytes::copy_from_slice(&id.0),
        to,
        text: "aged".to_owned(),
        ..pb::SendRequest::default()
    };
    phone.call(call, messages::SEND.id, 0, &request.encode_to_vec())?;
    let (status, body) = phone.reply(call)?;
    let reply = if status == Code::Ok { pb::SendReply::decode(&body[..])? } else { pb::SendReply::default() };
    Ok((status, reply))
}
