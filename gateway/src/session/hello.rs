//! HELLO: who is there, and what may it do.

use bytes::Bytes;
use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{self, VERSION_MAJOR, VERSION_MINOR};
use proto_wire::limits::MAX_TOKEN_BYTES;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire_token::{Claims, TokenError};

use super::{Event, Owner, Refusal, Session, State, flag};

impl Session {
    pub(super) fn handle_hello(&mut self, body: &[u8], owner: &mut impl Owner) -> Result<(), Refusal> {
        let hello = pb::Hello::decode(body)
            .map_err(|error| Refusal::new(Reason::BadFrame, format!("HELLO cannot be read: {error}")))?;
        if hello.version_major != VERSION_MAJOR {
            let text = format!("version {} is not spoken here, {VERSION_MAJOR} is", hello.version_major);
            return Err(Refusal::new(Reason::Version, text));
        }
        owner.counted(Event::Hello);
        self.device = hello.device;
        self.counter = hello.counter;
        self.interval_s = (owner.limits().heartbeat_ms / 1000) as u16;
        let claims = known(&hello, owner)?;
        if let Some(claims) = &claims {
            self.user = claims.user;
            self.state = State::Live;
            let applied = hello.applied.unwrap_or_default();
            self.start_log(Cursor::new(applied.log_epoch, applied.number));
            self.flags |= flag::ANNOUNCED;
            owner.online(self);
        } else {
            self.state = State::Anonymous;
            owner.counted(Event::Anonymous);
        }
        // The timer still stands at HELLO's time-out. That is sooner than what is due now, and sets itself anew.
        self.welcome(hello.version_minor, claims.as_ref(), owner);
        Ok(())
    }

    fn welcome(&self, minor_of_phone: u32, claims: Option<&Claims>, owner: &mut impl Owner) {
        let ticket = claims.and_then(|claims| owner.ticket(claims, self.device));
        let (ticket, ticket_good_s) = match &ticket {
            Some((ticket, good_s)) => {
                (Bytes::copy_from_slice(ticket), u32::try_from(*good_s).unwrap_or(u32::MAX))
            }
            None => Default::default(),
        };
        let limits = owner.limits();
        let welcome = pb::Welcome {
            version_major: VERSION_MAJOR,
            version_minor: VERSION_MINOR.min(minor_of_phone),
            interval_ms: u32::from(self.interval_s) * 1000,
            server_time_ms: owner.unix_ms(),
            max_body_bytes: limits.max_body_bytes as u32,
            max_calls_in_flight: u32::from(limits.calls_in_flight),
            ticket,
            alternates: Vec::new(),
            user: self.user,
            ticket_good_s,
        };
        frame::put_message(owner.out(), frame::kind::WELCOME, &welcome);
    }
}

/// Who is there, by ticket or by token; none: a session without either.
fn known(hello: &pb::Hello, owner: &mut impl Owner) -> Result<Option<Claims>, Refusal> {
    let by_ticket = (!hello.ticket.is_empty()).then(|| resumed(hello, owner));
    match by_ticket {
        Some(Ok(claims)) => {
            owner.counted(Event::Resumed);
            Ok(Some(claims))
        }
        Some(Err(refusal)) if hello.token.is_empty() => Err(refusal),
        None if hello.token.is_empty() => Ok(None),
        _ => verified(hello, owner).map(Some),
    }
}

/// A ticket is good for the device that it was given to.
fn resumed(hello: &pb::Hello, owner: &impl Owner) -> Result<Claims, Refusal> {
    let refused = |why: String| Refusal::new(Reason::Ticket, format!("the ticket is not good: {why}"));
    let claims = owner.resume(&hello.ticket).map_err(|error| refused(error.to_string()))?;
    if claims.device != Some(hello.device) {
        return Err(refused("it is another device's".to_owned()));
    }
    Ok(claims)
}

fn verified(hello: &pb::Hello, owner: &impl Owner) -> Result<Claims, Refusal> {
    if hello.token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::new(Reason::BadToken, "the token is too long"));
    }
    let claims = owner.verify(&hello.token).map_err(|error| {
        let reason = if error == TokenError::Expired { Reason::ExpiredToken } else { Reason::BadToken };
        Refusal::new(reason, error.to_string())
    })?;
    if claims.device.is_some_and(|device| device != hello.device) {
        return Err(Refusal::new(Reason::BadToken, "the token is bound to another device"));
    }
    Ok(claims)
}
