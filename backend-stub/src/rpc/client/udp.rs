//! Calls to one endpoint over UDP; what does not fit a datagram goes over a connection beside it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use proto_wire::pb;
use proto_wire::rpc::caller::{CallerConfig, Request};
use proto_wire::rpc::client::End;
use proto_wire::rpc::datagram::{
    Answered, DatagramCaller, DatagramConfig, MAX_DATAGRAM_BYTES, Refused, Ticket,
};
use proto_wire::rpc::method::{self, Answer};
use proto_wire::services::standing;
use proto_wire::status::{Code, Status};

use super::calls::{Calls, Ended};
use super::link::{Beside, Link, ended};
use crate::clock::Clock;
use crate::rt::{self, Signal, Watched};

/// The socket to one endpoint.
pub(super) struct Datagrams {
    to: SocketAddr,
    clock: Clock,
    /// For what is too large.
    link: Rc<Link>,
    _watcher: Rc<Beside>,
    state: RefCell<State>,
    closed: Signal,
    is_closed: Cell<bool>,
}

struct State {
    caller: DatagramCaller<u32>,
    calls: Calls<Back>,
    /// Made by the first call, so that one that cannot be made is made later.
    socket: Option<Rc<Watched<UdpSocket>>>,
}

/// What a call over UDP comes back with.
enum Back {
    Over(Ended),
    Held(Ticket),
}

impl Datagrams {
    pub fn start(
        to: SocketAddr,
        datagrams: DatagramConfig,
        connection: CallerConfig,
        seed: u64,
        clock: Clock,
    ) -> Rc<Self> {
        let watcher = Rc::new(Beside);
        let weak: Weak<Beside> = Rc::downgrade(&watcher);
        let link = Link::start(0, to.into(), connection, seed, clock, weak);
        let caller = DatagramCaller::new(datagrams, seed);
        let state = RefCell::new(State { caller, calls: Calls::default(), socket: None });
        Rc::new(Self {
            to,
            clock,
            link,
            _watcher: watcher,
            state,
            closed: Signal::default(),
            is_closed: Cell::new(false),
        })
    }

    /// Makes one attempt at a call.
    pub async fn call(self: &Rc<Self>, request: &Request<'_>) -> Ended {
        let begun = self.begin(request);
        let begun = match begun {
            Ok(begun) => begun,
            Err(Some(failed)) => return Err(failed),
            Err(None) => return self.link.call(request)?.await,
        };
        let Some(in_flight) = begun else { return Ok(Answer::default()) };
        let until_ms = self.clock.now_ms() + u64::from(request.deadline_ms);
        match in_flight.await {
            Back::Over(ended) => ended,
            Back::Held(ticket) => self.fetch(request, ticket, until_ms).await,
        }
    }

    /// Sends a call. Nothing to wait for: it was one-way. An error without a status: not over UDP.
    #[allow(clippy::type_complexity)] // The three ways are told apart once, above.
    fn begin(self: &Rc<Self>, request: &Request<'_>) -> Result<Option<InFlight>, Option<(Status, End)>> {
        let socket =
            self.socket().map_err(|error| Some(self.not_sent(Code::Unavailable, &error.to_string())))?;
        let mut state = self.state.borrow_mut();
        let State { caller, calls, .. } = &mut *state;
        let mut datagram = Vec::with_capacity(MAX_DATAGRAM_BYTES);
        let place = calls.begin();
        let id = match caller.call(request, place, self.clock.now_ms(), &mut datagram) {
            Ok(Ok(id)) => Some(id),
            Ok(Err(place)) => {
                calls.give_up(place);
                None
            }
            // Over the connection: it takes what is too large, and has credit for what is too much.
            Err((place, Refused::TooLarge | Refused::Full)) => {
                calls.give_up(place);
                return Err(None);
            }
        };
        if let Err(error) = send(&socket, &datagram) {
            if let Some(id) = id {
                caller.cancel(id, &mut Vec::new());
                calls.give_up(place);
            }
            return Err(Some(self.not_sent(Code::Unavailable, &error.to_string())));
        }
        Ok(id.map(|id| InFlight { datagrams: self.clone(), id, place, is_over: false }))
    }

    /// The call ran, and its reply is too large: it is held there for as long as its caller waits.
    async fn fetch(&self, request: &Request<'_>, ticket: Ticket, until_ms: u64) -> Ended {
        let method = &standing::FETCH;
        let body = method::encode(&pb::FetchRequest { ticket: ticket.to_vec().into() });
        let left_ms = until_ms.saturating_sub(self.clock.now_ms()).clamp(1, u64::from(u32::MAX)) as u32;
        let fetch = Request {
            method: method.id,
            flags: 0,
            deadline_ms: left_ms,
            identity: None,
            cursor: None,
            body: &body,
            ..*request
        };
        let fetched = match self.link.call(&fetch) {
            Ok(in_flight) => in_flight.await,
            Err(refused) => Err(refused),
        };
        // Whatever becomes of the fetching: the call has run.
        let lost = |status: Status| {
            let text = format!("the call ran, and its large reply could not be fetched: {}", status.text);
            (Status::new(Code::Lost, text), End::Unanswered(Code::Lost))
        };
        let answer = fetched.map_err(|(status, _)| lost(status))?;
        let reply: pb::FetchReply = method::decode_reply(method, answer.body).map_err(lost)?;
        Ok(Answer { body: reply.body, cursor: answer.cursor })
    }

