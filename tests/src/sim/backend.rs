//! The backend process: its core, its disk, and the machines of its connections. A turn is the driver's own
//! (`backend_stub::turn`); calls become verbs of the core as the services make them.

use std::collections::BTreeMap;

use backend_stub::logic::{Answer, Core, CoreConfig};
use backend_stub::rpc::peer::{Begun, Frame, Peer};
use backend_stub::storage::Completion;
use backend_stub::turn::{self, Outward};
use bytes::Bytes;
use prost::Message;
use proto_wire::pb;
use proto_wire::rpc::callee::{Admitted, Outcome};
use proto_wire::rpc::method;
use proto_wire::services::{echo, gateway, messages, presence, sync};
use proto_wire::status::{Code, Status};

use super::calls::upload_of;
use super::disk::Disk;
use super::limits;
use super::net::{ConnId, Input, Node, Side};
use super::queue::Event;
use super::shared::Shared;

/// One machine: its disk outlives the process.
pub struct Backend {
    pub disk: Disk,
    process: Option<Process>,
    /// Counts its starts: what was queued for an earlier one is void.
    pub life: u32,
    happened: Vec<Happened>,
    turn_us: Option<u64>,
    completions: Vec<Completion>,
}

struct Process {
    core: Core,
    peers: BTreeMap<u64, Line>,
    next_peer: u64,
    /// The connection of each gateway's shard, as it reported itself.
    links: BTreeMap<(u64, u16), u64>,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    /// Answers given while the core was asked.
    answers: Vec<(u64, Result<Answer, Status>)>,
}

/// A connection of a gateway.
struct Line {
    peer: Peer,
    conn: ConnId,
    input: Vec<u8>,
}

struct Call {
    peer: u64,
    serial: u64,
    admitted: Admitted,
}

enum Happened {
    Connected(ConnId),
    Input { peer: u64, input: Input },
}

