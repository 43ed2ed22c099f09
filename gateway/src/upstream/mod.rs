//! One connection to one backend: calls of phones go up, news comes down. Sans-I/O: the shard moves the bytes.

mod reports;

use bytes::Bytes;
use prost::Message;
use proto_wire::limits::MAX_SKIPPABLE_BODY_BYTES;
use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::rpc::callee::{Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Action, Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, Identity, Kind, flag, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::services;
use proto_wire::status::Code;

use crate::session::{Answer, Session};
pub use reports::{Directory, Reports};

/// What is remembered of a call while it is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Phone(PhoneCall),
    Report,
}

/// A phone's call: where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhoneCall {
    pub slot: u32,
    pub generation: u32,
    /// As the phone numbered it.
    pub id: u32,
    pub is_sync: bool,
}

/// What comes down, and who takes it.
pub trait Downward {
    fn answer(&mut self, call: PhoneCall, answer: &Answer<'_>);
    /// News for sessions here. Gives the indices of stale routes.
    fn news(&mut self, request: &pb::NotifyRequest) -> Vec<u32>;
    /// A notice for every phone of the gateway. False: too many are being handed out.
    fn broadcast(&mut self, notice: &[u8]) -> bool;
    /// A report was acknowledged: who is behind, who was replaced.
    fn reported(&mut self, reply: &pb::ReportReply);
}

/// A connection to a backend. One object lives as long as the shard; the connection under it comes and goes.
pub struct Link {
    pub caller: Caller<Context>,
    callee: Callee,
    pub reports: Reports,
    /// What leaves at the end of the turn.
    pub out: Vec<u8>,
    /// A frame half received.
    partial: Vec<u8>,
}

impl Link {
    pub fn new(gateway: u64, shard: u16, seed: u64) -> Self {
        Self {
            caller: Caller::new(CallerConfig { service: 1, ..CallerConfig::default() }, seed),
            callee: Callee::new(CalleeConfig::default()),
            reports: Reports::new(gateway, shard),
            out: Vec::new(),
            partial: Vec::new(),
        }
    }

    /// Which of `links` carries a user's calls and news.
    pub fn index_for(user: u64, links: usize) -> usize {
        usize::from(section_of(user)) % links.max(1)
    }

    pub fn handle_connected(&mut self, now_ms: u64, directory: &mut impl Directory) {
        self.callee = Callee::new(CalleeConfig::default());
        self.reports.handle_connected();
        self.partial.clear();
        self.out.clear();
        // The first frame is a report: it tells the backend whose connection this is.
        let mut waiting = Vec::new();
        self.caller.handle_connected(now_ms, &mut waiting);
        self.report(now_ms, directory);
        self.out.append(&mut waiting);
    }

    pub fn handle_disconnected(&mut self, now_ms: u64, down: &mut impl Downward) {
        self.caller.handle_disconnected(now_ms);
        self.out.clear();
        self.partial = Vec::new();
        self.take_failed(down);
    }

