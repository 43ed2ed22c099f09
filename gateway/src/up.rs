//! `moorgate up`: gateway and reference backend in one process, talking over the real protocol on loopback.
//!
//! The only place of the gateway that knows the backend.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use backend_stub::config::BackendConfig;
use backend_stub::embedded;

use crate::cli::UpArgs;
use crate::config::Config;
use crate::control::keys;
use crate::control::serve::{self, Running};

/// Starts both, shows where they are, and runs until Ctrl-C.
pub fn run(args: &UpArgs) -> Result<()> {
    let mut config = Config::default();
    args.overrides.apply(&mut config);
    let backend = embedded::start(BackendConfig {
        listen: args.backend_listen,
        admin: Some(SocketAddr::from(([127, 0, 0, 1], args.backend_admin_port))),
        data: args.data.clone(),
        ..BackendConfig::default()
    })?;
    config.backends = vec![backend.listen];
    config.verify_key = args.data.join("keys/verify.pem");
    let ticket_key = args.data.join("keys/ticket.key");
    config.ticket_key = Some(ticket_key.clone());
    let served = keys::ensure(&ticket_key)
        .and_then(|()| config.check().map_err(Into::into))
        .and_then(|()| serve::run(config, |running| show(running, &backend, &args.data)));
    let stopped = backend.stop();
    served?;
    stopped.map_err(Into::into)
}

fn show(running: &Running, backend: &embedded::Embedded, data: &Path) {
    let data = std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let admin = backend.admin.map_or_else(|| "none".to_owned(), |addr| addr.to_string());
    println!("ready listen={} admin={}", running.listen, running.admin);
    println!(
        "
  Moorgate is up.

    phones connect to    {listen}
    gateway's status     http://{gateway_admin}/status   (and /metrics, /healthz, /readyz)
    backend's status     http://{admin}/status
    data and keys        {data}

  Try next, each in a terminal of its own:

    cargo run --release -p benches -- phone --user alice
    cargo run --release -p benches -- phone --user bob
    cargo run --release -p benches -- chat --clients 10000 --seconds 30

  Ctrl-C stops; the next `moorgate up` here finds everything again.
",
        listen = running.listen,
        gateway_admin = running.admin,
        data = data.display(),
    );
}
