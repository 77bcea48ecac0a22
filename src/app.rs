//! Builds the house: the one place that names every concrete type, starts them in order and stops them in order.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{field, info, warn};

use self::{
    descriptors::Connections, login::StoreLogin, proofs::Followed, reload::Change, socket::SocketFile, store::OpenStore,
};
use crate::{
    api::{Api, Live},
    audit::{Audit, AuditError, Configured},
    broker::{Broker, Parts},
    cache::CacheConfig,
    clock::Clock,
    config::{Config, ConfigErrors},
    http,
    identity::Identity,
    limit::Limits,
    provider::Provider,
    server::{self, Listeners, Readiness, ServerConfig, ServerError, Tls},
    store::{StoreError, spool::Spool},
    telemetry::Telemetry,
    upstream::Upstream,
};

mod descriptors;
mod login;
mod proofs;
mod reload;
mod socket;
mod store;
mod upkeep;

/// How long the last audit records may take to be written, at the very end.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// The running service.
pub struct App {
    /// Where gRPC is served over TCP, if it is.
    pub grpc: Option<SocketAddr>,
    /// Where probes and metrics are served.
    pub admin: SocketAddr,
    broker: Broker,
    audit: Audit,
    shutdown_timeout: Duration,
    ready: watch::Sender<Readiness>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    upkeep: JoinHandle<()>,
    proofs: JoinHandle<()>,
    socket: Option<SocketFile>,
    change: Option<Change>,
    following: Option<JoinHandle<()>>,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be kept.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A listener cannot be served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] http::ClientError),
    /// TLS towards APIs cannot be set up.
    #[error("the HTTP client cannot be made: {0}")]
    Tls(#[from] http::TlsError),
    /// A server's task ended by itself.
    #[error("a server ended by itself")]
    Ended,
}

impl App {
    /// Starts the service. The listeners are bound first, and served once store and broker are there.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let telemetry = Arc::new(Telemetry::default());
        let connections = Connections::within_descriptors(&config);
        let identity = Identity::new(config.identity.config.clone())?;
        let mut followed = proofs::of_identity(&config.identity, &identity);
        // First, because a start that fails here should leave neither a key nor a database behind.
        let (listeners, socket) = listeners(&config, &mut followed).await?;
        let admin_listener = server::bind("server.admin_listen", config.server.admin_listen).await?;
        let ring = store::ring(&config.store, &config.seal)?;
        let opened = store::open(&config.store, ring.clone()).await?;
        let audit = Audit::start(&config.audit, opened.store().names(), Arc::clone(&telemetry))?;
        audit.configured(Configured::Started, Some(&config.digest));
        let grpc = listeners.tcp.as_ref().map(|(listener, _)| address(listener)).transpose()?;
        let admin = address(&admin_listener)?;
        let spool = store::spool(&config.store, &ring)?;
        let broker = Broker::start(parts(&config, &opened, spool.clone(), Arc::clone(&telemetry))?);
        let api = api(&config, &broker, &identity, &audit, &telemetry);

        let (ready, is_ready) = watch::channel(Readiness::Ready);
        let (stop, _) = watch::channel(false);
        let upkeep = tokio::spawn(upkeep::run(
            opened.clone(),
            audit.clone(),
            broker.clone(),
            Arc::clone(&telemetry),
            ready.clone(),
        ));
        let proofs = tokio::spawn(keep_identity(identity, followed));
        let stopped = || until(stop.subscribe());
        let counted = Arc::clone(&telemetry);
        let settings = settings(&config, connections);
        let serving = server::grpc(listeners, api.clone(), settings, counted, is_ready.clone(), stopped());
        let counted = Arc::clone(&telemetry);
        let probes = server::admin(admin_listener, connections.admin(&config), counted, is_ready, stopped());
        let servers = vec![tokio::spawn(serving), tokio::spawn(probes)];
        announce(grpc, config.server.unix_socket.as_deref(), admin);
        let shutdown_timeout = config.server.shutdown_timeout;
        let login = StoreLogin::new(opened.clone(), config.store.clone());
        let change = Some(Change { started: config, login, opened, ring, spool, api, audit: audit.clone(), telemetry });
        Ok(Self {
            grpc,
            admin,
            broker,
            audit,
            shutdown_timeout,
            ready,
            stop,
            servers,
            upkeep,
            proofs,
            socket,
            change,
            following: None,
        })
    }

    /// Puts changes of the configuration in force from here on: when one of its files changes, and at each `hangup`.
    /// `load` reads it as it was read for [`Self::start`]. To be called once; a second call changes nothing.
    pub fn follow(&mut self, load: impl Fn() -> Result<Config, ConfigErrors> + Send + Sync + 'static, hangup: Signal) {
        if let Some(change) = self.change.take() {
            self.following = Some(tokio::spawn(reload::follow(change, Arc::new(load), hangup)));
        }
    }

    /// Runs until `shutdown`, or until a server fails, and then ends: new work is refused, requests under way are
    /// answered, and refreshes that were dispatched are finished, all within the configured limit.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let failed = tokio::select! {
            () = shutdown => None,
            () = first_end(&mut self.servers) => Some(AppError::Ended),
        };
        self.stop().await;
        failed.map_or(Ok(()), Err)
    }

    /// Ends the service.
    pub async fn stop(self) {
        info!("stopping");
        self.ready.send_replace(Readiness::Stopping);
        let give_up = Instant::now() + self.shutdown_timeout;
        for task in [Some(self.upkeep), Some(self.proofs), self.following].into_iter().flatten() {
            task.abort();
            // Until it is gone it holds the store open; that it was aborted is no news.
            let _ = task.await;
        }
        drop(self.change);
        self.stop.send_replace(true);
        drop(self.socket);
        for mut server in self.servers {
            // What is left of the limit is for refreshes; a client that keeps its connection does not get all of it.
            let left = give_up.saturating_duration_since(Instant::now()) / 2;
            if timeout(left, &mut server).await.is_err() {
                warn!("some requests were not answered in time");
                // They end with it; what becomes of refreshes that they wait for is the broker's business.
                server.abort();
            }
        }
        if !self.broker.drain(give_up.saturating_duration_since(Instant::now())).await {
            warn!("some refreshes did not end in time");
        }
        if !self.audit.flush(LAST_RECORDS).await {
            warn!("the last audit records were not written in time");
        }
        info!("stopped");
    }
}