impl Backend {
    pub fn new(shared: &Shared) -> Self {
        Self {
            disk: Disk::new(shared.plan.partitions, shared.plant),
            process: None,
            life: 0,
            happened: Vec::new(),
            turn_us: None,
            completions: Vec::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Every duty found at the start is under way.
    pub fn is_ready(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.core.is_ready())
    }

    pub fn start(&mut self, shared: &mut Shared) {
        self.life += 1;
        let id = shared.random.next() | 1;
        shared.note("the backend starts as process {a}", [id, 0, 0]);
        let mut config = CoreConfig {
            hot_bytes: shared.plan.hot_bytes,
            ..CoreConfig::new(id, shared.random.next(), shared.plan.partitions)
        };
        if let Some(rows) = shared.plan.horizon {
            (config.horizon_rows, config.horizon_age_ms) = (rows, limits::HORIZON_AGE_MS);
        }
        self.process = Some(Process {
            core: Core::new(config),
            peers: BTreeMap::new(),
            next_peer: 1,
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 1,
            answers: Vec::new(),
        });
        self.want_turn(shared, 0);
    }

    /// SIGKILL, or the machine's power: gateways learn of it or not.
    pub fn crash(&mut self, shared: &mut Shared) {
        self.count(shared);
        let Some(process) = self.process.take() else { return };
        shared.note("the backend dies", [0; 3]);
        for line in process.peers.into_values() {
            let learns = !shared.random.chance(shared.plan.untold_permille);
            shared.kill(line.conn, Side::Acceptor, learns);
        }
        for what in self.happened.drain(..) {
            if let Happened::Connected(conn) = what {
                shared.kill(conn, Side::Acceptor, true);
            }
        }
        self.turn_us = None;
        self.completions.clear();
        self.disk.crash(shared);
    }

    /// What the process has counted, before it goes.
    pub fn count(&self, shared: &mut Shared) {
        let Some(process) = &self.process else { return };
        let counters = process.core.counters();
        for (what, times) in [
            ("uploads answered again", counters.repeated),
            ("duties found at a start", counters.recovered),
            ("duties that had landed before", counters.recovered_landed),
            ("dead letters", counters.dead_letters),
            ("void numbers", counters.void_numbers),
            ("broken chains", counters.broken_chains),
            ("pages", counters.pages),
            ("pages from memory", counters.pages_from_memory),
            ("rows swept", counters.rows_swept),
            ("news", counters.news),
            ("news with changes", counters.news_inline),
            ("news told again by the sweep", counters.news_swept),
            ("stale routes", counters.stale_routes),
            ("notifies that failed", counters.notify_failures),
            ("leases that ended", counters.leases_ended),
            ("calls refused by the backend", counters.refused),
        ] {
            shared.count(what, times);
        }
    }

    /// What is held though nobody wants it any more.
    pub fn left_over(&self) -> Vec<String> {
        let Some(process) = &self.process else { return Vec::new() };
        let mut left = Vec::new();
        let handlers: usize = process.peers.values().map(|line| line.peer.handlers()).sum();
        for (what, is) in [
            ("handlers", handlers as u64),
            ("calls", process.calls.len() as u64),
            ("duties", process.core.counters().duties),
        ] {
            if is != 0 {
                left.push(format!("the backend holds {is} {what} in memory"));
            }
        }
        left
    }

    pub fn connected(&mut self, conn: ConnId, shared: &mut Shared) {
        if self.process.is_none() {
            return shared.answer(conn, None);
        }
        self.happened.push(Happened::Connected(conn));
        self.soon(shared);
    }

    pub fn input(&mut self, peer: u64, input: Input, shared: &mut Shared) {
        self.happened.push(Happened::Input { peer, input });
        self.soon(shared);
    }

    /// The store has a word for the core.
    pub fn told(&mut self, completion: Completion, shared: &mut Shared) {
        self.disk.take_word(completion);
        self.soon(shared);
    }

    pub fn soon(&mut self, shared: &mut Shared) {
        let within_us = shared.random.below(shared.plan.turn_us);
        self.want_turn(shared, within_us);
    }

    fn want_turn(&mut self, shared: &mut Shared, after_us: u64) {
        let at_us = shared.now_us + after_us;
        if self.turn_us.is_none_or(|queued_us| at_us < queued_us) {
            self.turn_us = Some(at_us);
            shared.queue.push(at_us, Event::BackendTurn { life: self.life });
        }
    }

    pub fn turn(&mut self, shared: &mut Shared) {
        if self.turn_us != Some(shared.now_us) {
            return;
        }
        self.turn_us = None;
        let Some(process) = &mut self.process else { return };
        // Connections wait until the core has found its duties again.
        if process.core.is_ready() {
            for what in std::mem::take(&mut self.happened) {
                process.handle(what, shared);
            }
        }
        process.run_timers(shared);
        self.take_turn(shared);
        self.disk.start(self.life, shared);
        let Some(process) = &mut self.process else { return };
        process.flush(shared);
        let happened = process.core.is_ready() && !self.happened.is_empty();
        let waits = !self.completions.is_empty() || self.disk.has_told() || happened;
        let due_ms = process.poll_timeout().saturating_sub(shared.now_ms()).clamp(1, 500);
        let after_us = if waits { 1_000 } else { due_ms * 1000 };
        self.want_turn(shared, after_us);
    }

    fn take_turn(&mut self, shared: &mut Shared) {
        let Some(Process { core, peers, links, answers, .. }) = &mut self.process else { return };
        let at = shared.at();
        let mut outlets = Outlets { peers, links, answers, shared };
        turn::take(core, &mut self.disk, &mut self.completions, at, &mut outlets);
        if let Some(process) = &mut self.process {
            process.finish_calls();
        }
    }

    /// At the end of a run: the log of a user as a new phone gets it. The disk answers at once.
    pub fn whole_log(&mut self, user: u64, shared: &mut Shared) -> Result<Vec<pb::Change>, String> {
        let (mut changes, mut request) = (Vec::new(), pb::PullRequest::default());
        request.cursor = Some(pb::Cursor::default());
        request.max_changes = shared.plan.pull_max_changes;
        loop {
            let page = self.pull_now(user, &request, shared)?;
            changes.extend(page.changes);
            if !page.snapshot || !page.more {
                request.cursor = Some(pb::Cursor { log_epoch: page.log_epoch, number: page.upto });
            }
            request.snapshot_at = page.snapshot_next;
            if !page.more {
                return Ok(changes);
            }
        }
    }

    fn pull_now(
        &mut self,
        user: u64,
        request: &pb::PullRequest,
        shared: &mut Shared,
    ) -> Result<pb::Page, String> {
        /// No call of a gateway has this number.
        const TOKEN: u64 = u64::MAX;
        let Some(process) = &mut self.process else { return Err("the backend is not there".to_owned()) };
        process.core.pull(shared.at(), TOKEN, user, 0, request);
        // Three reads at most: the tail, rows and bodies, newest versions.
        for _ in 0..16 {
            self.take_turn(shared);
            let Some(process) = &mut self.process else { break };
            if let Some(at) = process.answers.iter().position(|(token, _)| *token == TOKEN) {
                return match process.answers.remove(at).1 {
                    Ok(Answer::Page(page)) => Ok(page.to_page()),
                    other => Err(format!("a pull was answered with {other:?}")),
                };
            }
            self.disk.answer_at_once();
        }
        Err("a pull was not answered".to_owned())
    }
}

impl Process {
    fn handle(&mut self, what: Happened, shared: &mut Shared) {
        match what {
            Happened::Connected(conn) => {
                let number = self.next_peer;
                self.next_peer += 1;
                let line = Line { peer: Peer::new(number, shared.now_ms()), conn, input: Vec::new() };
                self.peers.insert(number, line);
                shared.answer(conn, Some(Node::Peer(number)));
            }
            Happened::Input { peer, input: Input::Bytes(bytes) } => {
                let Some(line) = self.peers.get_mut(&peer) else { return };
                line.input.extend_from_slice(&bytes);
                self.read_frames(peer, shared);
            }
            Happened::Input { peer, .. } => self.forget(peer, shared),
        }
    }

