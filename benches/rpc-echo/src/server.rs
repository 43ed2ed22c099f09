//! The echo server, as a backend team writes one: handlers, and a thread that serves them.

use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use backend_stub::clock::Clock;
use backend_stub::co::{Pool, PoolConfig, all, wait_all};
use backend_stub::rpc::client::Client;
use backend_stub::rpc::standing::Facts;
use backend_stub::rpc::udp::UdpServer;
use backend_stub::rpc::{Call, Host, Server, Service};
use backend_stub::rt::{Executor, Inbox, Listener, Waker};
use backend_stub::stats::Stats;
use proto_wire::rpc::method::CallOptions;
use proto_wire::status::{Code, Status};

use crate::services::{self, echo};
use crate::{pb, ready, until_stdin_ends};

/// Those whom one call of `Gather` asks.
pub const LEAVES: usize = 8;

/// What calls in flight have to end in, at a stop.
const GRACE_MS: u64 = 1_000;

/// How a server serves.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Answers what `Gather` asks.
    pub leaf: Option<SocketAddr>,
    pub on_coroutines: bool,
    /// On the port of the TCP socket.
    pub over_udp: bool,
}

/// Serves on a thread of its own, with the counts of each method that every server keeps.
pub fn serve(core: usize, how: How) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(told)?;
    let addr = listener.addr();
    let accepted = listener.start().map_err(told)?;
    let stop = Waker::default();
    let until = stop.clone();
    let executor = Executor::start("echo", Some(core), move || async move {
        let clock = Clock::start();
        let udp = how.over_udp.then_some(addr);
        let echo = Echo { leaf: how.leaf.map(|leaf| echo::Client(Client::new(leaf, clock))) };
        if how.on_coroutines {
            let pool = Pool::new(&PoolConfig::default()).map_err(|error| error.to_string())?;
            run(Host(echo::SyncService::new(echo, pool)), clock, accepted, udp, &until).await
        } else {
            run(Host(echo::AsyncService(echo)), clock, accepted, udp, &until).await
        }
    })
    .map_err(|error| error.to_string())?;
    ready(addr);
    until_stdin_ends();
    listener.close();
    stop.raise();
    executor.join().map_err(|error| error.to_string())?
}

async fn run(
    service: impl Service,
    clock: Clock,
    accepted: Inbox<TcpStream>,
    udp: Option<SocketAddr>,
    stop: &Waker,
) -> Result<(), String> {
    let (service, stats) = (Rc::new(service), Arc::new(Stats::of(services::METHODS)));
    let bind = |addr| UdpServer::bind(addr, service.clone(), Facts::new(clock), stats.clone(), clock);
    let udp = udp.map(bind).transpose().map_err(|error| error.to_string())?;
    let server = Server::new(service.clone(), stats.clone(), clock);
    server.serve(accepted, stop).await;
    udp.iter().for_each(|udp| udp.close());
    server.close(GRACE_MS).await;
    Ok(())
}

struct Echo {
    leaf: Option<echo::Client<Client>>,
}

impl Echo {
    fn leaf(&self) -> Result<&echo::Client<Client>, Status> {
        self.leaf.as_ref().ok_or_else(|| Status::new(Code::Unavailable, "no --leaf was given"))
    }
}

/// The handlers as async functions.
impl echo::Server<Call> for Echo {
    async fn say(&self, _: &Call, request: pb::SayRequest) -> Result<pb::SayReply, Status> {
        Ok(pb::SayReply { payload: request.payload })
    }

    async fn gather(&self, _: &Call, request: pb::SayRequest) -> Result<pb::SayReply, Status> {
        let leaf = self.leaf()?;
        last(all((0..LEAVES).map(|_| leaf.say(CallOptions::default(), &request))).await)
    }
}

/// The same as plain functions, each call on a coroutine of its own.
impl echo::SyncServer<Call> for Echo {
    fn say(&self, _: &Call, request: pb::SayRequest) -> Result<pb::SayReply, Status> {
        Ok(pb::SayReply { payload: request.payload })
    }

    fn gather(&self, _: &Call, request: pb::SayRequest) -> Result<pb::SayReply, Status> {
        let leaf = self.leaf()?;
        last(wait_all((0..LEAVES).map(|_| leaf.say(CallOptions::default(), &request))))
    }
}

fn last(replies: Vec<Result<pb::SayReply, Status>>) -> Result<pb::SayReply, Status> {
    replies.into_iter().try_fold(pb::SayReply::default(), |_, reply| reply)
}
