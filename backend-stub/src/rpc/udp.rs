//! The server's side of calls over UDP: one socket, a datagram for each call and each answer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use proto_wire::rpc::callee::{Admitted, Outcome};
use proto_wire::rpc::datagram::{
    Came, DatagramCallee, DatagramCalleeConfig, MAX_DATAGRAM_BYTES, Running, TICKET_BYTES,
};
use proto_wire::rpc::header::Header;

use super::standing::Facts;
use super::{Call, Over, Quiet, Service};
use crate::clock::Clock;
use crate::rt::{self, Signal, Watched};
use crate::stats::Stats;

/// What the kernel is asked to hold of what has come: some thousand small datagrams.
const RECEIVE_BYTES: usize = 4 << 20;

/// A socket that serves a [`Service`]; its handlers do not see the difference.
pub struct UdpServer<S> {
    service: Rc<S>,
    socket: Watched<UdpSocket>,
    addr: SocketAddr,
    callee: RefCell<DatagramCallee<SocketAddr>>,
    /// Calls that run, to be told when they are over.
    calls: RefCell<AHashMap<(SocketAddr, u64), Rc<Call>>>,
    facts: Facts,
    stats: Arc<Stats>,
    clock: Clock,
    closed: Signal,
    quiet: Quiet,
}

impl<S: Service> UdpServer<S> {
    /// Callers expect it on the port of the TCP socket. `facts` are those of the server there: replies that are too large
    /// for a datagram are fetched from it.
    pub fn bind(
        addr: SocketAddr,
        service: Rc<S>,
        facts: Facts,
        stats: Arc<Stats>,
        clock: Clock,
    ) -> io::Result<Rc<Self>> {
        let socket = UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        // The kernel gives at most net.core.rmem_max; what a burst does not find room in is lost.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES);
        let server = Rc::new(Self {
            service,
            addr: socket.local_addr()?,
            socket: Watched::new(socket)?,
            callee: RefCell::new(DatagramCallee::new(DatagramCalleeConfig::default())),
            calls: RefCell::default(),
            facts,
            stats,
            clock,
            closed: Signal::default(),
            quiet: Quiet::default(),
        });
        rt::spawn(server.clone().receive());
        Ok(server)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Handlers that run.
    pub fn running(&self) -> usize {
        self.callee.borrow().running()
    }

    /// Datagrams that repeated a call which was known: they were answered from memory.
    pub fn repeated(&self) -> u64 {
        self.callee.borrow().repeated()
    }

    /// Takes no more datagrams. Handlers that run still answer.
    pub fn close(&self) {
        self.closed.raise();
    }

    async fn receive(self: Rc<Self>) {
        let closed = async {
            self.closed.wait().await;
        };
        let receive = async {
            // One byte more than may come tells a datagram that is cut from one that just fits.
            let mut datagram = vec![0; MAX_DATAGRAM_BYTES + 1];
            loop {
                let came = poll_fn(|context| {
                    self.socket.poll_read(context, |socket| socket.recv_from(&mut datagram))
                })
                .await;
                match came {
                    Ok((bytes, peer)) => self.take(peer, &datagram[..bytes]),
                    // The host of an earlier answer said that nobody listens there any more.
                    Err(error) => tracing::debug!("UDP: {error}"),
                }
            }
        };
        futures_lite::future::or(closed, receive).await;
    }

    fn take(self: &Rc<Self>, peer: SocketAddr, datagram: &[u8]) {
        let arrived_us = self.clock.now_us();
        self.stats.in_bytes.add(datagram.len() as u64);
        match self.callee.borrow_mut().handle_datagram(peer, datagram, arrived_us / 1000) {
            Ok(Came::Call(running, header, body)) => {
                let body = Bytes::copy_from_slice(&datagram[body]);
                rt::spawn(self.clone().run(running, header, body, arrived_us));
            }
            Ok(Came::Answer(answer)) => self.send(peer, &answer),
            Ok(Came::GivenUp(call_id)) => {
                let call = self.calls.borrow().get(&(peer, call_id)).cloned();
                if let Some(call) = call {
                    call.over.set();
                }
            }
            Ok(Came::Nothing) => {}
            Err(error) => {
                if let Some(dropped) = self.quiet.admit(arrived_us / 1000) {
                    let reason = error.map_or("no single call".to_owned(), |error| error.to_string());
                    tracing::warn!(%peer, %reason, lines_kept_back = dropped, "dropped a datagram");
                }
            }
        }
    }

    async fn run(self: Rc<Self>, running: Running<SocketAddr>, header: Header, body: Bytes, arrived_us: u64) {
        let begun_us = self.clock.now_us();
        let (method, service, in_bytes) = (header.method, header.service, body.len() as u64);
        let call = Rc::new(call_of(&header, &running));
        let key = (running.peer, running.call_id);
        self.calls.borrow_mut().insert(key, call.clone());
        let left_ms = running.deadline_at_ms.saturating_sub(begun_us / 1000);
        let watch = async {
            rt::sleep_ms(left_ms).await;
            // Handlers are told; what does not listen runs to its end.
            call.over.set();
            std::future::pending().await
        };
        let result = futures_lite::future::or(self.service.serve(&call, method, body), watch).await;
        let (outcome, body) = match result {
            Ok(body) => (Outcome { cursor: call.given.get(), ..Outcome::OK }, body),
            Err(status) => (Outcome::of(&status), Bytes::from(status.text)),
        };
        self.calls.borrow_mut().remove(&key);
        let ended_us = self.clock.now_us();
        let stats = self.stats.method(method);
        stats.ended(outcome.code);
        stats.called_by(service);
        stats.in_bytes.add(in_bytes);
        stats.out_bytes.add(body.len() as u64);
        stats.queue.record(begun_us - arrived_us);
        stats.service.record(ended_us - begun_us);
        let answer = self.callee.borrow_mut().answer(
            &running,
            &outcome,
            &body,
            &mut self.facts.held().borrow_mut(),
            ticket,
            ended_us / 1000,
        );
        if let Some(answer) = answer {
            self.send(running.peer, &answer);
        }
    }

    fn send(&self, peer: SocketAddr, datagram: &[u8]) {
        // What the kernel does not take is lost, as anything on this way may be.
        let sent = self.socket.io.send_to(datagram, peer).unwrap_or(0);
        self.stats.out_bytes.add(sent as u64);
    }
}

fn call_of(header: &Header, running: &Running<SocketAddr>) -> Call {
    let Running { call_id, deadline_at_ms, one_way, .. } = *running;
    Call {
        connection: None,
        identity: header.identity,
        applied: header.cursor,
        deadline_at_ms,
        given: Cell::new(None),
        over: Over::default(),
        method: header.method,
        service: header.service,
        serial: 0,
        admitted: Admitted { call_id, deadline_at_ms, one_way },
    }
}

/// Without random bytes a ticket could be guessed, so nothing may be fetched: zeros are taken once, and then never again.
fn ticket() -> [u8; TICKET_BYTES] {
    let mut ticket = [0; TICKET_BYTES];
    match getrandom::fill(&mut ticket) {
        Ok(()) => ticket,
        Err(_) => [0; TICKET_BYTES],
    }
}
