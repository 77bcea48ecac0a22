//! Takes connections and serves each on a task of its own, so that no peer, however slow or hostile, holds up another.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{debug, warn};

use super::{
    ServerConfig,
    connection::{Bytes, Connection, Silent},
    services::Services,
    serving::Serving,
    share::Shares,
    tls::Tls,
    unbegun::Total,
};
use crate::{
    identity::{Address, Peer, Remote},
    limit::Damper,
    telemetry::{ConnectionLabels, Telemetry},
};

/// How long a client may take for its handshake and its first words.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long requests may go on after their connection's time is over.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// How long to wait when the system has no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(500);

/// What all listeners and connections share.
#[derive(Clone)]
pub(super) struct Acceptor(Arc<Shared>);

struct Shared {
    services: Services,
    max_concurrent_streams: u32,
    unbegun: Total,
    max_age: Duration,
    slots: Arc<Semaphore>,
    shares: Shares,
    /// Half of the slots: those who have not begun to speak cannot keep out everybody else.
    beginners: Arc<Semaphore>,
    telemetry: Arc<Telemetry>,
    wrong_handshakes: Damper,
    tasks: TaskTracker,
    /// Asks all clients to go.
    stop: CancellationToken,
    /// Ends all connections, whatever is under way on them.
    cut: CancellationToken,
}

/// A connection before its handshake.
enum Accepted {
    Plain(TcpStream, SocketAddr),
    Encrypted(TcpStream, SocketAddr, Tls),
    Unix(UnixStream),
}

impl Accepted {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(_, address) | Self::Encrypted(_, address, _) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl Acceptor {
    pub fn new(services: Services, config: &ServerConfig, telemetry: Arc<Telemetry>) -> Self {
        Self(Arc::new(Shared {
            services,
            max_concurrent_streams: config.max_concurrent_streams,
            unbegun: Total::default(),
            max_age: config.max_connection_age,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            shares: Shares::new(config.max_connections_per_address),
            beginners: Arc::new(Semaphore::new(config.max_connections.div_ceil(2))),
            telemetry,
            wrong_handshakes: Damper::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        }))
    }

    /// Takes TCP connections for ever.
    pub async fn tcp(&self, listener: TcpListener, tls: Option<Tls>) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    // Without it small answers would wait for more to send; a connection that is gone does not care.
                    let _ = stream.set_nodelay(true);
                    self.take(match &tls {
                        Some(tls) => Accepted::Encrypted(stream, address, tls.clone()),
                        None => Accepted::Plain(stream, address),
                    });
                }
                Err(error) => not_accepted(&self.0.telemetry, &error).await,
            }
        }
    }

    /// Takes connections on a Unix-domain socket for ever.
    pub async fn unix(&self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.take(Accepted::Unix(stream)),
                Err(error) => not_accepted(&self.0.telemetry, &error).await,
            }
        }
    }

    /// Tells all clients to go, and waits until their requests are answered.
    pub async fn finish(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Ends all connections when the guard is dropped. They are tasks of their own, which go on when nobody waits for them.
    pub fn cut_when_dropped(&self) -> DropGuard {
        self.0.cut.clone().drop_guard()
    }

    fn take(&self, accepted: Accepted) {
        let Ok(slot) = Arc::clone(&self.0.slots).try_acquire_owned() else {
            self.0.refused("limit");
            return;
        };
        // Processes of this host that come through a socket have no address, and are counted all together only.
        let share = accepted.address().map(|address| self.0.shares.take(address.ip(), 1));
        if let Some(None) = share {
            self.0.refused("address");
            return;
        }
        let Ok(beginner) = Arc::clone(&self.0.beginners).try_acquire_owned() else {
            self.0.refused("handshakes");
            return;
        };
        let shared = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            shared.telemetry.connections.inc();
            shared.serve(accepted, beginner).await;
            shared.telemetry.connections.dec();
            drop((slot, share));
        });
    }
}

impl Shared {
    fn refused(&self, cause: &'static str) {
        self.telemetry.connections_refused.get_or_create(&ConnectionLabels { cause }).inc();
    }

    async fn serve(&self, accepted: Accepted, beginner: OwnedSemaphorePermit) {
        let limit = Instant::now() + HANDSHAKE;
        let address = accepted.address();
        let begun = tokio::select! {
            begun = timeout_at(limit, begin(accepted)) => begun,
            () = self.stop.cancelled() => return,
        };
        match begun {
            Ok(Ok((bytes, peer))) => {
                self.serve_begun(
                    bytes,
                    Remote { peer, address: address.map(Address::from) },
                    Silent::until(limit, beginner),
                )
                .await;
            }
            Ok(Err(error)) => {
                self.refused("handshake");
                // Scanners and probes hang up all the time, whereas a wrong certificate is somebody's mistake.
                let wrong = error.kind() == io::ErrorKind::InvalidData;
                match wrong.then(|| self.wrong_handshakes.line()).flatten() {
                    Some(left_out) => warn!(%error, left_out, "a handshake failed"),
                    None => debug!(%error, "a handshake failed"),
                }
            }
            Err(_) => {
                self.refused("timeout");
                debug!("a handshake took too long");
            }
        }
    }

    /// Serves a connection until it ends, or its time is over and its requests have had theirs.
    async fn serve_begun(&self, bytes: Box<dyn Bytes>, remote: Remote, silent: Silent) {
        let age = self.age(&remote.peer);
        let services = self.services.reached_from(remote);
        let connection = Connection::new(bytes, silent, self.cut.child_token());
        let mut serving = Serving::new(connection, services, self.max_concurrent_streams, self.unbegun.clone());
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = self.over(age) => {
                serving.no_more();
                timeout(GRACE, serving).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended");
        }
    }

    /// Waits until a connection that may last so long has to go.
    async fn over(&self, age: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(age) => {}
        }
    }

    /// How long a connection may last: not beyond its certificate, and not as long as all others that were made at the
    /// same moment.
    fn age(&self, peer: &Peer) -> Duration {
        let age = self.max_age.mul_f64(rand::random_range(0.9..=1.1));
        match peer {
            Peer::Certificate(svid) => {
                age.min(svid.not_after.duration_since(std::time::SystemTime::now()).unwrap_or_default())
            }
            Peer::Network(_) | Peer::Unix { .. } => age,
        }
    }
}

/// A connection that was gone before it was taken is no reason to wait. Without room for another one, trying again at once would
/// only burn the processor.
pub(super) async fn not_accepted(telemetry: &Telemetry, error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !gone.contains(&error.kind()) {
        warn!(%error, "no connection can be taken at the moment");
        telemetry.connections_refused.get_or_create(&ConnectionLabels { cause: "no_room" }).inc();
        sleep(NO_ROOM).await;
    }
}

/// Finds out who is at the other end.
async fn begin(accepted: Accepted) -> io::Result<(Box<dyn Bytes>, Peer)> {
    match accepted {
        Accepted::Plain(stream, address) => Ok((Box::new(stream), Peer::Network(address))),
        Accepted::Unix(stream) => {
            let uid = stream.peer_cred()?.uid();
            Ok((Box::new(stream), Peer::Unix { uid }))
        }
        Accepted::Encrypted(stream, address, tls) => {
            let (stream, svid) = tls.handshake(stream).await?;
            Ok((Box::new(stream), svid.map_or(Peer::Network(address), Peer::Certificate)))
        }
    }
}
