//! Makes connections to single servers: encryption, login, and a look at who answers.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::timeout,
};

use super::{
    address::{Endpoint, Kind},
    checkup::{self, Unfit},
    durable::Durability,
};

/// How long it may take until a connection to one server is made. Where several are asked, one of them may be gone
/// without a trace, and the others' answers wait for it.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What servers send unasked, and where it goes.
pub(super) type Pushes = UnboundedReceiver<PushInfo>;
pub(super) type Pusher = UnboundedSender<PushInfo>;

/// How to get in touch with the servers of one kind.
#[derive(Clone)]
pub(super) struct Contact {
    login: Arc<ArcSwap<RedisConnectionInfo>>,
    encrypted: bool,
    ca: Option<String>,
    durability: Option<Durability>,
}

impl Contact {
    /// RESP3, because events come as pushes on the same connection. The client does not introduce itself: it would need
    /// a right of its own for that.
    pub(super) fn new(login: RedisConnectionInfo, encrypted: bool, ca: Option<String>) -> Self {
        Self { login: Arc::new(ArcSwap::from_pointee(speaking(login))), encrypted, ca, durability: None }
    }

    /// From here on new connections log in like this. Tells whether that is another login.
    pub(super) fn log_in_as(&self, login: RedisConnectionInfo) -> bool {
        let login = Arc::new(speaking(login));
        let before = self.login.swap(Arc::clone(&login));
        (before.username(), before.password()) != (login.username(), login.password())
    }

    /// What logs in anew on a connection that is open; `None` where there is no password.
    pub(super) fn authentication(&self) -> Option<Cmd> {
        let login = self.login.load();
        let mut command = redis::cmd("AUTH");
        if let Some(username) = login.username() {
            command.arg(username);
        }
        command.arg(login.password()?);
        Some(command)
    }

    /// The same for servers whose durable writes must come this far.
    pub(super) fn with(self, durability: Option<Durability>) -> Self {
        Self { durability, ..self }
    }

    /// How far durable writes must come.
    pub(super) fn durability(&self) -> Option<Durability> {
        self.durability
    }

    /// What would make connections to a server; nothing is made yet, so that an error is about the configuration.
    pub(super) fn client(&self, endpoint: &Endpoint) -> RedisResult<Client> {
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        let address = match self.encrypted {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let info = address.into_connection_info()?.set_redis_settings(RedisConnectionInfo::clone(&self.login.load()));
        match &self.ca {
            None => Client::open(info),
            Some(pem) => {
                let root_cert = Some(pem.as_bytes().to_vec());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
        }
    }

    /// Connects and logs in; what the server sends unasked goes to `pusher`.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        pusher: Option<&Pusher>,
    ) -> RedisResult<MultiplexedConnection> {
        // Time is limited here and by whoever asks, once for everything that belongs together.
        let mut settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        if let Some(pusher) = pusher {
            settings = settings.set_push_sender(pusher.clone());
        }
        let client = self.client(endpoint)?;
        // Boxed, or every future that sends a command would hold the making of a connection.
        in_time(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&settings).boxed()).await
    }

    /// Connects to a server that takes writes and has loaded its data.
    pub(super) async fn meet(
        &self,
        endpoint: &Endpoint,
        kind: &Kind,
        pusher: &Pusher,
    ) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.connect(endpoint, Some(pusher)).await?;
        in_time(CONNECT_TIMEOUT, look(&mut connection, kind)).await?;
        Ok(connection)
    }
}

fn speaking(login: RedisConnectionInfo) -> RedisConnectionInfo {
    login.set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name()
}

/// Looks who answers: a server of the expected kind that takes writes, and that has loaded its data.
pub(super) async fn look(connection: &mut MultiplexedConnection, kind: &Kind) -> RedisResult<()> {
    checkup::takes_writes(&hello(connection).await?, kind).map_err(unfit)?;
    redis::cmd("PING").query_async(connection).await
}

/// Looks only whether it is a server of the expected kind.
pub(super) async fn greet(connection: &mut MultiplexedConnection, kind: &Kind) -> RedisResult<()> {
    checkup::is_of(&hello(connection).await?, kind).map_err(unfit)
}

async fn hello(connection: &mut MultiplexedConnection) -> RedisResult<HashMap<String, Value>> {
    redis::cmd("HELLO").arg(3).query_async(connection).await
}

fn unfit(unfit: Unfit) -> RedisError {
    match unfit {
        Unfit::Always(why) => (ErrorKind::InvalidClientConfig, "not the right server", why).into(),
        Unfit::Now(why) => passing(why),
    }
}

/// Waits this long for an answer.
pub(super) async fn in_time<T>(limit: Duration, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(limit, answer).await.unwrap_or_else(|_| Err(timed_out()))
}

/// The error of an answer that did not come in time.
pub(super) fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// An error that may be over by itself, and for which another connection is tried.
pub(super) fn passing(why: impl Into<String>) -> RedisError {
    io::Error::other(why.into()).into()
}
