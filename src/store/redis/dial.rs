//! Finds the servers that hold the data, connects to them and listens on the store's channel.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use redis::{Cmd, RedisConnectionInfo, RedisResult};
use tokio::sync::mpsc;

use self::{cluster::Seeds, sentinel::Sentinels};
use super::{
    RedisConfig,
    address::{Address, Endpoint, Kind},
    contact::{Contact, Pusher, Pushes, in_time, look, passing},
    durable::Durability,
    event::{Channel, Push},
    primaries::Primaries,
    pulse::PERIOD,
    refusal,
};
use crate::{secret::ExposeSecret, store::StoreError};

mod cluster;
mod sentinel;

/// How long it may take until new connections can be used: somebody who knows is asked, then who was named, and then the
/// channel is listened to.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes connections to the configured set-up.
pub(super) struct Dialer {
    address: Address,
    contact: Arc<Contact>,
    way: Way,
    channel: Arc<Channel>,
}

/// Who says where the data is.
enum Way {
    Server(Endpoint),
    Sentinels(Sentinels),
    Cluster(Seeds),
}

impl Dialer {
    /// Makes nothing yet; the error is about the configuration.
    pub(super) fn new(config: &RedisConfig, channel: Arc<Channel>) -> Result<Self, StoreError> {
        let address = Address::parse(config.url.expose_secret())
            .map_err(|error| StoreError::Open(format!("store.url {error}: {}", error.remedy())))?;
        let contact = Arc::new(contact(config, &address)?);
        let endpoints = address.endpoints().to_vec();
        let way = match address.kind() {
            Kind::Server => Way::Server(first(&endpoints)?),
            Kind::Sentinel { primary } => Way::Sentinels(Sentinels::new(config, &address, primary)),
            Kind::Cluster => Way::Cluster(Seeds::new(endpoints)),
        };
        Ok(Self { address, contact, way, channel })
    }

    /// Takes over the login of another configuration of the same set-up, for new connections. Tells whether it is another one.
    pub(super) fn log_in_as(&self, config: &RedisConfig) -> Result<bool, StoreError> {
        let address = Address::parse(config.url.expose_secret())
            .map_err(|error| StoreError::Open(format!("store.url {error}: {}", error.remedy())))?;
        if !address.leads_where(&self.address) {
            return Ok(false);
        }
        let servers = self.contact.log_in_as(login(config, &address));
        let sentinels = match &self.way {
            Way::Sentinels(sentinels) => sentinels.log_in_as(config),
            Way::Server(_) | Way::Cluster(_) => false,
        };
        Ok(servers || sentinels)
    }

    /// How far durable writes must come.
    pub(super) fn durability(&self) -> Option<Durability> {
        self.contact.durability()
    }

    /// The hosts that are configured, for messages.
    pub(super) fn place(&self) -> String {
        self.address.endpoints().iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Why a host that is configured cannot be spoken to, if that is because of what it speaks. `finally` after it had time to
    /// begin, so that one which answers, and yet not what it is asked, is told too.
    pub(super) async fn wrong_protocol(&self, finally: bool) -> Option<&'static str> {
        let endpoint = self.address.endpoints().first()?;
        let encrypted = self.address.is_encrypted();
        match refusal::wrong_protocol(endpoint, encrypted).await {
            None if finally && !encrypted && refusal::speaks_old_protocol(endpoint).await => Some(
                "it answers PING and not HELLO 3: bearerd needs RESP3 (Redis 6), with no proxy in between that lacks it",
            ),
            why => why,
        }
    }

    /// What logs in anew on connections that are open.
    pub(super) fn authentication(&self) -> Option<Cmd> {
        self.contact.authentication()
    }

    /// Makes connections to servers that take writes, and listens on the channel until something was heard there.
    pub(super) async fn dial(&self) -> RedisResult<(Primaries, Pushes)> {
        // Boxed, or what everybody holds who opens a store would be as large and as deep as all of this.
        in_time(DIAL_TIMEOUT, self.connect().boxed()).await
    }

