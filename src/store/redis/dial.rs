//! Makes connections to Redis: address, encryption, login, a look at who answers, and the subscription.

use std::{collections::HashMap, io, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisError, RedisResult, TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::{sync::mpsc, time::timeout};

use super::{RedisConfig, checkup};
use crate::{secret::ExposeSecret, store::StoreError};

/// How long it may take until a new connection can be used.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server sends unasked on a connection.
pub(super) type Pushes = mpsc::UnboundedReceiver<PushInfo>;

/// Makes connections to the configured server.
pub(super) struct Dialer {
    client: Client,
    channel: String,
}

impl Dialer {
    /// Makes nothing yet; the error is about the configuration.
    pub(super) fn new(config: &RedisConfig, channel: &str) -> Result<Self, StoreError> {
        let refused = |error: RedisError| StoreError::Open(format!("the Redis URL is not usable: {error}"));
        let info = info(config).map_err(refused)?;
        let client = match &config.ca {
            None => Client::open(info).map_err(refused)?,
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.as_bytes().to_vec()) };
                Client::build_with_tls(info, certificates)
                    .map_err(|error| StoreError::Open(format!("store.ca is not usable: {error}")))?
            }
        };
        Ok(Self { client, channel: channel.to_owned() })
    }

    /// The database that connections use.
    pub(super) fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Makes a connection to a server that takes writes, and listens on the channel.
    pub(super) async fn dial(&self) -> RedisResult<(MultiplexedConnection, Pushes)> {
        timeout(CONNECT_TIMEOUT, self.connect()).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn connect(&self) -> RedisResult<(MultiplexedConnection, Pushes)> {
        let (sender, pushes) = mpsc::unbounded_channel();
        // Time is limited here and by whoever asks, once for everything that belongs together.
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(sender);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        look(&mut connection).await?;
        connection.subscribe(&self.channel).await?;
        Ok((connection, pushes))
    }
}

/// Looks who answers: a server that takes writes, and that has loaded its data.
pub(super) async fn look(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let hello: HashMap<String, Value> = redis::cmd("HELLO").arg(3).query_async(connection).await?;
    checkup::takes_writes(&hello).map_err(|why| (ErrorKind::InvalidClientConfig, "not the right server", why))?;
    redis::cmd("PING").query_async(connection).await
}

/// The error of an answer that did not come in time.
pub(super) fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// RESP3, because events come as pushes on the same connection. The client does not introduce itself: it would need a
/// right of its own for that.
fn info(config: &RedisConfig) -> RedisResult<ConnectionInfo> {
    let info = config.url.expose_secret().into_connection_info()?;
    let mut login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.expose_secret());
    }
    Ok(info.set_redis_settings(login))
}
