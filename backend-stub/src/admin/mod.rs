//! Metrics, status, health and readiness, on a small thread of their own.

mod metrics;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, process};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::oneshot;

use prost::Message as _;
use proto_wire::limits::MAX_SKIPPABLE_BODY_BYTES;
use proto_wire::pb;

use crate::clock::Clock;
use crate::rt::InboxSender;
use crate::stats::Stats;

/// The loop comes round every half second at least. Silent for this long it is stuck.
const STUCK_AFTER_MS: u64 = 5_000;

/// Why there is no admin port.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {addr} for the admin port: {cause}; `ss -ltnp` shows who has it, --admin takes another"
)]
pub struct AdminError {
    addr: SocketAddr,
    cause: io::Error,
}

/// What the pages show.
#[derive(Clone)]
pub struct Shown {
    pub stats: Arc<Stats>,
    pub clock: Clock,
    pub listen: SocketAddr,
    pub backend: u64,
}

/// A notice for all phones.
pub struct Announce {
    /// An encoded `Notice`.
    pub notice: Bytes,
    /// Takes how many gateways hand it out.
    pub gateways: oneshot::Sender<usize>,
}

/// The admin server.
pub struct Admin {
    addr: SocketAddr,
    is_ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Page {
    shown: Shown,
    is_ready: Arc<AtomicBool>,
    announce: InboxSender<Announce>,
}

impl Admin {
    pub fn start(
        addr: SocketAddr,
        shown: Shown,
        announce: InboxSender<Announce>,
    ) -> Result<Self, AdminError> {
        let failed = |cause| AdminError { addr, cause };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let is_ready = Arc::new(AtomicBool::new(false));
        let page = Page { shown, is_ready: is_ready.clone(), announce };
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed)?;
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(serve(listener, page, stopped)))
            .map_err(failed)?;
        Ok(Self { addr: bound, is_ready, stop, thread })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set_ready(&mut self) {
        self.is_ready.store(true, Ordering::Release);
    }

    pub fn stop(self) {
        drop(self.stop);
        // A panic there has been printed; nothing hangs on it.
        let _ = self.thread.join();
    }
}

async fn serve(listener: TcpListener, page: Page, stopped: oneshot::Receiver<()>) {
    let router = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/status", get(status))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/broadcast", post(broadcast))
        .with_state(page);
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the admin port is lost: {error}"),
    };
    // Pages are short: what is being answered when the stop comes may be cut off.
    tokio::select! {
        served = axum::serve(listener, router) => {
            if let Err(error) = served {
                tracing::error!("the admin port is lost: {error}");
            }
        }
        _ = stopped => {}
    }
}

async fn metrics_page(State(page): State<Page>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::render(&page.shown.stats))
}

async fn status(State(page): State<Page>) -> Json<Value> {
    let Shown { stats, clock, listen, backend } = &page.shown;
    let (core, store) = stats.published();
    Json(json!({
        "pid": process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "backend": format!("{backend:016x}"),
        "listen": listen.to_string(),
        "ready": page.is_ready.load(Ordering::Acquire),
        "uptime_ms": clock.now_ms(),
        "connections": stats.connections.value(),
        "calls": stats.methods.iter().map(|method| method.calls()).sum::<u64>(),
        "users": core.users,
        "online": core.online,
        "duties": core.duties,
        "sent": core.sent,
        "delivered": core.delivered,
        "dead_letters": core.dead_letters,
        "disk_is_full": store.is_full,
        "commits_wait": store.waited.now,
    }))
}

async fn healthz(State(page): State<Page>) -> (StatusCode, &'static str) {
    let silent_ms = page.shown.clock.now_ms().saturating_sub(page.shown.stats.beat_ms.value());
    if silent_ms < STUCK_AFTER_MS {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the loop is stuck\n")
    }
}

async fn readyz(State(page): State<Page>) -> (StatusCode, &'static str) {
    if page.is_ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

/// The body is the text of an announcement for everybody who is connected.
async fn broadcast(State(page): State<Page>, body: Bytes) -> Result<Json<Value>, (StatusCode, String)> {
    let text = String::from_utf8(body.into())
        .map_err(|_| (StatusCode::BAD_REQUEST, "the text is not UTF-8\n".to_owned()))?;
    let what = pb::notice::What::Announcement(pb::Announcement { text });
    let notice = pb::Notice { what: Some(what) }.encode_to_vec();
    if notice.len() > MAX_SKIPPABLE_BODY_BYTES {
        let told = format!("a notice has at most {MAX_SKIPPABLE_BODY_BYTES} bytes\n");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, told));
    }
    let (gateways, called) = oneshot::channel();
    page.announce.put(Announce { notice: notice.into(), gateways });
    let gone = |_| (StatusCode::SERVICE_UNAVAILABLE, "the backend stops\n".to_owned());
    Ok(Json(json!({ "gateways": called.await.map_err(gone)? })))
}
