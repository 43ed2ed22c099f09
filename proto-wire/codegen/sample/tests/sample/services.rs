//! What is generated of a service: methods, both kinds of servers and clients, reflection.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use crate::messages::full;
use codegen_sample::pb::everything::Nested;
use codegen_sample::pb::everything::nested::Deep;
use codegen_sample::pb::{Everything, Order, Outcome};
use codegen_sample::services::{self, kinds, nothing, trial};
use futures_lite::future::block_on;
use prost_reflect::{DescriptorPool, ReflectMessage};
use prost_types::Timestamp;
use proto_wire::bytes::Bytes;
use proto_wire::rpc::method::{Access, Answer, CallOptions, Channel, Dispatch, Method, Runner, Wait};
use proto_wire::status::{Code, Status};

/// What serves both ways, and notes what it was told to forget.
#[derive(Default)]
struct Both {
    forgotten: RefCell<Vec<String>>,
}

/// Where in the chain a call is: what a context is for.
struct Depth(u32);

impl Both {
    fn deep(&self, depth: &Depth, request: Nested) -> Result<Deep, Status> {
        let text = format!("{} at {}", request.number, depth.0);
        request.deep.map(|deep| Deep { text, ..deep }).ok_or_else(|| Status::invalid("not deep"))
    }
}

impl kinds::Server<Depth> for Both {
    async fn give(&self, _: &Depth, request: Everything) -> Result<Everything, Status> {
        Ok(request)
    }

    async fn forget(&self, _: &Depth, request: Everything) -> Result<(), Status> {
        self.forgotten.borrow_mut().push(request.a_string);
        Ok(())
    }

    async fn now(&self, _: &Depth, (): ()) -> Result<Timestamp, Status> {
        Ok(Timestamp { seconds: 5, nanos: 0 })
    }

    async fn r#type(&self, depth: &Depth, request: Nested) -> Result<Deep, Status> {
        self.deep(depth, request)
    }
}

impl kinds::SyncServer<Depth> for Both {
    fn give(&self, _: &Depth, request: Everything) -> Result<Everything, Status> {
        Ok(request)
    }

    fn forget(&self, _: &Depth, request: Everything) -> Result<(), Status> {
        self.forgotten.borrow_mut().push(request.a_string);
        Ok(())
    }

    fn now(&self, _: &Depth, (): ()) -> Result<Timestamp, Status> {
        Ok(Timestamp { seconds: 5, nanos: 0 })
    }

    fn r#type(&self, depth: &Depth, request: Nested) -> Result<Deep, Status> {
        self.deep(depth, request)
    }
}

struct Trial;

impl trial::Server<Depth> for Trial {
    async fn r#do(&self, _: &Depth, order: Order) -> Result<Outcome, Status> {
        Ok(Outcome { payload: order.payload, number: order.number })
    }
}

/// Runs handlers in place.
struct InPlace;

impl Runner for InPlace {
    async fn run<T: 'static>(
        &self,
        _: &'static Method,
        handler: impl FnOnce() -> Result<T, Status> + 'static,
    ) -> Result<T, Status> {
        handler()
    }
}

impl Wait for InPlace {
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Status> {
        Ok(block_on(future))
    }
}

/// Calls what is served in the same process.
struct Local<D>(D);

impl<D: Dispatch<Depth>> Channel for Local<D> {
    async fn call(&self, method: &'static Method, _: CallOptions, body: Bytes) -> Result<Answer, Status> {
        let body = self.0.dispatch(&Rc::new(Depth(3)), method.id, body).await?;
        Ok(Answer { body, cursor: None })
    }
}

fn try_all(channel: impl Channel) {
    let client = kinds::SyncClient::new(channel, InPlace);
    let options = CallOptions::default;
    let sent = full(None);
    assert_eq!(client.give(options(), &sent), Ok(sent.clone()));
    assert_eq!(client.forget(options(), &sent), Ok(()));
    assert_eq!(client.now(options(), &()).map(|at| at.seconds), Ok(5));
    assert_eq!(
        client.r#type(options(), &crate::messages::nested(4)).map(|deep| deep.text),
        Ok("4 at 3".into())
    );
    let refused = client.r#type(options(), &Nested::default());
    assert_eq!(refused.map_err(|status| status.code), Err(Code::Invalid));
}

