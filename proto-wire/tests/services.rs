//! The generated code: from a client through a channel to a server and back.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proto_wire::pb;
use proto_wire::rpc::method::{Access, Answer, CallOptions, Channel, Method};
use proto_wire::services::{self, echo, messages};
use proto_wire::status::{Code, Status};

/// Nothing in here waits for anything, so one poll is the whole run.
fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for nothing"),
    }
}

/// Serves, and remembers for whom.
struct Served(RefCell<Vec<u64>>);

impl messages::Server<u64> for Served {
    async fn send(&self, user: &u64, request: pb::SendRequest) -> Result<pb::SendReply, Status> {
        self.0.borrow_mut().push(*user);
        match request.to {
            0 => Err(Status::new(Code::NotFound, "nobody has number 0")),
            to => Ok(pb::SendReply { server_time_ms: to, ..pb::SendReply::default() }),
        }
    }

    async fn create_group(&self, _: &u64, _: pb::CreateGroupRequest) -> Result<pb::CreateGroupReply, Status> {
        Err(not_here())
    }

    async fn recall(&self, _: &u64, _: pb::RecallRequest) -> Result<pb::ChangeReply, Status> {
        Err(not_here())
    }

    async fn mark(&self, _: &u64, _: pb::MarkRequest) -> Result<pb::MarkReply, Status> {
        Err(not_here())
    }

    async fn change_group(&self, _: &u64, _: pb::ChangeGroupRequest) -> Result<pb::ChangeReply, Status> {
        Err(not_here())
    }

    async fn typing(&self, _: &u64, _: pb::TypingRequest) -> Result<pb::TypingReply, Status> {
        Err(not_here())
    }
}

fn not_here() -> Status {
    Status::new(Code::Denied, "not here")
}

/// A channel that ends in `dispatch`, as user 7.
struct Direct(Served);

impl Channel for Direct {
    async fn call(&self, method: &'static Method, _: CallOptions, body: Bytes) -> Result<Answer, Status> {
        let body = messages::dispatch(&self.0, &7, method.id, body).await?;
        Ok(Answer { body, cursor: None })
    }
}

#[test]
fn a_client_reaches_its_server() {
    let client = messages::Client(Direct(Served(RefCell::default())));
    let send =
        |to| run(client.send(CallOptions::default(), &pb::SendRequest { to, ..pb::SendRequest::default() }));
    assert_eq!(send(5).map(|reply| reply.server_time_ms), Ok(5));
    assert_eq!(send(0), Err(Status::new(Code::NotFound, "nobody has number 0")));
    assert_eq!(*client.0.0.0.borrow(), [7, 7]);
}

#[test]
fn what_is_no_call_of_the_service_is_refused() {
    let served = Served(RefCell::default());
    let dispatch =
        |method, body| run(messages::dispatch(&served, &7, method, body)).map_err(|status| status.code);
    assert_eq!(dispatch(echo::SAY.id, Bytes::new()), Err(Code::UnknownMethod));
    assert_eq!(dispatch(messages::SEND.id, Bytes::from_static(&[0xff])), Err(Code::Invalid));
    assert!(served.0.borrow().is_empty());
}

#[test]
fn a_reply_that_does_not_decode_is_the_callee_s_fault() {
    struct Broken;
    impl Channel for Broken {
        async fn call(&self, _: &'static Method, _: CallOptions, _: Bytes) -> Result<Answer, Status> {
            Ok(Answer { body: Bytes::from_static(&[0x0a]), cursor: None })
        }
    }
    let reply = run(echo::Client(Broken).say(CallOptions::default(), &pb::EchoRequest::default()));
    assert_eq!(reply.map_err(|status| status.code), Err(Code::Internal));
}

#[test]
fn the_table_finds_every_method_and_no_other() {
    let ids: Vec<u16> = services::METHODS.iter().map(|method| method.id).collect();
    assert!(ids.is_sorted() && ids.len() >= 9, "{ids:?}");
    for id in 0..=u16::MAX {
        assert_eq!(services::method(id).map(|method| method.id), ids.contains(&id).then_some(id));
    }
    assert!(services::METHODS.iter().all(|method| method.deadline_ms > 0));
    assert_eq!(services::account::LOG_IN.access, Access::Anonymous);
    assert_eq!(services::presence::REPORT.access, Access::Internal);
    assert_eq!(services::sync::METHODS, [&services::sync::PULL]);
}
