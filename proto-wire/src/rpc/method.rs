//! What the generated code stands on: methods, the way to a callee, and the bodies of calls.

use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;

use crate::names::Cursor;
use crate::rpc::header::Identity;
use crate::status::{Code, Status};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Other services only.
    Internal,
    /// Phones with a token too.
    Phone,
    /// Phones without a token as well.
    Anonymous,
}

/// A method as its `.proto` describes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// The number on the wire; its high byte names the tier.
    pub id: u16,
    pub service: &'static str,
    pub name: &'static str,
    /// How long a call may take when the caller does not say.
    pub deadline_ms: u32,
    /// Business priority, 0 highest.
    pub priority: u8,
    /// May run twice without harm.
    pub idempotent: bool,
    pub access: Access,
    /// No reply is sent.
    pub one_way: bool,
}

/// What a caller may say of one call, beyond its method and its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// 0: the method's own.
    pub deadline_ms: u32,
    /// The phone on whose behalf it is made.
    pub identity: Option<Identity>,
    /// What that phone has applied.
    pub applied: Option<Cursor>,
    /// The IDC of the user whom the call is about.
    pub home: u8,
    pub section: u16,
    /// 0 for the first time, then counted up.
    pub attempt: u8,
    pub user_priority: u8,
    /// Calls with one key go to one callee, where the client balances by key; without one it is the section.
    pub key: Option<u64>,
    /// The W3C traceparent's bytes.
    pub trace: Option<Bytes>,
}

/// The good end of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub body: Bytes,
    /// What a sync gave.
    pub cursor: Option<Cursor>,
}

/// A way to one callee. Generated clients call through it.
#[allow(async_fn_in_trait)] // The runtimes here are one thread each: their tasks need not be Send.
pub trait Channel {
    async fn call(
        &self,
        method: &'static Method,
        options: CallOptions,
        body: Bytes,
    ) -> Result<Answer, Status>;
}

impl<T: Channel> Channel for &T {
    async fn call(
        &self,
        method: &'static Method,
        options: CallOptions,
        body: Bytes,
    ) -> Result<Answer, Status> {
        (**self).call(method, options, body).await
    }
}

impl<T: Channel> Channel for Rc<T> {
    async fn call(
        &self,
        method: &'static Method,
        options: CallOptions,
        body: Bytes,
    ) -> Result<Answer, Status> {
        (**self).call(method, options, body).await
    }
}

/// Serves the methods of one service or more, however their handlers are written. `C` is what the owner knows of a call.
#[allow(async_fn_in_trait)] // The runtimes here are one thread each: their tasks need not be Send.
pub trait Dispatch<C> {
    /// The method with this number, if it is served here.
    fn method(&self, id: u16) -> Option<&'static Method>;

    /// Decodes the request, runs its handler to the end, encodes the reply.
    async fn dispatch(&self, ctx: &Rc<C>, method: u16, body: Bytes) -> Result<Bytes, Status>;
}

/// Services side by side: `(chat, (groups, echo))`. The first that has the method serves it.
impl<C, A: Dispatch<C>, B: Dispatch<C>> Dispatch<C> for (A, B) {
    fn method(&self, id: u16) -> Option<&'static Method> {
        self.0.method(id).or_else(|| self.1.method(id))
    }

    async fn dispatch(&self, ctx: &Rc<C>, method: u16, body: Bytes) -> Result<Bytes, Status> {
        if self.0.method(method).is_some() {
            self.0.dispatch(ctx, method, body).await
        } else {
            self.1.dispatch(ctx, method, body).await
        }
    }
}

/// Runs handlers that read as synchronous, each on a coroutine of its own.
#[allow(async_fn_in_trait)] // The runtimes here are one thread each: their tasks need not be Send.
pub trait Runner {
    /// Runs `handler` to its end. Dropped before, the handler is unwound where it waits.
    async fn run<T: 'static>(
        &self,
        method: &'static Method,
        handler: impl FnOnce() -> Result<T, Status> + 'static,
    ) -> Result<T, Status>;
}

/// How code that reads as synchronous waits for what is not.
pub trait Wait {
    /// Waits for `future`. An error: whoever asks must not wait any more, because its own call is over.
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Status>;
}

/// The method with this number among the few of one service.
pub fn find(methods: &[&'static Method], id: u16) -> Option<&'static Method> {
    methods.iter().find(|method| method.id == id).copied()
}

/// The body of a request or a reply.
pub fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The request of a call, or the status that tells the caller what is wrong with its body.
pub fn decode_request<M: prost::Message + Default>(method: &Method, body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|error| {
        Status::invalid(format!("the body of {}.{} is malformed: {error}", method.service, method.name))
    })
}

/// The reply of a call. One that does not decode is the callee's fault.
pub fn decode_reply<M: prost::Message + Default>(method: &Method, body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|error| {
        let text = format!("the reply of {}.{} is malformed: {error}", method.service, method.name);
        Status::new(Code::Internal, text)
    })
}

/// The status for a number that no method of a service has.
pub fn unknown(service: &str, id: u16) -> Status {
    Status::new(Code::UnknownMethod, format!("{service} has no method {id:#06x}"))
}
