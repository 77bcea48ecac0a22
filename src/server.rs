//! The listeners: gRPC with health and reflection, and HTTP for probes and metrics.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api::Live,
    proto::{self, grant_admin_server::GrantAdminServer, token_service_server::TokenServiceServer},
    secret::{ExposeSecret, SecretString},
    telemetry::Telemetry,
};

/// What the listeners are made of.
pub struct ServerConfig {
    /// Certificate chain and private key, both PEM; without them gRPC is plaintext.
    pub tls: Option<(String, SecretString)>,
    /// Whether clients may ask for the services' descriptions.
    pub reflection: bool,
    /// The largest message that is taken, in bytes.
    pub max_message_bytes: usize,
}

/// Streams that one connection may have open: tonic sets no limit of its own.
const MAX_STREAMS: u32 = 1024;

/// How long a peer may keep a connection silent before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A server that cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate or key does not work.
    #[error("server.tls: {0}")]
    Tls(String),
    /// The descriptions for reflection do not fit together.
    #[error("reflection: {0}")]
    Reflection(String),
    /// The listener broke.
    #[error("the listener broke: {0}")]
    Listener(String),
}

/// Serves gRPC until `shutdown`, and then until the requests under way are answered.
pub async fn grpc(
    listener: TcpListener,
    api: Live,
    config: ServerConfig,
    ready: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let mut server = Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .tcp_nodelay(true);
    if let Some((certificate, key)) = &config.tls {
        let identity = Identity::from_pem(certificate, key.expose_secret());
        let tls = ServerTlsConfig::new().identity(identity);
        server = server.tls_config(tls).map_err(|error| ServerError::Tls(error.to_string()))?;
    }
    let (reporter, health) = tonic_health::server::health_reporter();
    let following = tokio::spawn(follow(reporter, ready));
    let limit = config.max_message_bytes;
    let served = server
        .add_service(health)
        .add_optional_service(config.reflection.then(reflection).transpose()?)
        .add_optional_service(config.reflection.then(reflection_before_v1).transpose()?)
        .add_service(GrantAdminServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(TokenServiceServer::new(api).max_decoding_message_size(limit))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await;
    following.abort();
    served.map_err(|error| ServerError::Listener(error.to_string()))
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    ServerError,
> {
    descriptions().build_v1().map_err(|error| ServerError::Reflection(error.to_string()))
}

/// Older tools know the protocol from before its first version only.
fn reflection_before_v1() -> Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<impl tonic_reflection::server::v1alpha::ServerReflection>,
    ServerError,
> {
    descriptions().build_v1alpha().map_err(|error| ServerError::Reflection(error.to_string()))
}

fn descriptions() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Health follows readiness, per service and for the whole.
async fn follow(reporter: HealthReporter, mut ready: watch::Receiver<bool>) {
    loop {
        let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "bearerd.v1.TokenService", "bearerd.v1.GrantAdmin"] {
            reporter.set_service_status(service, status).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}

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

/// Binds an address; the error names it.
pub async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| ServerError::Listener(format!("{setting} = \"{address}\": {error}")))
}