    fn read_frames(&mut self, number: u64, shared: &mut Shared) {
        while let Some(line) = self.peers.get_mut(&number) {
            let input = std::mem::take(&mut line.input);
            let body = |range: std::ops::Range<usize>| Bytes::copy_from_slice(&input[range]);
            match line.peer.handle_frame(&input, body, shared.now_ms()) {
                Ok((_, 0)) => {
                    line.input = input;
                    return;
                }
                Ok((frame, length)) => {
                    line.input = input[length..].to_vec();
                    self.take_frame(number, frame, shared);
                }
                Err(bad) => {
                    shared.complain(format!("the backend says that a gateway misbehaved: {bad:?}"));
                    return self.forget(number, shared);
                }
            }
        }
    }

    fn take_frame(&mut self, number: u64, frame: Frame, shared: &mut Shared) {
        match frame {
            Frame::Call(begun) => {
                if let Some(line) = self.peers.get_mut(&number) {
                    line.peer.hold(begun.serial, &begun.admitted);
                }
                self.begin(number, begun, shared);
            }
            Frame::Ended(context, result) => self.notified(context, result, shared),
            Frame::Done => {}
        }
    }

    /// As `logic::services` makes verbs of calls.
    fn begin(&mut self, number: u64, begun: Begun, shared: &mut Shared) {
        let at = shared.at();
        let Begun { serial, admitted, header, body } = begun;
        let identity = header.identity.unwrap_or_default();
        let (user, device) = (identity.user, identity.device);
        if let Some(applied) = header.cursor.filter(|_| user != 0) {
            self.core.applied(user, device, applied);
        }
        let token = self.next_call;
        self.next_call += 1;
        self.calls.insert(token, Call { peer: number, serial, admitted });
        let core = &mut self.core;
        let asked = match header.method {
            id if id == messages::SEND.id => method::decode_request(&messages::SEND, body)
                .map(|request: pb::SendRequest| core.send(at, token, user, device, &request)),
            id if id == messages::CREATE_GROUP.id => method::decode_request(&messages::CREATE_GROUP, body)
                .map(|request: pb::CreateGroupRequest| core.create_group(at, token, user, &request)),
            id if id == sync::PULL.id => method::decode_request(&sync::PULL, body)
                .map(|request: pb::PullRequest| core.pull(at, token, user, device, &request)),
            id if id == presence::REPORT.id => {
                method::decode_request(&presence::REPORT, body).map(|request: pb::ReportRequest| {
                    self.links.insert((request.gateway, request.shard as u16), number);
                    core.report(at, token, &request);
                })
            }
            id if id == messages::MARK.id => method::decode_request(&messages::MARK, body)
                .map(|request: pb::MarkRequest| core.mark(at, token, user, device, &request)),
            id if id == messages::TYPING.id => method::decode_request(&messages::TYPING, body)
                .map(|request: pb::TypingRequest| core.typing(token, user, request.to)),
            id if id == echo::SAY.id => Err(Status::new(Code::Unavailable, "nobody echoes here")),
            id => match upload_of(id, body) {
                Some(upload) => upload.map(|upload| core.upload(at, token, user, device, upload)),
                None => Err(method::unknown("the simulator", id)),
            },
        };
        if let Err(status) = asked {
            self.answers.push((token, Err(status)));
        }
    }