    /// Bytes came. An error is the backend's misbehaviour, in words: the connection must be closed.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        down: &mut impl Downward,
    ) -> Result<(), String> {
        if self.partial.is_empty() {
            let taken = self.take_frames(bytes, now_ms, down)?;
            self.partial.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        let taken = self.take_frames(&held, now_ms, down)?;
        held.drain(..taken);
        self.partial = held;
        Ok(())
    }

    /// Runs deadlines and pings.
    pub fn handle_timeout(&mut self, now_ms: u64, down: &mut impl Downward) {
        if self.caller.poll_timeout().is_some_and(|at_ms| now_ms >= at_ms) {
            self.caller.handle_timeout(now_ms, &mut self.out);
        }
        self.take_failed(down);
    }

    /// Sends a report when one is due.
    pub fn report(&mut self, now_ms: u64, directory: &mut impl Directory) {
        if !self.caller.is_up() || self.reports.due_ms() > now_ms {
            return;
        }
        let body = self.reports.next(now_ms, directory);
        let method = &services::presence::REPORT;
        let request = Request {
            method: method.id,
            flags: flag::IDEMPOTENT,
            deadline_ms: method.deadline_ms,
            business_priority: method.priority,
            body: &body,
            ..Request::default()
        };
        if self.caller.call(&request, Context::Report, now_ms, &mut self.out).is_err() {
            self.reports.handle_failed(now_ms);
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.caller.poll_action()
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        let report_ms = self.caller.is_up().then(|| self.reports.due_ms());
        [self.caller.poll_timeout(), report_ms].into_iter().flatten().min()
    }

    /// Sends a phone's call up.
    pub fn call(
        &mut self,
        session: &Session,
        route: proto_wire::names::Route,
        call: &proto_wire::frame::Call<'_>,
        method: &'static Method,
        now_ms: u64,
    ) -> Result<(), Code> {
        let deadline_ms = match call.deadline_ms {
            0 => method.deadline_ms,
            asked => asked.min(method.deadline_ms),
        };
        let request = Request {
            method: method.id,
            flags: if method.idempotent { flag::IDEMPOTENT } else { 0 },
            deadline_ms,
            attempt: call.attempt,
            home: 0,
            section: section_of(session.user),
            business_priority: method.priority,
            user_priority: 0,
            identity: Some(Identity { user: session.user, device: session.device, route }),
            cursor: call.applied,
            trace: None,
            body: call.body,
        };
        let context = Context::Phone(PhoneCall {
            slot: route.slot,
            generation: route.generation,
            id: call.id,
            is_sync: method.id == services::sync::PULL.id,
        });
        self.caller.call(&request, context, now_ms, &mut self.out).map(|_| ()).map_err(|(_, code)| code)
    }

    fn take_frames(
        &mut self,
        mut bytes: &[u8],
        now_ms: u64,
        down: &mut impl Downward,
    ) -> Result<usize, String> {
        let all = bytes.len();
        while let Some((header, header_bytes)) = next_header(bytes).map_err(|error| error.to_string())? {
            let end = header_bytes + header.body_bytes as usize;
            self.take_frame(&header, &bytes[header_bytes..end], now_ms, down)?;
            bytes = &bytes[end..];
        }
        Ok(all - bytes.len())
    }

    fn take_frame(
        &mut self,
        header: &Header,
        body: &[u8],
        now_ms: u64,
        down: &mut impl Downward,
    ) -> Result<(), String> {
        match header.kind {
            Kind::Reply => {
                let context = self
                    .caller
                    .handle_reply(header, now_ms, &mut self.out)
                    .map_err(|error| error.to_string())?;
                match context {
                    Some(Context::Phone(call)) => down.answer(call, &answer_of(header, body)),
                    Some(Context::Report) => self.take_report_reply(header, body, now_ms, down),
                    None => {}
                }
            }
            Kind::Credit | Kind::Pong | Kind::GoAway => {
                self.caller
                    .handle_control(header, now_ms, &mut self.out)
                    .map_err(|error| error.to_string())?;
            }
            Kind::Call => {
                self.caller.handle_heard(now_ms);
                self.take_call(header, body, now_ms, down)?;
            }
            Kind::Cancel | Kind::Ping => {
                self.caller.handle_heard(now_ms);
                self.callee.handle_control(header, &mut self.out).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn take_call(
        &mut self,
        header: &Header,
        body: &[u8],
        now_ms: u64,
        down: &mut impl Downward,
    ) -> Result<(), String> {
        let admitted =
            self.callee.handle_call(header, now_ms, &mut self.out).map_err(|error| error.to_string())?;
        let Some(admitted) = admitted else { return Ok(()) };
        let (outcome, reply) = match self.run(header.method, body, down) {
            Ok(reply) => (Outcome::OK, reply),
            Err((code, text)) => (Outcome { code, ..Outcome::OK }, text.into_bytes()),
        };
        self.callee.reply(&admitted, &outcome, &reply, &mut self.out);
        Ok(())
    }

    /// The gateway's own service.
    fn run(&mut self, method: u16, body: &[u8], down: &mut impl Downward) -> Result<Vec<u8>, (Code, String)> {
        match method {
            _ if method == services::gateway::NOTIFY.id => self.run_notify(body, down),
            _ if method == services::gateway::BROADCAST.id => self.run_broadcast(body, down),
            _ => Err((Code::UnknownMethod, format!("a gateway has no method {method:#06x}"))),
        }
    }

    fn run_broadcast(&mut self, body: &[u8], down: &mut impl Downward) -> Result<Vec<u8>, (Code, String)> {
        let request = pb::BroadcastRequest::decode(body)
            .map_err(|error| (Code::Invalid, format!("the request cannot be read: {error}")))?;
        if !self.reports.is_of(request.gateway) {
            return Err((Code::Unavailable, "this is another gateway".to_owned()));
        }
        if request.notice.len() > MAX_SKIPPABLE_BODY_BYTES {
            return Err((Code::Limit, format!("a notice has at most {MAX_SKIPPABLE_BODY_BYTES} bytes")));
        }
        if !down.broadcast(&request.notice) {
            return Err((Code::Overloaded, "too many notices are being handed out".to_owned()));
        }
        Ok(pb::BroadcastReply {}.encode_to_vec())
    }

    fn run_notify(&mut self, body: &[u8], down: &mut impl Downward) -> Result<Vec<u8>, (Code, String)> {
        let request = pb::NotifyRequest::decode(Bytes::copy_from_slice(body))
            .map_err(|error| (Code::Invalid, format!("the request cannot be read: {error}")))?;
        let here = self.reports.is_addressed(request.gateway, request.shard);
        let stale = if here { down.news(&request) } else { (0..request.news.len() as u32).collect() };
        Ok(pb::NotifyReply { stale }.encode_to_vec())
    }

    fn take_report_reply(&mut self, header: &Header, body: &[u8], now_ms: u64, down: &mut impl Downward) {
        let reply = if header.code() == Code::Ok { pb::ReportReply::decode(body).ok() } else { None };
        match reply {
            Some(reply) => {
                self.reports.handle_acknowledged(reply.backend, reply.lease);
                down.reported(&reply);
            }
            None => self.reports.handle_failed(now_ms),
        }
    }

    fn take_failed(&mut self, down: &mut impl Downward) {
        while let Some((context, code)) = self.caller.poll_failed() {
            match context {
                Context::Phone(call) => down.answer(call, &Answer::failure(code, sentence(code))),
                Context::Report => self.reports.handle_lost(),
            }
        }
    }
}

fn answer_of<'a>(header: &Header, body: &'a [u8]) -> Answer<'a> {
    Answer { code: header.code(), given: header.cursor, retry_after_ms: header.retry_after_ms, body }
}

fn sentence(code: Code) -> &'static str {
    match code {
        Code::Deadline => "the time of the call ran out",
        Code::Lost => "the connection to the backend broke before the answer came",
        Code::Overloaded => "too many calls wait for the backend",
        _ => "the call failed",
    }
}
