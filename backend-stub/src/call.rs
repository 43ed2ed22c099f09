//! `moorgate-backend call`: any method of any server from the command line, JSON in and out, by reflection.

use std::io::{self, Read as _, Write};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions, ServiceDescriptor};
use proto_wire::names::Route;
use proto_wire::pb;
use proto_wire::rpc::client::Address;
use proto_wire::rpc::header::Identity;
use proto_wire::rpc::method::{Access, CallOptions, Channel as _, Method};
use proto_wire::services::{FILE_DESCRIPTOR_SET, standing};
use proto_wire::status::Status;

use crate::clock::Clock;
use crate::rpc::client::{Client, ClientConfig, Transport};
use crate::rt::Executor;

/// A call, or the list of what can be called.
#[derive(Debug, Args)]
pub struct Call {
    /// Where the server listens: 127.0.0.1:7610 or unix:/run/echo.sock.
    #[arg(value_name = "ADDR")]
    addr: Address,
    /// Service and method, such as Echo.Say; without it, all of them are listed.
    #[arg(value_name = "SERVICE.METHOD")]
    method: Option<String>,
    /// The request as JSON; - reads it from the standard input. Bytes are base64.
    #[arg(value_name = "JSON", default_value = "{}")]
    json: String,
    /// How long the call may take [default: what its method says].
    #[arg(long, value_name = "MS", default_value_t = 0)]
    deadline_ms: u32,
    /// What carries the call: long, short or udp.
    #[arg(long, value_enum, default_value_t = Carrier::Long)]
    transport: Carrier,
    /// On behalf of this user's phone, as a gateway calls.
    #[arg(long, value_name = "USER")]
    user: Option<u64>,
    /// The phone.
    #[arg(long, value_name = "DEVICE", default_value_t = 1, requires = "user")]
    device: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Carrier {
    Long,
    Short,
    Udp,
}

/// Makes the call, or lists what can be called, and writes what came back.
pub fn run(call: Call, out: &mut impl Write) -> anyhow::Result<()> {
    let addr = call.addr.clone();
    let executor = Executor::start("call", None, move || async move { ask(call).await })?;
    let text = executor.join()?.with_context(|| format!("{addr}"))?;
    writeln!(out, "{text}")?;
    Ok(())
}

async fn ask(call: Call) -> anyhow::Result<String> {
    let clock = Clock::start();
    // The descriptors fit no datagram; and a short connection does not wait for a server that is not there.
    let reflected = standing::Client(client(&call, Transport::Short, clock)?)
        .reflect(CallOptions::default(), &pb::ReflectRequest {})
        .await
        .map_err(told)
        .context("it does not say what it serves")?;
    let mut pool = DescriptorPool::decode(reflected.descriptors).context("its descriptors cannot be read")?;
    // What stands in every server is not among the files of those that others made. Files that are there are passed over.
    pool.decode_file_descriptor_set(FILE_DESCRIPTOR_SET).context("its descriptors do not go with ours")?;
    let Some(name) = &call.method else { return Ok(list(&pool, &reflected.services)) };
    let descriptor = find(&pool, &reflected.services, name)?;
    let method = method_of(&pool, &descriptor)?;
    let body = encode(&descriptor, &call.json)?;
    let transport = match call.transport {
        Carrier::Long => Transport::Long,
        Carrier::Short => Transport::Short,
        Carrier::Udp => Transport::Udp,
    };
    let identity = call.user.map(|user| Identity { user, device: call.device, route: Route::default() });
    let options = CallOptions { deadline_ms: call.deadline_ms, identity, ..CallOptions::default() };
    let answer = client(&call, transport, clock)?.call(method, options, body).await.map_err(told)?;
    if method.one_way {
        return Ok("{}".to_owned());
    }
    decode(&descriptor, answer.body)
}

fn client(call: &Call, transport: Transport, clock: Clock) -> anyhow::Result<Client> {
    // A person waits, and tries again as they like.
    let config = ClientConfig {
        endpoints: vec![call.addr.to_string()],
        transport,
        max_attempts: 1,
        connect_timeout_ms: 1000,
        ..ClientConfig::default()
    };
    Ok(Client::with(config, clock)?)
}

fn told(status: Status) -> anyhow::Error {
    match status.retry_after_ms {
        0 => anyhow::anyhow!("{status}"),
        ms => anyhow::anyhow!("{status}; try again in {ms} ms"),
    }
}

/// A line for each method, as it is called.
fn list(pool: &DescriptorPool, served: &[String]) -> String {
    let mut lines = Vec::new();
    for service in pool.services().filter(|service| is_served(service, served)) {
        for method in service.methods() {
            lines.push(format!(
                "{}.{} ({}) -> {}",
                service.full_name(),
                method.name(),
                method.input().full_name(),
                method.output().full_name()
            ));
        }
    }
    lines.join("\n")
}

fn is_served(service: &ServiceDescriptor, served: &[String]) -> bool {
    served.iter().any(|name| name == service.full_name())
}

/// The method with this name: `Echo.Say`, `moorgate.Echo.Say` or `moorgate.Echo/Say`.
fn find(pool: &DescriptorPool, served: &[String], name: &str) -> anyhow::Result<MethodDescriptor> {
    let Some((service, method)) = name.rsplit_once(['.', '/']) else {
        bail!("{name:?} is not a service and a method, such as Echo.Say");
    };
    let mut named = pool
        .services()
        .filter(|known| is_served(known, served))
        .filter(|known| known.full_name() == service || known.name() == service);
    let Some(known) = named.next() else {
        bail!("it serves no {service}, but {}", served.join(", "));
    };
    if let Some(other) = named.next() {
        bail!("{service} is {} and {}: say which", known.full_name(), other.full_name());
    }
    known.methods().find(|known| known.name() == method).with_context(|| {
        let all: Vec<String> = known.methods().map(|method| method.name().to_owned()).collect();
        format!("{service} has no method {method}, but {}", all.join(", "))
    })
}

/// What its option says of it.
fn method_of(pool: &DescriptorPool, descriptor: &MethodDescriptor) -> anyhow::Result<&'static Method> {
    let options = descriptor.options();
    let extension = pool
        .get_extension_by_name("moorgate.method")
        .filter(|extension| options.has_extension(extension))
        .with_context(|| format!("{} has no option (moorgate.method)", descriptor.full_name()))?;
    let value = options.get_extension(&extension);
    let said = value.as_message().context("(moorgate.method) is no message")?;
    let number = |field| said.get_field_by_name(field).and_then(|value| value.as_u32()).unwrap_or(0);
    let flag = |field| said.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false);
    // One call a process: it lives as long as that.
    Ok(Box::leak(Box::new(Method {
        id: u16::try_from(number("id")).ok().filter(|id| *id > 0).context("its number is out of range")?,
        service: Box::leak(descriptor.parent_service().name().to_owned().into_boxed_str()),
        name: Box::leak(descriptor.name().to_owned().into_boxed_str()),
        deadline_ms: number("deadline_ms"),
        priority: u8::try_from(number("priority")).unwrap_or(u8::MAX),
        idempotent: flag("idempotent"),
        // The server decides who may call.
        access: Access::Internal,
        one_way: flag("one_way"),
    })))
}

fn encode(descriptor: &MethodDescriptor, json: &str) -> anyhow::Result<Bytes> {
    let mut text = json.to_owned();
    if json == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text).context("cannot read the standard input")?;
    }
    let input = descriptor.input();
    let mut json = serde_json::Deserializer::from_str(&text);
    let message = DynamicMessage::deserialize(input.clone(), &mut json)
        .and_then(|message| json.end().map(|()| message))
        .with_context(|| format!("the request is no {}", shape(&input)))?;
    Ok(message.encode_to_vec().into())
}

/// A message's name and its fields, for whoever got one wrong.
fn shape(message: &prost_reflect::MessageDescriptor) -> String {
    let fields: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    format!("{} {{ {} }}", message.full_name(), fields.join(", "))
}

fn decode(descriptor: &MethodDescriptor, body: Bytes) -> anyhow::Result<String> {
    let message = DynamicMessage::decode(descriptor.output(), body).context("the reply cannot be read")?;
    let mut text = Vec::new();
    let mut json = serde_json::Serializer::pretty(&mut text);
    message.serialize_with_options(&mut json, &SerializeOptions::new().skip_default_fields(false))?;
    Ok(String::from_utf8(text)?)
}
