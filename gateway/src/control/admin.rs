//! Admin HTTP: metrics, status, health, drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::memory::bytes_by_state;
use super::metrics;
use super::serve::Running;

#[derive(Clone)]
struct Shared {
    running: Arc<Running>,
    drain: Sender<u64>,
}

pub fn router(running: Arc<Running>, drain: Sender<u64>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/status", get(show_status))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(is_ready))
        .route("/drain", post(start_drain))
        .with_state(Shared { running, drain })
}

async fn show_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], apart(shared, metrics::render).await)
}

async fn show_status(State(shared): State<Shared>) -> Json<Value> {
    Json(apart(shared, status).await)
}

/// Beside the control thread's own work: the kernel may take a second to count a million connections.
async fn apart<T: Default + Send + 'static>(shared: Shared, look: fn(&Running) -> T) -> T {
    tokio::task::spawn_blocking(move || look(&shared.running)).await.unwrap_or_default()
}

fn status(running: &Running) -> Value {
    let sum = |of: fn(&crate::shard::counters::Counters) -> u64| {
        running.counters.iter().map(|counters| of(counters)).sum::<u64>()
    };
    let connections = sum(|counters| counters.connections.value());
    let (live, anonymous) = (sum(|c| c.live.value()), sum(|c| c.anonymous.value()));
    let bytes: serde_json::Map<_, _> = bytes_by_state(&running.counters)
        .each()
        .map(|(state, n)| (state.to_owned(), n.into()))
        .into_iter()
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "gateway": format!("{:016x}", running.gateway),
        "uptime_seconds": running.started.elapsed().as_secs(),
        "listen": running.listen.to_string(),
        "admin": running.admin.to_string(),
        "backends": running.config.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "upstream_up": sum(|c| c.upstream_up.value()),
        "connections": connections,
        "sessions": {
            "hello": connections.saturating_sub(live + anonymous),
            "anonymous": anonymous,
            "live": live,
            "with_extra": sum(|c| c.with_extra.value()),
        },
        "queued_bytes": sum(|c| c.queued_bytes.value()),
        "partial_bytes": sum(|c| c.partial_bytes.value()),
        "calls_in_flight": sum(|c| c.calls_in_flight.value()),
        "resident_bytes": metrics::resident_bytes(),
        "bytes": bytes,
        "established_minus_sessions": running.unknown.established_minus_sessions(running),
        "shards": running.counters.iter().map(|c| c.connections.value()).collect::<Vec<_>>(),
    })
}

/// Ready when every shard has a backend and nobody drains it.
async fn is_ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.running.draining.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if shared.running.counters.iter().all(|counters| counters.upstream_up.value() > 0) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a shard has no backend\n")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    /// The time over which phones are told to go.
    #[serde(default = "a_minute")]
    over_ms: u64,
}

/// A drain takes at most a day.
const DRAIN_MS_MAX: u64 = 24 * 3600 * 1000;

fn a_minute() -> u64 {
    60_000
}

async fn start_drain(State(shared): State<Shared>, query: Query<DrainQuery>) -> (StatusCode, &'static str) {
    match shared.drain.try_send(query.over_ms.min(DRAIN_MS_MAX)) {
        Ok(()) => (StatusCode::ACCEPTED, "draining\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "a drain is being started already\n"),
    }
}