    /// Calls made and not ended.
    pub fn calls(&self) -> usize {
        self.state.borrow().caller.calls()
    }

    pub fn late_replies(&self) -> u64 {
        self.state.borrow().caller.late_replies()
    }

    /// Datagrams that were sent again.
    pub fn resent(&self) -> u64 {
        self.state.borrow().caller.resent()
    }

    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    pub fn handle_timeout(&self, now_ms: u64) {
        let mut state = self.state.borrow_mut();
        let State { caller, socket, .. } = &mut *state;
        caller.handle_timeout(now_ms);
        let mut datagram = Vec::new();
        while caller.poll_datagram(now_ms, &mut datagram) {
            if let Some(socket) = socket {
                // What does not leave is sent again later, as what is lost.
                let _ = send(socket, &datagram);
            }
            datagram.clear();
        }
        self.settle(&mut state);
    }

    pub fn poll_timeout(&self) -> u64 {
        self.state.borrow().caller.poll_timeout().unwrap_or(u64::MAX)
    }

    pub fn close(&self) {
        self.is_closed.set(true);
        self.closed.raise();
    }

    fn socket(self: &Rc<Self>) -> io::Result<Rc<Watched<UdpSocket>>> {
        let mut state = self.state.borrow_mut();
        if let Some(socket) = &state.socket {
            return Ok(socket.clone());
        }
        let any: SocketAddr = match self.to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Datagrams of others do not come in, and that nobody listens is told.
        socket.connect(self.to)?;
        socket.set_nonblocking(true)?;
        let socket = Rc::new(Watched::new(socket)?);
        state.socket = Some(socket.clone());
        rt::spawn(self.clone().receive(socket.clone()));
        Ok(socket)
    }

    async fn receive(self: Rc<Self>, socket: Rc<Watched<UdpSocket>>) {
        let closed = self.closed.wait();
        let receive = async {
            let mut datagram = vec![0; MAX_DATAGRAM_BYTES + 1];
            while !self.is_closed.get() {
                let came =
                    poll_fn(|context| socket.poll_read(context, |socket| socket.recv(&mut datagram))).await;
                let mut state = self.state.borrow_mut();
                match came {
                    Ok(bytes) => self.take(&mut state, &datagram[..bytes]),
                    Err(error) => {
                        tracing::debug!(callee = %self.to, "UDP: {error}");
                        state.caller.handle_unreachable();
                    }
                }
                self.settle(&mut state);
            }
        };
        futures_lite::future::or(closed, receive).await;
        let mut state = self.state.borrow_mut();
        state.socket = None;
        state.caller.handle_unreachable();
        self.settle(&mut state);
    }

    fn take(&self, state: &mut State, datagram: &[u8]) {
        let State { caller, calls, .. } = state;
        match caller.handle_datagram(datagram, self.clock.now_ms()) {
            Some(Answered::Reply(place, header, body)) => {
                let body = datagram[body].to_vec().into();
                calls.end(place, Back::Over(ended(&header, body)));
            }
            Some(Answered::Held(place, ticket)) => calls.end(place, Back::Held(ticket)),
            None => {}
        }
    }

    fn settle(&self, state: &mut State) {
        while let Some((place, code)) = state.caller.poll_failed() {
            let text = match code {
                Code::Lost => format!("nobody listens at {} over UDP", self.to),
                _ => format!("the time of the call to {} over UDP ran out", self.to),
            };
            state.calls.end(place, Back::Over(Err((Status::new(code, text), End::Unanswered(code)))));
        }
    }

    fn not_sent(&self, code: Code, why: &str) -> (Status, End) {
        (Status::new(code, format!("no datagram to {}: {why}", self.to)), End::NotSent(code))
    }
}

/// That nobody listened to an earlier datagram is told once, at the next; this one can leave then.
fn send(socket: &Watched<UdpSocket>, datagram: &[u8]) -> io::Result<()> {
    match socket.io.send(datagram) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            socket.io.send(datagram).map(|_| ())
        }
        sent => sent.map(|_| ()),
    }
}

/// A call whose datagram has left.
struct InFlight {
    datagrams: Rc<Datagrams>,
    id: u64,
    place: u32,
    is_over: bool,
}

impl Future for InFlight {
    type Output = Back;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Back> {
        let back = self.datagrams.state.borrow_mut().calls.poll(self.place, context);
        self.is_over = back.is_ready();
        back
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Borrowed only when an executor that is being torn down drops its tasks; then nobody waits.
        if !self.is_over
            && let Ok(mut state) = self.datagrams.state.try_borrow_mut()
        {
            let State { caller, calls, socket } = &mut *state;
            let mut datagram = Vec::new();
            caller.cancel(self.id, &mut datagram);
            calls.give_up(self.place);
            if let Some(socket) = socket
                && !datagram.is_empty()
            {
                // It may be lost; the callee's handler then runs to its end.
                let _ = send(socket, &datagram);
            }
        }
    }
}
