//! One connection to one callee: a task connects and reads, another writes, and proto-wire's `Caller` decides. The
//! object lives on while the connection under it comes and goes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_lite::future::or;
use proto_wire::rpc::caller::{Action, CallId, Caller, CallerConfig, PeerMisbehaved, Request};
use proto_wire::rpc::client::{Address, End};
use proto_wire::rpc::header::{Header, Kind, next_header};
use proto_wire::rpc::method::Answer;
use proto_wire::status::{Code, Status};

use super::calls::{Calls, Ended};
use super::limits;
use crate::clock::Clock;
use crate::rpc::input::{Input, Taken};
use crate::rt::{self, Signal, Stream};

/// Who is told when the connection comes and goes.
pub trait Watcher {
    /// It stands, and takes calls.
    fn up(&self, link: &Link);

    /// It takes none, or could not be made. Gives whether calls that wait may go another way.
    fn down(&self, link: &Link) -> bool;
}

/// For a connection beside which there is another way: what cannot leave over it is given back at once.
pub struct Beside;

impl Watcher for Beside {
    fn up(&self, _: &Link) {}

    fn down(&self, _: &Link) -> bool {
        true
    }
}

/// The connection.
pub struct Link {
    /// What its owner knows it by.
    pub endpoint: u32,
    address: Address,
    clock: Clock,
    watcher: Weak<dyn Watcher>,
    state: RefCell<State>,
    /// What the task that keeps the connection shall do, and its bell.
    wish: Cell<Wish>,
    turn: Signal,
}

struct State {
    caller: Caller<u32>,
    calls: Calls<Ended>,
    /// What the writer has not taken yet.
    out: Vec<u8>,
    wire: Option<Rc<Wire>>,
    /// Why there is no connection.
    why: String,
}

/// One connection under the link.
struct Wire {
    stream: Stream,
    to_write: Signal,
    /// Bytes that the writer has taken and the kernel has not.
    writing: Cell<usize>,
    is_closed: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wish {
    Nothing,
    Connect,
    Disconnect(&'static str),
    End,
}

impl Link {
    /// `seed` feeds the jitter of the waits between attempts to connect.
    pub fn start(
        endpoint: u32,
        address: Address,
        config: CallerConfig,
        seed: u64,
        clock: Clock,
        watcher: Weak<dyn Watcher>,
    ) -> Rc<Self> {
        let link = Rc::new(Self {
            endpoint,
            address,
            clock,
            watcher,
            state: RefCell::new(State {
                caller: Caller::new(config, seed),
                calls: Calls::default(),
                out: Vec::new(),
                wire: None,
                why: "none was made yet".to_owned(),
            }),
            wish: Cell::new(Wish::Nothing),
            turn: Signal::default(),
        });
        rt::spawn(link.clone().keep());
        link
    }

    /// Makes a call; its end is the end of the future. Dropping the future gives the call up and tells the callee.
    pub fn call(self: &Rc<Self>, request: &Request<'_>) -> Result<InFlight, (Status, End)> {
        let mut state = self.state.borrow_mut();
        let State { caller, calls, out, wire, .. } = &mut *state;
        let writing = wire.as_ref().map_or(0, |wire| wire.writing.get());
        if out.len() + writing + request.body.len() > limits::OUT_MAX_BYTES {
            return Err(self.refused());
        }
        let place = calls.begin();
        let Ok(id) = caller.call(request, place, self.clock.now_ms(), out) else {
            calls.give_up(place);
            return Err(self.refused());
        };
        self.settle(&mut state);
        Ok(InFlight { link: self.clone(), id, place, is_over: false })
    }

    /// Calls made and not ended.
    pub fn calls(&self) -> usize {
        self.state.borrow().caller.calls()
    }

    pub fn is_up(&self) -> bool {
        self.state.borrow().caller.is_up()
    }

    /// Replies that came after their calls had ended.
    pub fn late_replies(&self) -> u64 {
        self.state.borrow().caller.late_replies()
    }

    /// Asks for the connection before the first call does.
    pub fn connect(&self) {
        let mut state = self.state.borrow_mut();
        state.caller.start(self.clock.now_ms());
        self.settle(&mut state);
    }

    pub fn handle_timeout(&self, now_ms: u64) {
        let mut state = self.state.borrow_mut();
        if state.caller.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms) {
            let State { caller, out, .. } = &mut *state;
            caller.handle_timeout(now_ms, out);
            self.settle(&mut state);
        }
    }

    pub fn poll_timeout(&self) -> u64 {
        self.state.borrow().caller.poll_timeout().unwrap_or(u64::MAX)
    }

    /// Ends the connection and its tasks. Calls that are out are lost, and what waits is given back.
    pub fn close(&self) {
        self.wish.set(Wish::End);
        self.turn.raise();
        if let Some(wire) = &self.state.borrow().wire {
            wire.close();
        }
    }

    /// Connects whenever the caller asks for it, until the link is closed.
    async fn keep(self: Rc<Self>) {
        loop {
            match self.wish.get() {
                Wish::Connect => {}
                Wish::End => break,
                Wish::Nothing | Wish::Disconnect(_) => {
                    self.turn.wait().await;
                    continue;
                }
            }
            let why = match or(self.dial(), self.unwished()).await {
                Ok(stream) => self.hold(stream).await,
                Err(error) => error.to_string(),
            };
            self.disconnected(why);
        }
        self.disconnected("the client was closed".to_owned());
        let mut state = self.state.borrow_mut();
        state.caller.give_back_waiting();
        self.settle(&mut state);
    }

    async fn dial(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Inet(addr) => Stream::connect(*addr).await,
            Address::Unix(path) => Stream::connect_unix(path),
        }
    }