    async fn connect(&self) -> RedisResult<(Primaries, Pushes)> {
        let (pusher, mut pushes) = mpsc::unbounded_channel();
        let primaries = self.primaries(&pusher).await?;
        // A cluster passes every message on to all of its nodes, so that one of them is enough to listen to.
        let (_, mut listener) = primaries.present().next().ok_or_else(|| passing("no node is there to listen to"))?;
        listener.subscribe(self.channel.name()).await?;
        self.say(&primaries).await?;
        in_time(PERIOD, self.heartbeat(&mut pushes)).await?;
        Ok((primaries, pushes))
    }

    /// Says something on the channel. In a cluster that is not where it is listened to: what comes back has passed from
    /// node to node.
    pub(super) async fn say(&self, primaries: &Primaries) -> RedisResult<()> {
        let (_, mut speaker) =
            primaries.present().next_back().ok_or_else(|| passing("no node is there to speak to"))?;
        redis::cmd("PUBLISH").arg(self.channel.name()).arg(self.channel.heartbeat()).query_async(&mut speaker).await
    }

    /// The channel that is listened to.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits until the channel is heard. What is said before is about times in which nothing in memory is believed.
    async fn heartbeat(&self, pushes: &mut Pushes) -> RedisResult<()> {
        while let Some(push) = pushes.recv().await {
            match self.channel.meaning(&push) {
                Some(Push::Heartbeat) => return Ok(()),
                Some(Push::Lost) => break,
                Some(Push::Changed(_) | Push::Unverified { .. }) | None => {}
            }
        }
        Err(passing("the connection was lost before anything was heard"))
    }

    async fn primaries(&self, pusher: &Pusher) -> RedisResult<Primaries> {
        match &self.way {
            Way::Server(server) => Primaries::one(&self.contact, &Kind::Server, server.clone(), pusher).await,
            Way::Sentinels(sentinels) => {
                let primary = sentinels.primary().await?;
                Primaries::one(&self.contact, &sentinels.kind(), primary, pusher).await
            }
            Way::Cluster(seeds) => Primaries::many(&self.contact, &seeds.find(&self.contact).await?, pusher).await,
        }
    }

    /// Looks whether these are still the servers that hold the data and take writes.
    pub(super) async fn look(&self, primaries: &Primaries) -> RedisResult<()> {
        match &self.way {
            Way::Server(_) => look_at(primaries, &Kind::Server).await,
            Way::Sentinels(sentinels) => {
                let kind = sentinels.kind();
                let (answer, primary) = tokio::join!(look_at(primaries, &kind), sentinels.primary());
                answer?;
                // As long as the primary answers, Sentinels that do not are no reason to leave it.
                match primary.ok().filter(|primary| primaries.nodes().iter().all(|node| node.endpoint != *primary)) {
                    Some(other) => Err(passing(format!("the Sentinels name another primary now, {other}"))),
                    None => Ok(()),
                }
            }
            Way::Cluster(seeds) => seeds.look(primaries).await,
        }
    }
}

async fn look_at(primaries: &Primaries, kind: &Kind) -> RedisResult<()> {
    for (_, mut connection) in primaries.present() {
        look(&mut connection, kind).await?;
    }
    Ok(())
}

fn login(config: &RedisConfig, address: &Address) -> RedisConnectionInfo {
    let mut login = address.login().clone();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.expose_secret());
    }
    login
}

fn contact(config: &RedisConfig, address: &Address) -> Result<Contact, StoreError> {
    let durability = Durability::of(config.wait_replicas, config.wait_fsync);
    let contact = Contact::new(login(config, address), address.is_encrypted(), config.ca.clone()).with(durability);
    contact.client(&first(address.endpoints())?).map_err(|error| match config.ca {
        Some(_) => StoreError::Open(format!("store.ca is not usable: {error}")),
        None => StoreError::Open(format!("store.url is not usable: {error}")),
    })?;
    Ok(contact)
}

fn first(endpoints: &[Endpoint]) -> Result<Endpoint, StoreError> {
    endpoints.first().cloned().ok_or_else(|| StoreError::Open("store.url names no host".into()))
}
