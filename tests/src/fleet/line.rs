//! A phone and its socket.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use proto_wire::pb::{self, change};
use proto_wire::phone::{CallHandle, CloseReason, Ended, Phone, PhoneEvent};
use proto_wire::status::Code;
use socket2::{Domain, Socket, Type};

use crate::limits;

/// A phone of a fleet; also the number of its log in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhoneId(pub usize);

/// The end of a call.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: Code,
    pub body: Bytes,
}

/// What happened to a phone.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub welcomes: u32,
    pub closes: Vec<CloseReason>,
    pub changes: u64,
    pub gaps: u32,
    pub repeats: u32,
    pub snapshots: u32,
    pub syncs_failed: u32,
    /// The newest state of each item that is no message; those are the history's.
    pub items: BTreeMap<(u64, u64), change::Body>,
    pub notices: Vec<pb::Notice>,
    /// When the last page came.
    page_ms: u64,
    /// The longest time between two pages.
    pub silence_ms: u64,
}

impl Seen {
    /// A page is there, or the first is awaited from now on.
    pub(super) fn page(&mut self, now_ms: u64, is_first: bool) {
        if !is_first {
            self.silence_ms = self.silence_ms.max(now_ms - self.page_ms);
        }
        self.page_ms = now_ms;
    }

    pub(super) fn take(&mut self, change: &pb::Change) {
        let Some(item) = change.item.map(|item| (item.origin, item.number)) else { return };
        match &change.body {
            Some(change::Body::Message(message)) if !message.recalled => {}
            Some(body) => drop(self.items.insert(item, body.clone())),
            None => drop(self.items.remove(&item)),
        }
    }

    /// What this phone shows of a peer.
    pub fn peer(&self, peer: u64) -> pb::Peer {
        match self.items.get(&(peer, 0)) {
            Some(change::Body::Peer(state)) => state.clone(),
            _ => pb::Peer::default(),
        }
    }
}

pub(super) struct Line {
    pub phone: Phone,
    pub user: u64,
    /// Which of the fleet's gateways it tries.
    pub gateway: usize,
    pub socket: Option<TcpStream>,
    is_connecting: bool,
    out: Vec<u8>,
    pub replies: HashMap<CallHandle, Reply>,
    pub seen: Seen,
    /// Sockets whose peer still believes in them.
    lost: Vec<TcpStream>,
}

impl Reply {
    /// The sentence of a reply that is not `ok`.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Line {
    pub fn new(phone: Phone, user: u64) -> Self {
        Self {
            phone,
            user,
            gateway: 0,
            socket: None,
            is_connecting: false,
            out: Vec::new(),
            replies: HashMap::new(),
            seen: Seen::default(),
            lost: Vec::new(),
        }
    }

    /// Begins to connect.
    pub fn open(&mut self, gateway: SocketAddr, now_ms: u64) {
        self.drop_socket();
        match connect(gateway) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.is_connecting = true;
            }
            Err(_) => self.end(now_ms, Ended::ConnectFailed),
        }
    }

    pub fn drop_socket(&mut self) {
        self.socket = None;
        self.is_connecting = false;
        self.out.clear();
    }

    /// The server's end stays open, since nothing tells it.
    pub fn lose_path(&mut self, now_ms: u64) {
        self.lost.extend(self.socket.take());
        self.end(now_ms, Ended::Reset);
    }

    pub fn wants_to_write(&self) -> bool {
        self.is_connecting || !self.out.is_empty()
    }

    /// The socket can be read or written.
    pub fn handle_ready(&mut self, now_ms: u64) {
        let Some(socket) = &mut self.socket else { return };
        if self.is_connecting {
            match socket.take_error() {
                Ok(None) if socket.peer_addr().is_ok() => {
                    self.is_connecting = false;
                    self.phone.handle_connected(now_ms);
                }
                Ok(None) => return,
                _ => return self.end(now_ms, Ended::ConnectFailed),
            }
        }
        let mut buffer = vec![0; limits::READ_BYTES];
        match socket.read(&mut buffer) {
            Ok(0) => self.end(now_ms, Ended::Eof),
            Ok(read) => self.phone.handle_bytes(&buffer[..read], now_ms),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.end(now_ms, Ended::Reset),
        }
    }

    /// Sends what the machine has and the socket takes. Whether the machine is to be asked again.
    pub fn transmit(&mut self, now_ms: u64) -> bool {
        let has_more = self.phone.poll_transmit(&mut self.out);
        let Some(socket) = &mut self.socket else { return has_more };
        while !self.out.is_empty() && !self.is_connecting {
            match socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.end(now_ms, Ended::Reset);
                    return true;
                }
            }
        }
        has_more
    }

    /// Events that are only counted.
    pub fn note(&mut self, event: PhoneEvent) {
        match event {
            PhoneEvent::Welcomed { .. } => self.seen.welcomes += 1,
            PhoneEvent::Closed { reason, welcomed, .. } => {
                // The gateway does not let it in: another may.
                self.gateway += usize::from(!welcomed);
                self.seen.closes.push(reason);
            }
            PhoneEvent::Gap { .. } => self.seen.gaps += 1,
            PhoneEvent::Repeat { .. } => self.seen.repeats += 1,
            PhoneEvent::Notice { notice } => self.seen.notices.push(notice),
            PhoneEvent::SyncFailed { .. } => self.seen.syncs_failed += 1,
            _ => {}
        }
    }

    fn end(&mut self, now_ms: u64, ended: Ended) {
        self.drop_socket();
        self.phone.handle_closed(now_ms, ended);
    }
}

fn connect(gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&gateway.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