#[test]
fn async_and_synchronous_twins_are_called_by_both_clients() {
    try_all(Local(kinds::AsyncService(Both::default())));
    try_all(Local(kinds::SyncService::new(Both::default(), InPlace)));
    let client = kinds::Client(Local(kinds::SyncService::new(Both::default(), InPlace)));
    assert_eq!(block_on(client.now(CallOptions::default(), &())).map(|at| at.seconds), Ok(5));
}

#[test]
fn services_of_both_kinds_stand_side_by_side() {
    let both = (kinds::SyncService::new(Both::default(), InPlace), trial::AsyncService(Trial));
    let channel = Local(both);
    try_all(&channel);
    let order = Order { number: 6, ..Order::default() };
    let outcome = block_on(trial::Client(&channel).r#do(CallOptions::default(), &order));
    assert_eq!(outcome.map(|outcome| outcome.number), Ok(6));
    assert_eq!(channel.0.method(0x7101), Some(&trial::DO));
    assert_eq!(channel.0.method(0x7000), None);
    let code = |id, body: &'static [u8]| {
        let ctx = Rc::new(Depth(0));
        let call = channel.0.dispatch(&ctx, id, Bytes::from_static(body));
        block_on(call).map_err(|status| status.code)
    };
    assert_eq!(code(0x7000, b""), Err(Code::UnknownMethod));
    assert_eq!(code(0x7001, b"\x0f"), Err(Code::Invalid));
    assert_eq!(code(0x7101, b"\x0f"), Err(Code::Invalid));
}

#[test]
fn methods_say_what_their_options_say() {
    let ids: Vec<u16> = services::METHODS.iter().map(|method| method.id).collect();
    assert_eq!(ids, [0x7001, 0x7002, 0x7003, 0x7004, 0x7101]);
    assert_eq!(services::method(0x7002), Some(&kinds::FORGET));
    assert_eq!(services::method(0x7005), None);
    assert_eq!(services::method(0xffff), None);
    assert!(kinds::GIVE.idempotent && kinds::FORGET.one_way && !kinds::FORGET.idempotent);
    assert_eq!((kinds::FORGET.priority, kinds::FORGET.deadline_ms), (9, 1000));
    assert_eq!((kinds::NOW.access, kinds::TYPE.access), (Access::Phone, Access::Anonymous));
    assert!(nothing::METHODS.is_empty());
}

#[test]
fn descriptors_hold_all_files_and_the_options() {
    let pool = DescriptorPool::decode(services::FILE_DESCRIPTOR_SET).expect("a set of descriptors");
    for file in ["kinds.proto", "trial.proto", "moorgate/options.proto", "google/protobuf/timestamp.proto"] {
        assert!(pool.get_file_by_name(file).is_some(), "{file}");
    }
    assert!(pool.files().all(|file| file.file_descriptor_proto().source_code_info.is_none()));
    let service = pool.get_service_by_name("sample.Kinds").expect("it is there");
    let method = service.methods().next().expect("it has four");
    let extension = pool.get_extension_by_name("moorgate.method").expect("ours");
    let options = method.options();
    let value = options.get_extension(&extension);
    let said = value.as_message().expect("a message");
    assert_eq!(said.descriptor().full_name(), "moorgate.Method");
    assert_eq!(said.get_field_by_name("id").and_then(|id| id.as_u32()), Some(0x7001));
}

#[test]
fn the_lock_file_has_all_methods() {
    let locked = include_str!("../../proto/methods.lock");
    for line in ["0x7001 sample.Kinds.Give", "0x7004 sample.Kinds.Type", "0x7101 sample.Trial.Do"] {
        assert!(locked.lines().any(|locked| locked == line), "{line}\nis not in\n{locked}");
    }
}
