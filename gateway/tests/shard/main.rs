//! A real shard on loopback, with plain sockets for phones and a scripted backend.

mod addresses;
mod backend;
mod bad_input;
mod everybody;
mod phone;
mod streams;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use gateway::config::Limits;
use gateway::shard::counters::{Count, Counters};
use gateway::shard::{Command, RefusalLine, ShardConfig, ShardHandle, spawn};
use proto_wire::close::Reason;
use proto_wire_token::{Claims, IssuerKey, Verifier};

use backend::Backend;

/// Nothing here takes this long; it bounds a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shard, its backend and the key that its tokens are signed with.
struct Stage {
    shard: Option<ShardHandle>,
    listen: SocketAddr,
    counters: Arc<Counters>,
    refusals: Receiver<RefusalLine>,
    issuer: IssuerKey,
    backend: Backend,
}

const GATEWAY: u64 = 77;

impl Stage {
    fn new() -> Self {
        Self::with(Limits::default(), 100)
    }

    fn with(limits: Limits, max_connections: u32) -> Self {
        let issuer = IssuerKey::generate();
        let verifier = Verifier::from_pems(&[&issuer.public_pem()]).expect("a key");
        let backend = Backend::start();
        let counters = Arc::new(Counters::default());
        let (refusals, lines) = sync_channel(64);
        let shard = spawn(ShardConfig {
            index: 3,
            shards: 1,
            core: None,
            gateway: GATEWAY,
            max_connections,
            listen: "127.0.0.1:0".parse().expect("an address"),
            backends: vec![backend.addr],
            limits: Arc::new(limits),
            verifier: Arc::new(verifier),
            counters: Arc::clone(&counters),
            refusals,
            peers: Default::default(),
            seed: 1,
        })
        .expect("a shard starts");
        Self { listen: shard.listen, shard: Some(shard), counters, refusals: lines, issuer, backend }
    }

    fn token(&self, user: u64) -> String {
        self.issuer.mint(&Claims { user, home: 0, device: None, issued_s: 0, expires_s: u64::MAX / 2000 })
    }

    fn closed(&self, reason: Reason) -> u64 {
        let at = Reason::ALL.iter().position(|&other| other == reason).expect("listed");
        self.counters.closed[at].value()
    }

    fn stop(&mut self) {
        if let Some(shard) = self.shard.take() {
            shard.send(Command::Stop { grace_ms: 100 });
            shard.join();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `done`, within [`PATIENCE`].
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for(what: &str, count: &Count, value: u64) {
    wait_until(what, || count.value() == value);
}