    fn notified(&mut self, token: u64, result: Result<Bytes, Status>, shared: &Shared) {
        let reply = result.and_then(|body| {
            pb::NotifyReply::decode(body).map_err(|error| Status::new(Code::Internal, error.to_string()))
        });
        self.core.handle_notify_result(shared.at(), token, reply.as_ref());
    }

    fn run_timers(&mut self, shared: &mut Shared) {
        let at = shared.at();
        if self.core.poll_timeout().is_some_and(|due_ms| due_ms <= at.now_ms) {
            self.core.handle_timeout(at);
        }
        let (mut ended, mut dead) = (Vec::new(), Vec::new());
        for (number, line) in &mut self.peers {
            if line.peer.handle_timeout(at.now_ms, &mut ended).is_err() {
                dead.push(*number);
            }
        }
        for (context, status) in ended {
            self.notified(context, Err(status), shared);
        }
        dead.into_iter().for_each(|number| self.forget(number, shared));
    }

    fn poll_timeout(&self) -> u64 {
        let peers = self.peers.values().map(|line| line.peer.poll_timeout());
        peers.chain(self.core.poll_timeout()).min().unwrap_or(u64::MAX)
    }

    fn forget(&mut self, number: u64, shared: &mut Shared) {
        let Some(mut line) = self.peers.remove(&number) else { return };
        shared.close(line.conn, Side::Acceptor);
        for context in line.peer.disconnect(shared.now_ms()) {
            let lost = Status::new(Code::Lost, "the connection to the gateway broke");
            self.notified(context, Err(lost), shared);
        }
        self.links.retain(|_, known| *known != number);
    }

    fn finish_calls(&mut self) {
        for (token, answer) in std::mem::take(&mut self.answers) {
            let Some(call) = self.calls.remove(&token) else {
                self.answers.push((token, answer));
                continue;
            };
            let Some(line) = self.peers.get_mut(&call.peer) else { continue };
            let (outcome, body) = match answer {
                Ok(answer) => reply_of(answer),
                Err(status) => (Outcome::of(&status), Bytes::from(status.text)),
            };
            line.peer.finish(call.serial, &call.admitted, &outcome, &body);
        }
    }

    fn flush(&mut self, shared: &mut Shared) {
        for line in self.peers.values_mut() {
            let out = std::mem::take(&mut line.peer.out);
            shared.send(line.conn, Side::Acceptor, out);
        }
    }
}

fn reply_of(answer: Answer) -> (Outcome, Bytes) {
    let encoded = match answer {
        Answer::Page(page) => {
            return (Outcome { cursor: Some(page.given), ..Outcome::OK }, page.bytes);
        }
        Answer::Sent(reply, given) => {
            return (Outcome { cursor: given, ..Outcome::OK }, method::encode(&reply));
        }
        Answer::Group(reply) => method::encode(&reply),
        Answer::Report(reply) => method::encode(&reply),
        Answer::Profile(profile) => method::encode(&profile),
        Answer::Moment(moment) => method::encode(&moment),
        Answer::Kv(_) | Answer::Done => Bytes::new(),
    };
    (Outcome::OK, encoded)
}

/// Where a turn's words go.
struct Outlets<'a> {
    peers: &'a mut BTreeMap<u64, Line>,
    links: &'a BTreeMap<(u64, u16), u64>,
    answers: &'a mut Vec<(u64, Result<Answer, Status>)>,
    shared: &'a mut Shared,
}

impl Outward for Outlets<'_> {
    fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
        self.answers.push((token, answer));
    }

    fn notify(
        &mut self,
        token: u64,
        gateway: u64,
        shard: u16,
        request: &pb::NotifyRequest,
    ) -> Result<(), Status> {
        let line = self.links.get(&(gateway, shard)).and_then(|number| self.peers.get_mut(number));
        let line = line.ok_or_else(|| Status::new(Code::Unavailable, "no connection to the shard"))?;
        let body = request.encode_to_vec();
        line.peer
            .call(&gateway::NOTIFY, &body, token, self.shared.now_ms())
            .map_err(|code| Status::new(code, "the connection takes no call"))
    }

    fn log(&mut self, line: &str) {
        self.shared.say(format!("the backend logs: {line}"));
    }
}
