//! A phone without a machine: bytes that a good phone would not send, or would not send so.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use proto_wire::close::Reason;
use proto_wire::frame::{self, Call, VERSION_MAJOR, VERSION_MINOR, kind};
use proto_wire::names::Cursor;
use proto_wire::status::Code;
use proto_wire::{limits as wire_limits, pb};
use socket2::{Domain, Socket, Type};

use crate::limits;

const WITHIN: Duration = Duration::from_millis(limits::WIRE_WITHIN_MS);

/// A socket, and what came that is not read yet.
pub struct Wire {
    pub stream: TcpStream,
    held: Vec<u8>,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Wire {
    pub fn connect(gateway: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&gateway, WITHIN)?)
    }

    /// From an address of this host, for example 127.0.0.2.
    pub fn connect_from(gateway: SocketAddr, source: IpAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&gateway.into(), WITHIN)?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::new() })
    }

    /// Connects, greets and is welcomed.
    pub fn greet(gateway: SocketAddr, token: &str, device: u64) -> io::Result<Self> {
        let mut wire = Self::connect(gateway)?;
        wire.send(&hello(token, device, 1))?;
        match wire.hear()? {
            Some(Heard { kind: kind::WELCOME, .. }) => Ok(wire),
            other => Err(io::Error::other(format!("no WELCOME but {other:?}"))),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn call(&mut self, id: u32, method: u16, deadline_ms: u32, body: &[u8]) -> io::Result<()> {
        self.send(&call(id, method, deadline_ms, body))
    }

    /// The next frame; none at the end.
    pub fn hear(&mut self) -> io::Result<Option<Heard>> {
        let mut buffer = vec![0; limits::READ_BYTES];
        loop {
            let mut input = &self.held[..];
            let frame =
                frame::next_frame(&mut input, wire_limits::MAX_FRAME_BODY_BYTES).map_err(io::Error::other)?;
            if let Some(frame) = frame {
                let heard = Heard { kind: frame.kind, body: frame.body.to_vec() };
                self.held = input.to_vec();
                return Ok(Some(heard));
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                read => self.held.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The reply to a call, whatever else comes before.
    pub fn reply(&mut self, id: u32) -> io::Result<(Code, Vec<u8>)> {
        while let Some(heard) = self.hear()? {
            if heard.kind == kind::REPLY {
                let reply = frame::Reply::parse(&heard.body).map_err(io::Error::other)?;
                if reply.id == id {
                    return Ok((reply.status, reply.body.to_vec()));
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads to the end, and gives why the server closed; none: it did not say.
    pub fn close_reason(&mut self) -> io::Result<Option<Reason>> {
        let mut reason = None;
        loop {
            match self.hear() {
                Ok(Some(heard)) if heard.kind == kind::CLOSE => {
                    let close = pb::Close::decode(&heard.body[..]).map_err(io::Error::other)?;
                    reason = Reason::from_u16(close.code as u16);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(reason),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(reason),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A HELLO of a phone that has nothing.
pub fn hello(token: &str, device: u64, counter: u32) -> Vec<u8> {
    let hello = pb::Hello {
        version_major: VERSION_MAJOR,
        version_minor: VERSION_MINOR,
        token: token.as_bytes().to_vec().into(),
        device,
        counter,
        applied: Some(pb::Cursor::default()),
        client: "tests".to_owned(),
        ..pb::Hello::default()
    };
    let mut out = Vec::new();
    frame::put_message(&mut out, kind::HELLO, &hello);
    out
}

pub fn call(id: u32, method: u16, deadline_ms: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let applied: Option<Cursor> = None;
    Call { id, method, attempt: 0, deadline_ms, applied, body }.put(&mut out);
    out
}
