//! What every server serves beside its own services: health, reflection, and replies that did not fit a datagram.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use proto_wire::limits::MAX_RPC_BODY_BYTES;
use proto_wire::pb;
use proto_wire::rpc::datagram::{Held, HeldConfig, Ticket};
use proto_wire::rpc::method;
use proto_wire::services::standing;
use proto_wire::status::{Code, Status};

use super::{Call, Connection, Service, check_access};
use crate::clock::Clock;

/// A service with what stands in every server: `Server::new(Standing::new(Host(mine), ..), ..)`.
pub struct Standing<S> {
    service: S,
    /// Encoded once: it does not change.
    reflection: Bytes,
    facts: Facts,
}

/// What a server's owner and its UDP socket share with it.
#[derive(Clone)]
pub struct Facts(Rc<Inner>);

struct Inner {
    clock: Clock,
    takes_calls: Cell<bool>,
    held: RefCell<Held>,
}

impl<S: Service> Standing<S> {
    /// `services` are the full names of what `service` serves, and `descriptors` the `FILE_DESCRIPTOR_SET` that was
    /// generated with it.
    ///
    /// What stands here is added to `services`, and must be among the descriptors to be called by reflection.
    pub fn new(service: S, services: &[&str], descriptors: &'static [u8], facts: Facts) -> Self {
        let reflection = method::encode(&pb::ReflectReply {
            services: ["moorgate.Standing"].iter().chain(services).map(|name| (*name).to_owned()).collect(),
            descriptors: Bytes::from_static(descriptors),
        });
        Self { service, reflection, facts }
    }

    fn stand(&self, call: &Call, id: u16, body: Bytes) -> Result<Bytes, Status> {
        let known = method::find(standing::METHODS, id).ok_or_else(|| method::unknown("this server", id))?;
        check_access(call, known)?;
        match id {
            _ if id == standing::HEALTH.id => {
                let _: pb::HealthRequest = method::decode_request(known, body)?;
                Ok(method::encode(&pb::HealthReply { takes_calls: self.facts.0.takes_calls.get() }))
            }
            _ if id == standing::REFLECT.id => {
                let _: pb::ReflectRequest = method::decode_request(known, body)?;
                Ok(self.reflection.clone())
            }
            _ => self.fetch(call, method::decode_request(known, body)?),
        }
    }

    fn fetch(&self, call: &Call, request: pb::FetchRequest) -> Result<Bytes, Status> {
        let ticket =
            Ticket::try_from(&request.ticket[..]).map_err(|_| Status::invalid("a ticket has 16 bytes"))?;
        let now_ms = self.facts.0.clock.now_ms();
        let held = self.facts.0.held.borrow_mut().fetch(&ticket, now_ms);
        let (body, cursor) =
            held.ok_or_else(|| Status::new(Code::NotFound, "nothing is held under this ticket"))?;
        if let Some(cursor) = cursor {
            call.set_given(cursor);
        }
        Ok(method::encode(&pb::FetchReply { body }))
    }
}

impl<S: Service> Service for Standing<S> {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        let reply = if method >> 8 == standing::HEALTH.id >> 8 {
            self.stand(call, method, body)?
        } else {
            self.service.serve(call, method, body).await?
        };
        if reply.len() > MAX_RPC_BODY_BYTES {
            // The caller would end the connection over it, with all other calls.
            let text = format!("a reply of {} bytes is over the limit of {MAX_RPC_BODY_BYTES}", reply.len());
            return Err(Status::new(Code::Internal, text));
        }
        Ok(reply)
    }

    fn ended(&self, context: u64, result: Result<Bytes, Status>) {
        self.service.ended(context, result);
    }

    fn closed(&self, connection: &Rc<Connection>) {
        self.service.closed(connection);
    }
}

/// One service behind several sockets.
impl<S: Service> Service for Rc<S> {
    async fn serve(&self, call: &Rc<Call>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        (**self).serve(call, method, body).await
    }

    fn ended(&self, context: u64, result: Result<Bytes, Status>) {
        (**self).ended(context, result);
    }

    fn closed(&self, connection: &Rc<Connection>) {
        (**self).closed(connection);
    }
}

impl Facts {
    pub fn new(clock: Clock) -> Self {
        let held = RefCell::new(Held::new(HeldConfig::default()));
        Self(Rc::new(Inner { clock, takes_calls: Cell::new(true), held }))
    }

    /// The server is about to end: health says so from now on.
    pub fn end_soon(&self) {
        self.0.takes_calls.set(false);
    }

    pub(super) fn held(&self) -> &RefCell<Held> {
        &self.0.held
    }
}
