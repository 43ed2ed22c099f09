//! From a name to a token: an anonymous session that signs up, or logs in when the name is taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto_wire::pb;
use proto_wire::phone::{CloseReason, Device, Phone, PhoneConfig, PhoneEvent};
use proto_wire::services::account;
use proto_wire::status::Code;

use super::wire::Wire;
use super::{Input, PhoneOptions};
use crate::clock::Clock;

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("{target} cannot be reached (start a server: cargo run --release -p gateway -- up)")]
    Unreachable { target: SocketAddr },
    #[error("the server ended the session: {0}")]
    Ended(String),
    #[error("{user} cannot log in: {told}")]
    Refused { user: String, told: String },
    #[error("the server's answer to the log-in cannot be read")]
    Answer,
    #[error("no answer within {} s", WITHIN_MS / 1_000)]
    TooLate,
}

const WITHIN_MS: u64 = 20_000;

/// What a log-in gives.
pub(super) struct LoggedIn {
    pub user: u64,
    /// A device of its own for each start: it has nothing, and is sent all that the user has.
    pub device: u64,
    pub token: Bytes,
    /// To go on with: it knows the sockets of the log-in for old ones.
    pub wire: Wire,
}

/// Lines typed meanwhile are not read yet.
pub(super) fn log_in(
    options: &PhoneOptions,
    clock: Clock,
    sender: &SyncSender<Input>,
    inputs: &Receiver<Input>,
) -> Result<LoggedIn, LoginError> {
    let config = PhoneConfig { sync_on_connect: false, ..PhoneConfig::default() };
    // 0 is no device.
    let device = rand::random::<u64>().max(1);
    let mut phone = Phone::new(Arc::new(config), Device { id: device, ..Device::default() }, rand::random());
    let mut wire = Wire::new(options.target, sender.clone());
    let password = options.password.clone().unwrap_or_else(|| format!("moorgate-{}", options.user));
    let name = options.user.clone();
    phone.connect(clock.now_ms());
    let device_name = "moorgate-bench phone".to_owned();
    let (first, first_password) = (name.clone(), password.clone());
    let sign_up =
        pb::SignUpRequest { name: first, password: first_password, device, device_name: device_name.clone() };
    phone.call_method(&account::SIGN_UP, &sign_up, clock.now_ms());
    let mut is_second = false;
    loop {
        while let Some(event) = phone.poll_event() {
            match event {
                PhoneEvent::Connect { to } => wire.connect(to.as_deref()),
                PhoneEvent::Disconnect => wire.drop_socket(),
                PhoneEvent::Closed { reason: CloseReason::ConnectFailed, .. } => {
                    return Err(LoginError::Unreachable { target: options.target });
                }
                PhoneEvent::Closed { reason, text, .. } => {
                    return Err(LoginError::Ended(format!("{reason:?} {text}")));
                }
                PhoneEvent::Reply { status: Code::Ok, body, .. } => {
                    let reply = pb::TokenReply::decode(body).map_err(|_| LoginError::Answer)?;
                    phone.close();
                    wire.drop_socket();
                    return Ok(LoggedIn { user: reply.user, device, token: reply.token, wire });
                }
                // The name is taken: it may be this user's, with another first password.
                PhoneEvent::Reply { status: Code::Exists, .. } if !is_second => {
                    is_second = true;
                    let log_in = pb::LogInRequest {
                        name: name.clone(),
                        password: password.clone(),
                        device,
                        device_name: device_name.clone(),
                    };
                    phone.call_method(&account::LOG_IN, &log_in, clock.now_ms());
                }
                PhoneEvent::Reply { status, body, .. } => {
                    let told = format!("{} ({})", String::from_utf8_lossy(&body), status.name());
                    return Err(LoginError::Refused { user: name, told });
                }
                _ => {}
            }
        }
        let mut out = Vec::new();
        if phone.poll_transmit(&mut out) {
            wire.send(out);
        }
        let now_ms = clock.now_ms();
        if now_ms > WITHIN_MS {
            return Err(LoginError::TooLate);
        }
        let due_ms = phone.poll_timeout().unwrap_or(u64::MAX).min(WITHIN_MS + 1);
        let wait = Duration::from_millis(due_ms.saturating_sub(now_ms));
        match inputs.recv_timeout(wait) {
            Ok(Input::Connected(number)) if wire.is_current(number) => phone.handle_connected(clock.now_ms()),
            Ok(Input::Bytes(number, bytes)) if wire.is_current(number) => {
                phone.handle_bytes(&bytes, clock.now_ms());
            }
            Ok(Input::Closed(number, ended)) if wire.is_current(number) => {
                phone.handle_closed(clock.now_ms(), ended);
            }
            _ => phone.handle_timeout(clock.now_ms()),
        }
    }
}
