//! HTTP for probes and metrics. Every client that reaches the port may ask, so a connection gets one request, a few seconds and a
//! small buffer, and an address gets a share of the connections.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::HttpBody,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Readiness, accept::not_accepted, share::Shares};
use crate::telemetry::{ConnectionLabels, Telemetry};

/// How many connections the admin port may have. A probe or a scraper needs one for some milliseconds.
pub const ADMIN_CONNECTIONS: usize = 128;

/// How long a client may take for its request line and header fields.
const HEADERS: Duration = Duration::from_secs(5);

/// How long a connection may last: a client that does not read its answer is cut off then.
const CONNECTION: Duration = Duration::from_secs(15);

/// How long an answer may take once bearerd stops.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The largest request line with its header fields, in bytes: the least that the HTTP library takes.
const BUFFER: usize = 8 * 1024;

/// What the admin port offers, and how many may ask at a time.
#[derive(Clone, Copy, Debug)]
pub struct AdminConfig {
    /// Whether `/metrics` is offered.
    pub metrics: bool,
    /// How many connections may be open. One address (of IPv6, one /64) may have a quarter.
    pub max_connections: usize,
}

/// Serves `/livez`, `/readyz` and, if it is offered, `/metrics` until `shutdown`.
pub async fn admin(
    listener: TcpListener,
    config: AdminConfig,
    telemetry: Arc<Telemetry>,
    ready: watch::Receiver<Readiness>,
    shutdown: impl Future<Output = ()>,
) {
    let router = router(config.metrics, Arc::clone(&telemetry), ready);
    let door = Door::new(config.max_connections, router, telemetry);
    let _cut = door.cut.clone().drop_guard();
    tokio::select! {
        () = shutdown => {}
        () = door.accept(&listener) => {}
    }
    drop(listener);
    door.finish().await;
}

fn router(metrics: bool, telemetry: Arc<Telemetry>, ready: watch::Receiver<Readiness>) -> Router {
    let router =
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz).with_state(ready));
    let router = if metrics {
        router.route("/metrics", get(move || async move { ([("content-type", METRICS)], telemetry.render()) }))
    } else {
        router
    };
    router.layer(from_fn(without_body))
}

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// No request has a body, so none is read.
async fn without_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        (StatusCode::PAYLOAD_TOO_LARGE, "requests to this port have no body\n").into_response()
    }
}

async fn readyz(State(ready): State<watch::Receiver<Readiness>>) -> (StatusCode, &'static str) {
    let ready = *ready.borrow();
    let status = if ready.serves() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, ready.text())
}

/// Takes connections within the limits.
struct Door {
    router: Router,
    slots: Arc<Semaphore>,
    shares: Shares,
    telemetry: Arc<Telemetry>,
    tasks: TaskTracker,
    /// bearerd stops.
    stop: CancellationToken,
    /// Ends all connections, whatever is under way on them.
    cut: CancellationToken,
}

impl Door {
    fn new(max_connections: usize, router: Router, telemetry: Arc<Telemetry>) -> Self {
        Self {
            router,
            slots: Arc::new(Semaphore::new(max_connections)),
            shares: Shares::new(max_connections.div_ceil(4)),
            telemetry,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let held = Arc::clone(&self.slots).try_acquire_owned().ok().zip(self.shares.take(address.ip(), 1));
                    match held {
                        Some(held) => {
                            let serving = serve(stream, self.router.clone(), self.stop.clone());
                            let cut = self.cut.clone();
                            self.tasks.spawn(async move {
                                cut.run_until_cancelled(serving).await;
                                drop(held);
                            });
                        }
                        None => self.refused(),
                    }
                }
                Err(error) => not_accepted(&self.telemetry, &error).await,
            }
        }
    }

    fn refused(&self) {
        self.telemetry.connections_refused.get_or_create(&ConnectionLabels { cause: "admin" }).inc();
    }

    async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Answers one request. A connection that breaks, or whose time is over, is no news.
async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(timeout(CONNECTION, connection));
    tokio::select! {
        _ = &mut connection => {}
        () = stop.cancelled() => {
            let _ = timeout(LAST_ANSWER, connection).await;
        }
    }
}
