//! A connection from a gateway's shard to the stand-in: calls in, replies and news out.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use prost::Message;
use proto_wire::frame::Class;
use proto_wire::names::Cursor;
use proto_wire::pb;
use proto_wire::rpc::callee::{Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Header, Kind, flag, next_header};
use proto_wire::rpc::method::Method;
use proto_wire::services::{echo, gateway, presence, sync};
use proto_wire::status::Code;

use super::Shared;
use crate::peers::limits;

const LOG_EPOCH: u32 = 1;

/// A session as a gateway reported it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    slot: u32,
    generation: u32,
    newest: u64,
}

/// A connection from a shard.
pub(super) struct Link {
    pub stream: TcpStream,
    callee: Callee,
    caller: Caller<()>,
    input: Vec<u8>,
    pub out: Vec<u8>,
    gateway: u64,
    shard: u32,
    pub sessions: Vec<Session>,
    /// By slot: where a session stands.
    by_slot: Vec<u32>,
    news: VecDeque<pb::News>,
    /// Of the text of a piece.
    pub change_bytes: usize,
    pub is_broken: bool,
}

const NOWHERE: u32 = u32::MAX;

impl Link {
    pub(super) fn new(stream: TcpStream, now_ms: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (mut caller, mut out) = (Caller::new(CallerConfig::default(), 1), Vec::new());
        caller.start(now_ms);
        caller.handle_connected(now_ms, &mut out);
        Ok(Self {
            stream,
            callee: Callee::new(CalleeConfig { credit: limits::CREDIT, ..CalleeConfig::default() }),
            caller,
            input: Vec::new(),
            out,
            gateway: 0,
            shard: 0,
            sessions: Vec::new(),
            by_slot: Vec::new(),
            news: VecDeque::new(),
            change_bytes: 0,
            is_broken: false,
        })
    }

