//! The listeners: gRPC with health and reflection, over TLS, plain TCP and a Unix-domain socket, and HTTP for probes and
//! metrics.

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use self::{accept::Acceptor, services::Services};
use crate::{api::Live, telemetry::Telemetry};

pub use self::{
    admin::{ADMIN_CONNECTIONS, AdminConfig, admin},
    readiness::Readiness,
    tls::{ClientsConfig, Tls, TlsConfig, TlsError},
};

mod accept;
mod admin;
mod arriving;
mod connection;
mod frames;
mod readiness;
mod reflection;
mod room;
mod services;
mod serving;
mod share;
mod tls;
mod unbegun;
mod waiting;

/// What holds for all gRPC listeners.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Whether clients may ask for the services' descriptions.
    pub reflection: bool,
    /// The largest message that is taken, in bytes.
    pub max_message_bytes: usize,
    /// How many connections may be open at a time; more are closed at once.
    pub max_connections: usize,
    /// How many of them one address may have (of IPv6, one /64).
    pub max_connections_per_address: usize,
    /// How old a connection may become, give or take a tenth, before its client is told to make a new one.
    pub max_connection_age: Duration,
    /// How many requests one connection may have under way.
    pub max_concurrent_streams: u32,
}

/// Where gRPC is served.
pub struct Listeners {
    /// TCP, encrypted if there is TLS.
    pub tcp: Option<(TcpListener, Option<Tls>)>,
    /// A Unix-domain socket.
    pub unix: Option<UnixListener>,
}

/// A server that cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate, key or authority does not work.
    #[error("server.tls: {0}")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on, or no more.
    #[error("the listener broke: {0}")]
    Listener(String),
}

/// Serves gRPC until `shutdown`, and then until the requests under way are answered. If this is dropped before, those
/// requests end as if their clients had gone.
pub async fn grpc(
    listeners: Listeners,
    api: Live,
    config: ServerConfig,
    telemetry: Arc<Telemetry>,
    ready: watch::Receiver<Readiness>,
    shutdown: impl Future<Output = ()>,
) {
    let (services, following) = Services::new(api, &config, ready);
    let acceptor = Acceptor::new(services, &config, telemetry);
    let _cut = acceptor.cut_when_dropped();
    let tcp = async {
        match listeners.tcp {
            Some((listener, tls)) => acceptor.tcp(listener, tls).await,
            None => std::future::pending().await,
        }
    };
    let unix = async {
        match listeners.unix {
            Some(listener) => acceptor.unix(listener).await,
            None => std::future::pending().await,
        }
    };
    // What is dropped here takes the listeners with it, so that whoever comes late is refused at once.
    tokio::select! {
        () = shutdown => {}
        () = tcp => {}
        () = unix => {}
    }
    acceptor.finish().await;
    following.abort();
}

/// Binds an address.
///
/// # Errors
///
/// [`ServerError::Listener`], which names the setting.
pub async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|error| unbound(setting, &address.to_string(), &error))
}

/// The error for a place that cannot be listened on.
pub fn unbound(setting: &str, place: &str, error: &io::Error) -> ServerError {
    let remedies = [
        (ErrorKind::AddrInUse, "; end the process that listens there, or write another place"),
        (ErrorKind::AddrNotAvailable, "; write an address of this host"),
        (ErrorKind::PermissionDenied, "; a port below 1024, or a directory of others, needs a right for it"),
    ];
    let remedy = remedies.into_iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, remedy)| remedy);
    ServerError::Listener(format!("cannot listen on {setting} = \"{place}\": {error}{remedy}"))
}