    /// Ends when the connection that is being made is not wanted any more.
    async fn unwished(&self) -> io::Result<Stream> {
        loop {
            match self.wish.get() {
                Wish::Disconnect(why) => return Err(io::Error::other(why)),
                Wish::End => return Err(io::Error::other("the client was closed")),
                Wish::Nothing | Wish::Connect => self.turn.wait().await,
            }
        }
    }

    /// Reads from a connection until its end. Gives why it ended.
    async fn hold(self: &Rc<Self>, stream: Stream) -> String {
        let wire = Rc::new(Wire {
            stream,
            to_write: Signal::default(),
            writing: Cell::new(0),
            is_closed: Cell::new(self.wish.get() == Wish::End),
        });
        {
            let mut state = self.state.borrow_mut();
            state.wire = Some(wire.clone());
            let State { caller, out, .. } = &mut *state;
            caller.handle_connected(self.clock.now_ms(), out);
            self.settle(&mut state);
        }
        if let Some(watcher) = self.watcher.upgrade() {
            watcher.up(self);
        }
        rt::spawn(self.clone().write(wire.clone()));
        let mut input = Input::default();
        let why = loop {
            match wire.stream.read(input.room()).await {
                Ok(0) => break "the callee closed it".to_owned(),
                Ok(read) => input.came(read),
                Err(error) => break error.to_string(),
            }
            let taken = input.take();
            match self.handle_input(&taken) {
                Ok(used) => input.put_back(taken, used),
                Err(reason) => {
                    tracing::warn!(callee = %self.address, %reason, "closed a connection");
                    break reason;
                }
            }
        };
        wire.close();
        match self.wish.get() {
            Wish::Disconnect(why) => why.to_owned(),
            _ => why,
        }
    }