    pub(super) fn read(&mut self, now_ms: u64, shared: &Shared) {
        for _ in 0..limits::READS_OF_A_TURN_MAX {
            let held = self.input.len();
            self.input.resize(held + limits::READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[held..]);
            self.input.truncate(held + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => self.is_broken = true,
                Ok(count) if count == limits::READ_BYTES => continue,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.is_broken = true,
            }
            break;
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while !self.is_broken {
            match next_header(rest) {
                Ok(Some((header, header_bytes))) => {
                    let end = header_bytes + header.body_bytes as usize;
                    if self.take(&header, &rest[header_bytes..end], now_ms, shared).is_none() {
                        self.is_broken = true;
                    }
                    rest = &rest[end..];
                }
                Ok(None) => break,
                Err(_) => self.is_broken = true,
            }
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        // Nothing is remembered of a call, and none is repeated.
        self.caller.handle_timeout(now_ms, &mut self.out);
        while self.caller.poll_failed().is_some() {}
    }

    /// None: the gateway does what no gateway may.
    fn take(&mut self, header: &Header, body: &[u8], now_ms: u64, shared: &Shared) -> Option<()> {
        match header.kind {
            Kind::Call => {
                let Some(call) = self.callee.handle_call(header, now_ms, &mut self.out).ok()? else {
                    return Some(());
                };
                let (outcome, reply) = self.run(header, body, shared);
                self.callee.reply(&call, &outcome, &reply, &mut self.out);
            }
            Kind::Cancel | Kind::Ping => {
                self.caller.handle_heard(now_ms);
                self.callee.handle_control(header, &mut self.out).ok()?;
            }
            Kind::Reply => {
                self.caller.handle_reply(header, now_ms, &mut self.out).ok()?;
            }
            Kind::Credit | Kind::Pong | Kind::GoAway => {
                self.caller.handle_control(header, now_ms, &mut self.out).ok()?;
            }
        }
        Some(())
    }

    fn run(&mut self, header: &Header, body: &[u8], shared: &Shared) -> (Outcome, Vec<u8>) {
        let invalid = || (Outcome { code: Code::Invalid, ..Outcome::OK }, Vec::new());
        match header.method {
            // An EchoReply is an EchoRequest, byte by byte.
            id if id == echo::SAY.id => (Outcome::OK, body.to_vec()),
            id if id == presence::REPORT.id => match pb::ReportRequest::decode(body) {
                Ok(report) => {
                    self.take_report(&report, shared);
                    (
                        Outcome::OK,
                        pb::ReportReply { backend: 1, lease: 1, ..Default::default() }.encode_to_vec(),
                    )
                }
                Err(_) => invalid(),
            },
            id if id == sync::PULL.id => {
                shared.pulls.fetch_add(1, Ordering::Relaxed);
                self.page(header, body).unwrap_or_else(invalid)
            }
            _ => (Outcome { code: Code::UnknownMethod, ..Outcome::OK }, Vec::new()),
        }
    }

    fn take_report(&mut self, report: &pb::ReportRequest, shared: &Shared) {
        (self.gateway, self.shard) = (report.gateway, report.shard);
        for online in &report.online {
            let at = online.slot as usize;
            if at >= limits::SLOTS_MAX {
                continue;
            }
            self.by_slot.resize(self.by_slot.len().max(at + 1), NOWHERE);
            let session =
                Session { slot: online.slot, generation: online.generation, newest: online.applied };
            match self.by_slot[at] {
                NOWHERE => {
                    self.by_slot[at] = self.sessions.len() as u32;
                    self.sessions.push(session);
                    shared.online.fetch_add(1, Ordering::Relaxed);
                }
                there => self.sessions[there as usize] = session,
            }
        }
    }

    /// What the phone lacks: a change a piece, each with some bytes of text.
    fn page(&mut self, header: &Header, body: &[u8]) -> Option<(Outcome, Vec<u8>)> {
        let request = pb::PullRequest::decode(body).ok()?;
        let slot = header.identity?.route.slot;
        let at = self.by_slot.get(slot as usize).copied().filter(|&at| at != NOWHERE)?;
        let newest = self.sessions[at as usize].newest;
        let after = request.cursor.map_or(0, |cursor| cursor.number).min(newest);
        let first = after.max(newest.saturating_sub(limits::CHANGES_OF_A_PAGE_MAX));
        let text = ".".repeat(self.change_bytes);
        let change = |number| {
            let message = pb::Message { text: text.clone(), ..pb::Message::default() };
            let body = Some(pb::change::Body::Message(message));
            pb::Change { number, version: 1, body, ..pb::Change::default() }
        };
        let changes = (first + 1..=newest).map(change).collect();
        let page = pb::Page { log_epoch: LOG_EPOCH, after, upto: newest, changes, ..pb::Page::default() };
        let cursor = Some(Cursor::new(LOG_EPOCH, newest));
        Some((Outcome { cursor, ..Outcome::OK }, page.encode_to_vec()))
    }

    pub(super) fn raise(&mut self, at: usize, class: Class) {
        let session = &mut self.sessions[at];
        session.newest += 1;
        let Session { slot, generation, newest } = *session;
        let log_epoch = LOG_EPOCH;
        if self.news.len() < limits::NEWS_WAITING_MAX {
            self.news.push_back(pb::News {
                slot,
                generation,
                class: class as u32,
                log_epoch,
                newest,
                ..Default::default()
            });
        }
    }

    /// All that is due, in one call: what a turn of a logic tier does.
    pub(super) fn send_news(&mut self, now_ms: u64) {
        while !self.news.is_empty() {
            let count = self.news.len().min(limits::NEWS_OF_A_CALL_MAX);
            let news = self.news.drain(..count).collect();
            let request =
                pb::NotifyRequest { gateway: self.gateway, shard: self.shard, news, ..Default::default() };
            self.call(&gateway::NOTIFY, &request, now_ms);
        }
    }

    /// One notice to the whole gateway. Its bytes stand in the frames as they are.
    pub(super) fn tell_all(&mut self, bytes: usize, stamp_us: u64, now_ms: u64) {
        let mut notice = vec![b'.'; bytes.max(8)];
        notice[..8].copy_from_slice(&stamp_us.to_le_bytes());
        let request = pb::BroadcastRequest { gateway: self.gateway, notice: notice.into() };
        self.call(&gateway::BROADCAST, &request, now_ms);
    }

    fn call(&mut self, method: &'static Method, request: &impl Message, now_ms: u64) {
        let body = request.encode_to_vec();
        let call = Request {
            method: method.id,
            flags: if method.idempotent { flag::IDEMPOTENT } else { 0 },
            deadline_ms: method.deadline_ms,
            body: &body,
            ..Request::default()
        };
        // Beyond the caller's bounds it is not told: the count of what arrived shows it.
        let _ = self.caller.call(&call, (), now_ms, &mut self.out);
    }

    /// False: the gateway is gone.
    pub(super) fn write(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return false,
                Ok(count) => {
                    self.out.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.out.len() < limits::OUT_BYTES_MAX;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
