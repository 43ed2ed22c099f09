//! Starts the shards, runs the control thread, stops everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gateway_ring::{
    ListenError, ListenOptions, available_cores, keep_current_thread_on, listener, map_large_blocks_apart,
    probe,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tuning::{Host, Need, Role, Severity};

use super::keys::KeySource;
use super::memory::Unknown;
use super::{admin, log};
use crate::config::Config;
use crate::limits;
use crate::shard::counters::Counters;
use crate::shard::{Command, Peers, ShardConfig, ShardHandle, spawn};

/// A gateway that runs.
pub struct Running {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub gateway: u64,
    pub started: Instant,
    pub shards: Vec<ShardHandle>,
    pub counters: Vec<Arc<Counters>>,
    pub config: Config,
    pub keys: KeySource,
    pub unknown: Unknown,
    /// Phones are asked to go elsewhere.
    pub draining: AtomicBool,
}

/// Runs a gateway until it is told to stop. `ready` is called once it accepts.
pub fn run(config: Config, ready: impl FnOnce(&Running)) -> Result<()> {
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    control.block_on(async {
        let admin_listener = bind_admin(config.admin).await?;
        let admin_addr = admin_listener.local_addr()?;
        let running = Arc::new(start(config, admin_addr)?);
        let (drain, mut drains) = tokio::sync::mpsc::channel(8);
        let app = admin::router(Arc::clone(&running), drain);
        let server = tokio::spawn(async move { axum::serve(admin_listener, app).await });
        ready(&running);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut watch = tokio::time::interval(std::time::Duration::from_secs(1));
        let outcome = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                _ = hangup.recv() => reload(&running),
                Some(over_ms) = drains.recv() => {
                    running.draining.store(true, Ordering::Relaxed);
                    command_all(&running, || Command::Drain { over_ms });
                }
                _ = watch.tick() => {
                    if running.shards.iter().any(ShardHandle::has_ended) {
                        break Err(anyhow::anyhow!("a shard ended by itself; see the log above"));
                    }
                }
            }
        };
        tracing::info!("stopping");
        let grace_ms = running.config.grace_ms;
        command_all(&running, || Command::Stop { grace_ms });
        server.abort();
        tokio::select! {
            ended = wait_for_shards(&running, grace_ms) => outcome.and(ended),
            _ = interrupt.recv() => bail!("stopped at once, at the second interrupt"),
        }
    })
}

async fn wait_for_shards(running: &Running, grace_ms: u64) -> Result<()> {
    let until = Instant::now() + std::time::Duration::from_millis(grace_ms + 3_000);
    while Instant::now() < until && !running.shards.iter().all(ShardHandle::has_ended) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let stuck = running.shards.iter().filter(|shard| !shard.has_ended()).count();
    if stuck > 0 {
        bail!("{stuck} shards did not end in time");
    }
    Ok(())
}

async fn bind_admin(addr: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!(
            "cannot listen on {addr} for --admin; see who has it with: ss -ltnp 'sport = :{}'",
            addr.port()
        )
    })
}

