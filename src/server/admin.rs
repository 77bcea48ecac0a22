//! HTTP for probes and metrics.

use std::{future::Future, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use super::ServerError;
use crate::telemetry::Telemetry;

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown`.
pub async fn admin(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    ready: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let metrics = move || async move { ([("content-type", METRICS)], telemetry.render()) };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(metrics));
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    serving.await.map_err(|error| ServerError::Listener(error.to_string()))
}

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store does not answer, or bearerd is stopping\n")
    }
}