/// Where gRPC is served. Files that TLS is made of are added to those that are followed.
async fn listeners(config: &Config, followed: &mut Vec<Followed>) -> Result<(Listeners, Option<SocketFile>), AppError> {
    let tls = match &config.server.tls {
        Some(read) => {
            let tls = Tls::new(&proofs::tls_config(read)).map_err(ServerError::from)?;
            followed.push(proofs::of_tls(read, &tls));
            Some(tls)
        }
        None => None,
    };
    let tcp = match config.server.listen {
        Some(listen) => Some((server::bind("server.listen", listen).await?, tls)),
        None => None,
    };
    let (unix, file) = match &config.server.unix_socket {
        Some(path) => socket::bind(path).await.map(|(listener, file)| (Some(listener), Some(file)))?,
        None => (None, None),
    };
    Ok((Listeners { tcp, unix }, file))
}

fn settings(config: &Config, connections: Connections) -> ServerConfig {
    ServerConfig {
        reflection: config.server.reflection,
        max_message_bytes: config.server.max_message_bytes,
        max_connections: connections.grpc,
        max_connections_per_address: connections.grpc_per_address,
        max_connection_age: config.server.max_connection_age,
        max_concurrent_streams: config.server.max_concurrent_streams,
    }
}

fn announce(grpc: Option<SocketAddr>, socket: Option<&Path>, admin: SocketAddr) {
    let (grpc, socket) = (grpc.map(field::display), socket.map(|path| field::display(path.display())));
    info!(grpc, socket, %admin, "bearerd is ready");
}

async fn keep_identity(identity: Identity, followed: Vec<Followed>) {
    if let Some(kubernetes) = identity.kubernetes() {
        kubernetes.warm_up().await;
    }
    proofs::follow(followed).await;
}

fn address(listener: &tokio::net::TcpListener) -> Result<SocketAddr, ServerError> {
    listener.local_addr().map_err(|error| ServerError::Listener(error.to_string()))
}

async fn until(mut stop: watch::Receiver<bool>) {
    // The sender goes only with the app, which means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn first_end(servers: &mut Vec<JoinHandle<()>>) {
    let (_, at, _) = futures_util::future::select_all(servers.iter_mut()).await;
    servers.swap_remove(at);
}

/// The services, with what is in force at the start.
fn api(config: &Config, broker: &Broker, identity: &Identity, audit: &Audit, telemetry: &Arc<Telemetry>) -> Live {
    let limits = Limits::new(&config.limits);
    let (broker, identity, audit) = (broker.clone(), identity.clone(), audit.clone());
    Live::new(Api::new(broker, identity, config.policy(), limits, audit, Arc::clone(telemetry)))
}

fn parts(
    config: &Config,
    opened: &OpenStore,
    spool: Option<Spool>,
    telemetry: Arc<Telemetry>,
) -> Result<Parts, AppError> {
    let store = opened.store();
    let shared = store.is_shared();
    Ok(Parts {
        credentials: config.credentials.clone(),
        timing: config.refresh,
        cache: CacheConfig { max_tokens: config.cache.max_tokens, max_age: shared.then_some(config.cache.max_age) },
        provider: Arc::new(Provider::new(http::for_token_endpoints()?)),
        upstream: Upstream::new(http::for_upstreams()?),
        spool,
        telemetry,
        clock: Clock::default(),
        seed: rand::random(),
        store,
    })
}