fn start(config: Config, admin: SocketAddr) -> Result<Running> {
    probe()?;
    if !config.cores.is_empty() {
        // All threads, so that what the operator gave to others stays theirs. Shards pin themselves to one each.
        keep_current_thread_on(&config.cores)?;
    }
    map_large_blocks_apart(limits::MAPPED_APART_BYTES);
    let descriptors = tuning::raise_descriptor_limit().unwrap_or(1024);
    let cores = if config.cores.is_empty() { available_cores() } else { config.cores.clone() };
    let connections = config.max_connections as u64;
    let count = tuning::shards_for(connections, cores.len() as u64, descriptors);
    report_findings(&config)?;
    let keys = KeySource::new(&config.verify_key, config.ticket_key.as_deref())?;
    let verifier = keys.read()?;
    // Shards share the port, so a gateway that runs already would share it too: see first that it is free.
    await_port(config.listen)?;
    let gateway = random()?;
    let limits = Arc::new(config.limits.clone());
    let (refusals, lines) = sync_channel(limits::REFUSALS_WAITING_MAX);
    std::thread::Builder::new().name("refusals".into()).spawn(move || log::write_refusals(&lines))?;
    let (mut shards, mut counters) = (Vec::new(), Vec::new());
    let peers = Peers::default();
    let mut listen = config.listen;
    for index in 0..count {
        let counted = Arc::new(Counters::default());
        let shard = spawn(ShardConfig {
            index: index as u16,
            shards: count as u16,
            core: Some(cores[index as usize % cores.len()]),
            gateway,
            max_connections: (connections * 105).div_ceil(100 * count) as u32,
            listen,
            backends: config.backends.clone(),
            limits: Arc::clone(&limits),
            verifier: Arc::clone(&verifier),
            counters: Arc::clone(&counted),
            refusals: refusals.clone(),
            peers: Arc::clone(&peers),
            seed: random()?,
        })
        .inspect_err(|_| stop_all(&shards))?;
        listen = shard.listen;
        shards.push(shard);
        counters.push(counted);
    }
    // The first and only time.
    let _ = peers.set(shards.iter().map(|shard| shard.mailbox.clone()).collect());
    let draining = AtomicBool::new(false);
    Ok(Running {
        listen,
        admin,
        gateway,
        started: Instant::now(),
        shards,
        counters,
        config,
        keys,
        unknown: Unknown::default(),
        draining,
    })
}

/// A gateway that was killed holds its port for a while after its process is gone: the kernel ends its rings, and with
/// them what they had armed, on a worker of its own. Whoever starts it again at once must not be sent away for that.
fn await_port(listen: SocketAddr) -> Result<()> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match listener(listen, &ListenOptions::default()) {
            Ok(free) => {
                drop(free);
                return Ok(());
            }
            Err(ListenError::InUse { .. }) if may_wait(listen.port(), began, &mut is_told) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn may_wait(port: u16, began: Instant, is_told: &mut bool) -> bool {
    let waited_ms = began.elapsed().as_millis() as u64;
    if waited_ms < limits::PORT_HELD_MS {
        return true;
    }
    let goes_on = waited_ms < limits::PORT_ORPHANED_MS && tuning::is_orphaned(port);
    if goes_on && !std::mem::replace(is_told, true) {
        tracing::info!(port, "waiting: the kernel still ends the connections of a gateway that was killed");
    }
    goes_on
}

/// One shard could not start: those that did end too.
fn stop_all(shards: &[ShardHandle]) {
    for shard in shards {
        shard.send(Command::Stop { grace_ms: 0 });
    }
}

/// Says what will not fit, before it does not.
fn report_findings(config: &Config) -> Result<()> {
    let mut need = Need::new(Role::Gateway, config.max_connections as u64);
    need.listen_port = Some(config.listen.port()).filter(|&port| port != 0);
    for finding in tuning::check(&Host::read(), &need) {
        match finding.severity {
            Severity::Fatal => bail!("{finding}"),
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Note => tracing::debug!("{finding}"),
        }
    }
    Ok(())
}

/// Keys that cannot be read leave the old ones in place.
fn reload(running: &Running) {
    match running.keys.read() {
        Ok(keys) => {
            command_all(running, || Command::ReloadKeys(Arc::clone(&keys)));
            tracing::info!("the keys were read again");
        }
        Err(error) => tracing::error!("the keys stay as they were: {error:#}"),
    }
}

fn command_all(running: &Running, command: impl Fn() -> Command) {
    for (index, shard) in running.shards.iter().enumerate() {
        if !shard.send(command()) {
            tracing::error!(shard = index, "a command did not reach the shard");
        }
    }
}

fn random() -> Result<u64> {
    let random =
        getrandom::u64().map_err(|error| anyhow::anyhow!("the kernel gives no random numbers: {error}"))?;
    Ok(random.max(1))
}
