//! A phone whose steps strace sees: it runs under the same strace as the backend and writes down what it does, so that
//! strace's own log holds the order of its messages and of the backend's syncs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use bytes::Bytes;
use prost::Message;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::services::messages;
use proto_wire::status::Code;
use tests::limits;
use tests::wire::Wire;

/// A message that is not taken is sent again this often.
const ATTEMPTS_MAX: u32 = 1_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    gateway: SocketAddr,
    token: String,
    /// The user that it writes to.
    to: u64,
    /// How many messages, one after the other.
    messages: u32,
    /// Where it writes down what it does.
    file: PathBuf,
}

/// True: all were acknowledged.
pub fn run(args: &Args) -> Result<bool> {
    let mut phone = Wire::greet(args.gateway, &args.token, 1)?;
    for message in 0..args.messages {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let id = UploadId::new(now_ms, [message as u8; 10]);
        let request = pb::SendRequest {
            id: Bytes::copy_from_slice(&id.0),
            to: args.to,
            text: format!("traced text {message}"),
            wants_page: false,
            ..Default::default()
        };
        std::fs::write(&args.file, format!("phone sends {message}"))?;
        send(&mut phone, message * ATTEMPTS_MAX, &request.encode_to_vec())?;
        std::fs::write(&args.file, format!("phone acknowledged {message}"))?;
    }
    Ok(true)
}

/// Sends until it is acknowledged.
fn send(phone: &mut Wire, first_call: u32, body: &[u8]) -> Result<()> {
    for call in first_call..first_call + ATTEMPTS_MAX {
        phone.call(call, messages::SEND.id, 0, body)?;
        if phone.reply(call)?.0 == Code::Ok {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(limits::POLL_EVERY_MS));
    }
    bail!("the message was never acknowledged")
}