    /// Takes all whole frames. Gives how many bytes they are.
    fn handle_input(&self, taken: &Taken) -> Result<usize, String> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.borrow_mut();
        let input = taken.bytes();
        let mut at = 0;
        while let Some((header, header_bytes)) =
            next_header(&input[at..]).map_err(|error| error.to_string())?
        {
            let from = at + header_bytes;
            at = from + header.body_bytes as usize;
            let State { caller, calls, out, .. } = &mut *state;
            match header.kind {
                Kind::Reply => caller.handle_reply(&header, now_ms, out).map(|place| {
                    if let Some(place) = place {
                        calls.end(place, ended(&header, taken.body(from..at)));
                    }
                }),
                Kind::Credit | Kind::Pong | Kind::GoAway => caller.handle_control(&header, now_ms, out),
                kind => Err(PeerMisbehaved::OutOfPlace(kind)),
            }
            .map_err(|misbehaved| misbehaved.to_string())?;
        }
        self.settle(&mut state);
        let is_draining = !state.caller.is_up();
        drop(state);
        if is_draining && let Some(watcher) = self.watcher.upgrade() {
            watcher.down(self);
        }
        Ok(at)
    }

    /// Writes what was appended, once a turn, until the connection is closed.
    async fn write(self: Rc<Self>, wire: Rc<Wire>) {
        let mut bytes = Vec::new();
        while !wire.is_closed.get() {
            wire.to_write.wait().await;
            // All that this turn still has to say goes with it.
            rt::yield_now().await;
            std::mem::swap(&mut self.state.borrow_mut().out, &mut bytes);
            if wire.is_closed.get() {
                break;
            }
            wire.writing.set(bytes.len());
            if !bytes.is_empty() && wire.stream.write_all(&bytes).await.is_err() {
                // The reader sees the end.
                wire.close();
            }
            bytes.clear();
            bytes.shrink_to(limits::KEEP_BYTES);
            wire.writing.set(0);
        }
    }

    fn disconnected(&self, why: String) {
        let can_move = self.watcher.upgrade().is_some_and(|watcher| watcher.down(self));
        let mut state = self.state.borrow_mut();
        state.why = why;
        state.wire = None;
        state.out.clear();
        if self.wish.get() != Wish::End {
            self.wish.set(Wish::Nothing);
        }
        state.caller.handle_disconnected(self.clock.now_ms());
        if can_move {
            state.caller.give_back_waiting();
        }
        self.settle(&mut state);
    }

    /// Does what the caller says: wakes whose calls have ended, the writer, and the task that connects.
    fn settle(&self, state: &mut State) {
        while let Some((place, code)) = state.caller.poll_failed() {
            let failed = self.failed(code, &state.caller, &state.why);
            state.calls.end(place, Err(failed));
        }
        while let Some(place) = state.caller.poll_left() {
            state.calls.end(place, Ok(Answer::default()));
        }
        if self.wish.get() != Wish::End {
            match state.caller.poll_action() {
                Some(Action::Connect) => {
                    self.wish.set(Wish::Connect);
                    self.turn.raise();
                }
                Some(Action::Disconnect(why)) => {
                    self.wish.set(Wish::Disconnect(why));
                    self.turn.raise();
                    if let Some(wire) = &state.wire {
                        wire.close();
                    }
                }
                None => {}
            }
        }
        if !state.out.is_empty()
            && let Some(wire) = &state.wire
        {
            wire.to_write.raise();
        }
    }

    fn failed(&self, code: Code, caller: &Caller<u32>, why: &str) -> (Status, End) {
        let address = &self.address;
        let (text, end) = match code {
            Code::Lost => (
                format!("the connection to {address} broke before the answer came: {why}"),
                End::Unanswered(code),
            ),
            Code::Deadline if caller.is_up() => {
                (format!("the time of the call to {address} ran out"), End::Unanswered(code))
            }
            Code::Deadline => (
                format!("the time of the call to {address} ran out; no connection: {why}"),
                End::Unanswered(code),
            ),
            _ => (format!("no connection to {address}: {why}"), End::NotSent(code)),
        };
        (Status::new(code, text), end)
    }

    fn refused(&self) -> (Status, End) {
        let text = format!("too many calls wait for {}", self.address);
        (Status::new(Code::Overloaded, text), End::NotSent(Code::Overloaded))
    }
}

impl Wire {
    fn close(&self) {
        self.is_closed.set(true);
        self.stream.shutdown();
        self.to_write.raise();
    }
}

/// A call that was made.
pub struct InFlight {
    link: Rc<Link>,
    id: CallId,
    place: u32,
    is_over: bool,
}

impl Future for InFlight {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let ended = self.link.state.borrow_mut().calls.poll(self.place, context);
        self.is_over = ended.is_ready();
        ended
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Borrowed only when an executor that is being torn down drops its tasks; then nobody waits.
        if !self.is_over
            && let Ok(mut state) = self.link.state.try_borrow_mut()
        {
            let State { caller, calls, out, .. } = &mut *state;
            caller.cancel(self.id, out);
            calls.give_up(self.place);
            self.link.settle(&mut state);
        }
    }
}

/// How a reply ends its call.
pub(super) fn ended(header: &Header, body: Bytes) -> Ended {
    let code = header.code();
    if code == Code::Ok {
        return Ok(Answer { body, cursor: header.cursor });
    }
    let mut status = Status::new(code, String::from_utf8_lossy(&body));
    status.retry_after_ms = header.retry_after_ms.unwrap_or(0);
    Err((status, End::Replied(code)))
}
