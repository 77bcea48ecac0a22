//! The primary of Redis goes away under load, and Sentinels or a cluster put its replica in its place.
//!
//! With `wait_replicas = 1` nothing counts before the replica has it, so no failover loses anything. As there is only this
//! one replica, nothing counts either until the server that fell is back.

use std::collections::HashSet;

use super::{
    load::Load,
    scene::{STRICT, furnish, strict_provider},
};
use crate::support::{Cluster, Flow, PATIENCE, Proxy, Redis, Watched, Way, eventually, replicas::Replicas};

/// Several servers of Redis.
pub enum Servers {
    Watched(Watched),
    Cluster(Cluster),
}

/// How a primary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    Kill,
    /// It stands still, and when it goes on it believes that it is the primary.
    Stop,
    /// An operator asks for it.
    Ordered,
}

/// Three replicas of bearerd, their servers, and the network to the provider.
pub struct Failover {
    pub replicas: Replicas<Servers>,
    pub provider_line: Proxy,
    /// The server that holds the grant at first.
    pub primary: usize,
    /// The one that takes over.
    pub heir: usize,
}

impl Servers {
    pub async fn watched() -> Self {
        Self::Watched(Watched::start().await)
    }

    pub async fn cluster() -> Self {
        Self::Cluster(Cluster::start().await)
    }

    fn url(&self) -> String {
        match self {
            Self::Watched(watched) => watched.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    pub fn all(&self) -> &[Redis] {
        match self {
            Self::Watched(watched) => &watched.servers,
            Self::Cluster(cluster) => &cluster.nodes,
        }
    }

    pub fn one(&mut self, number: usize) -> &mut Redis {
        match self {
            Self::Watched(watched) => &mut watched.servers[number],
            Self::Cluster(cluster) => &mut cluster.nodes[number],
        }
    }

    /// Who has the grant: the primary of its part, and the replica of that.
    async fn holders(&self) -> Option<(usize, usize)> {
        let (mut primary, mut heir) = (None, None);
        for (number, server) in self.all().iter().enumerate() {
            if server.keys().await.iter().any(|key| key.ends_with(":grant")) {
                *(if server.is_primary().await { &mut primary } else { &mut heir }) = Some(number);
            }
        }
        primary.zip(heir)
    }

    async fn order(&self, heir: usize) {
        match self {
            Self::Watched(watched) => watched.sentinels[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]).await,
            Self::Cluster(cluster) => cluster.nodes[heir].cli(&["CLUSTER", "FAILOVER"]).await,
        }
    }
}

impl Failover {
    /// Starts everything.
    pub async fn prepare(servers: Servers, wait_replicas: u32) -> (Self, Load) {
        let provider = strict_provider(4).await;
        let first = provider.mint_refresh_token("service", "offline_access read").await;
        let provider_line = Proxy::start(provider.issuer()).await;
        let configuration = furnish(&servers.url(), &provider_line, STRICT);
        let configuration = configuration.replace("spool =", &format!("wait_replicas = {wait_replicas}\nspool ="));
        let replicas = Replicas::assemble(provider, servers, first, vec![configuration; 3]).await;
        let load = Load::start(&replicas.clients, &replicas.provider.desk());
        load.moves_on().await;
        let mut holders = None;
        eventually(PATIENCE, async || {
            holders = replicas.redis.holders().await;
            holders.is_some()
        })
        .await;
        let (primary, heir) = holders.unwrap();
        (Self { replicas, provider_line, primary, heir }, load)
    }

    /// Waits until the provider has given an answer that nobody has heard yet.
    pub async fn an_answer_is_on_its_way(&self) {
        self.provider_line.set(Way::Back, Flow::Hold);
        let before = self.replicas.provider.log().await.len();
        eventually(PATIENCE, async || {
            let log = self.replicas.provider.log().await;
            log.len() > before && log.iter().all(|entry| entry.status.is_some())
        })
        .await;
    }

    /// Has the primary go.
    pub async fn strike(&mut self, fall: Fall) {
        let primary = self.primary;
        match fall {
            Fall::Kill => self.replicas.redis.one(primary).kill(),
            Fall::Stop => self.replicas.redis.one(primary).process().signal("STOP"),
            Fall::Ordered => self.replicas.redis.order(self.heir).await,
        }
    }

    /// Waits until its replica has taken its place.
    pub async fn heir_takes_over(&self) {
        let heir = &self.replicas.redis.all()[self.heir];
        eventually(PATIENCE, async || heir.is_primary().await).await;
    }

    /// Has the server that fell come back, and waits until it follows the new primary. A cluster sees to that itself; what
    /// Sentinels do, but after ten seconds only, an operator may do `at_once`. What it had written down until then.
    pub async fn comes_back(&mut self, fall: Fall, at_once: bool) -> HashSet<Vec<String>> {
        let mut written = HashSet::from_iter(self.replicas.redis.all()[self.primary].changes());
        let port = self.replicas.redis.all()[self.heir].port().to_string();
        let watched = matches!(self.replicas.redis, Servers::Watched(_));
        let fallen = self.replicas.redis.one(self.primary);
        match fall {
            Fall::Kill => fallen.start_again().await,
            Fall::Stop => fallen.process().signal("CONT"),
            Fall::Ordered => {}
        }
        if watched && at_once {
            let _: () = fallen.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
        }
        eventually(PATIENCE, async || {
            // It may still be taken for the primary, and then it forgets what it was told.
            written.extend(fallen.changes());
            fallen.is_in_sync().await
        })
        .await;
        written
    }
}

async fn nothing_is_lost(servers: Servers) {
    let (mut failover, load) = Failover::prepare(servers, 1).await;
    failover.an_answer_is_on_its_way().await;
    failover.strike(Fall::Kill).await;
    failover.provider_line.heal().await;
    failover.heir_takes_over().await;
    failover.comes_back(Fall::Kill, true).await;
    load.moves_on().await;
    load.moves_on().await;
    let tally = load.stop().await;
    println!("{} calls, {} tokens ({} degraded), {:?}", tally.calls, tally.tokens, tally.degraded, tally.errors);
    assert_eq!((tally.unanswered(), tally.ended), (0, 0), "{:?}", tally.errors);
    assert!(tally.unknown.is_empty(), "{:?}", tally.unknown);
    let log = failover.replicas.provider.log().await;
    let distinct: HashSet<_> = log.iter().map(|entry| &entry.presented).collect();
    assert_eq!(distinct.len(), log.len(), "{log:#?}");
    assert!(failover.replicas.provider.alive(&failover.replicas.first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_primary_that_was_killed_under_load_and_nothing_is_lost() {
    nothing_is_lost(Servers::watched().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_node_that_was_killed_under_load_and_nothing_is_lost() {
    nothing_is_lost(Servers::cluster().await).await;
}
