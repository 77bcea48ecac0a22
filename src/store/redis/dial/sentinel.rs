//! Asks the Sentinels who the primary is.

use std::collections::HashMap;

use futures_util::future::join_all;
use redis::{ErrorKind, RedisConnectionInfo, RedisError, RedisResult, aio::MultiplexedConnection, pipe};
use tokio::sync::Mutex;

use crate::{
    secret::ExposeSecret,
    store::redis::{
        RedisConfig,
        address::{Address, Endpoint, Kind},
        contact::{CONNECT_TIMEOUT, Contact, in_time, passing},
    },
};

/// Those who know the primary.
pub(super) struct Sentinels {
    contact: Contact,
    primary: String,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    endpoint: Endpoint,
    /// Kept from one question to the next.
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// Whom a Sentinel names, and since which configuration; the higher number is the newer one.
struct Named {
    primary: Endpoint,
    epoch: u64,
}

impl Sentinels {
    pub(super) fn new(config: &RedisConfig, address: &Address, primary: &str) -> Self {
        let sentinel = |endpoint: &Endpoint| Sentinel { endpoint: endpoint.clone(), connection: Mutex::default() };
        Self {
            contact: Contact::new(login(config), address.is_encrypted(), config.ca.clone()),
            primary: primary.to_owned(),
            sentinels: address.endpoints().iter().map(sentinel).collect(),
        }
    }

    /// From here on Sentinels are asked with this login. Tells whether it is another one.
    pub(super) fn log_in_as(&self, config: &RedisConfig) -> bool {
        let is_new = self.contact.log_in_as(login(config));
        if is_new {
            for sentinel in &self.sentinels {
                // One that is being asked right now keeps its connection, and may be refused once.
                if let Ok(mut kept) = sentinel.connection.try_lock() {
                    *kept = None;
                }
            }
        }
        is_new
    }

    /// What the primary is expected to be.
    pub(super) fn kind(&self) -> Kind {
        Kind::Sentinel { primary: self.primary.clone() }
    }

    /// The primary. All are asked, because one that was cut off from the others may still name the former.
    pub(super) async fn primary(&self) -> RedisResult<Endpoint> {
        let answers =
            join_all(self.sentinels.iter().map(|sentinel| in_time(CONNECT_TIMEOUT, self.ask(sentinel)))).await;
        let (named, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        match named.into_iter().flatten().max_by_key(|named| named.epoch) {
            Some(named) => Ok(named.primary),
            None => Err(self.nobody(failed.into_iter().filter_map(Result::err))),
        }
    }

    async fn ask(&self, sentinel: &Sentinel) -> RedisResult<Named> {
        let mut kept = sentinel.connection.lock().await;
        // Taken out, so that it is not used again if the answer fails or is not waited for.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.contact.connect(&sentinel.endpoint, None).await?,
        };
        let named = named(&mut connection, &self.primary).await?;
        *kept = Some(connection);
        Ok(named)
    }

    /// Why no Sentinel named a primary: what one of them said is worth more than that another did not answer.
    fn nobody(&self, errors: impl Iterator<Item = RedisError>) -> RedisError {
        let told = errors.max_by_key(|error| u8::from(!error.is_io_error()));
        let Some(error) = told else { return passing("there is no Sentinel to ask") };
        let text = error.to_string();
        let misfit = |why: String| (ErrorKind::InvalidClientConfig, "wrong Sentinels", why).into();
        if text.contains("No such master") {
            misfit(format!("the Sentinels know no primary of the name {:?}, which store.url gives", self.primary))
        } else if text.contains("unknown command") {
            misfit("a server that store.url names is no Sentinel".into())
        } else if error.is_io_error() {
            passing(format!("no Sentinel answers: {text}"))
        } else if text.contains("NOAUTH") {
            misfit("the Sentinels ask for a password: set store.sentinel_password".into())
        } else {
            error
        }
    }
}

fn login(config: &RedisConfig) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(username) = &config.sentinel_username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.sentinel_password {
        login = login.set_password(password.expose_secret());
    }
    login
}

/// Asks for the address in use, which during a failover is the next primary's already, and for the configuration.
async fn named(connection: &mut MultiplexedConnection, primary: &str) -> RedisResult<Named> {
    let mut questions = pipe();
    questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
    questions.cmd("SENTINEL").arg("MASTER").arg(primary);
    let (address, facts): (Option<(String, u16)>, HashMap<String, String>) = questions.query_async(connection).await?;
    let (host, port) = address.ok_or_else(|| passing("a Sentinel does not know the primary's address yet"))?;
    let epoch = facts.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Ok(Named { primary: Endpoint { host, port }, epoch })
}
