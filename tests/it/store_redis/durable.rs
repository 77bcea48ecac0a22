//! Writes that count only when replicas, or disks, have them.

use bearerd::{
    failure::FailureCause,
    store::{Commit, Dispatch, Dispatched, Import, Settle, Verdict, Written},
};
use futures_util::future::join_all;

use super::{connection::assert_away, *};
use crate::{
    store_contract::refreshable,
    support::{Cluster, eventually},
};

/// A store for the contract: every write is on disk before it counts.
pub async fn new_store() -> (Arc<dyn Store>, Redis) {
    let redis = Redis::start_valkey(&[]).await;
    (open(&RedisConfig { wait_fsync: true, ..settings(&redis.url()) }).await, redis)
}

async fn open(config: &RedisConfig) -> Arc<dyn Store> {
    Arc::new(RedisStore::open(config, ring("a", 1)).await.unwrap())
}

async fn replica_of(primary: &Redis) -> Redis {
    let port = primary.port().to_string();
    let replica = Redis::start_valkey(&["--replicaof", "127.0.0.1", &port]).await;
    eventually(PATIENCE, async || {
        let info: String = primary.cli(&["INFO", "replication"]).await;
        replica.is_in_sync().await && info.contains("state=online")
    })
    .await;
    replica
}

/// The four writes that must not be forgotten, each about a grant of its own, and of the same attempt every time.
struct Writes {
    desks: [Desk; 4],
    attempt: AttemptId,
    revision: Generation,
}

impl Writes {
    async fn prepare(store: &Arc<dyn Store>) -> Self {
        let desks = ["sent", "answered", "failed", "imported"].map(|subject| Desk::of(store, subject, "read"));
        let attempt = AttemptId::random();
        for desk in &desks {
            desk.hold(&attempt).await;
        }
        Self { desks, attempt, revision: Generation::new(1) }
    }

    /// The same writes by another process.
    fn of(&self, store: &Arc<dyn Store>) -> Self {
        let desks = self.desks.each_ref().map(|desk| Desk { store: Arc::clone(store), place: desk.place.clone() });
        Self { desks, attempt: self.attempt.clone(), revision: self.revision }
    }

    async fn dispatch(&self) -> Result<Dispatched, StoreError> {
        let (unit, attempt, expected) = (&self.desks[0].place.unit, &self.attempt, Generation::ZERO);
        let dispatch = Dispatch { unit, attempt, expected, seen: None, need: Duration::ZERO };
        self.desks[0].store.dispatch(&dispatch).await
    }

    async fn commit(&self) -> Result<Written, StoreError> {
        let (place, attempt, next) = (&self.desks[1].place, &self.attempt, self.revision);
        let (secrets, token) = (&refreshable("refresh"), &bearer(next, "access", Some(LONG)));
        let commit = Commit { place, attempt, expected: Generation::ZERO, next, secrets, token };
        self.desks[1].store.commit(&commit).await
    }

    async fn settle(&self) -> Result<Written, StoreError> {
        let (unit, attempt, expected) = (&self.desks[2].place.unit, &self.attempt, Generation::ZERO);
        let (verdict, cause) = (Verdict::Dead { again: None }, FailureCause::ProviderUnavailable);
        self.desks[2]
            .store
            .settle(&Settle { unit, attempt, expected, verdict, cause, report: None, early: false })
            .await
    }

    async fn import(&self) -> Result<Written, StoreError> {
        let (unit, attempt, next) = (&self.desks[3].place.unit, &self.attempt, self.revision);
        let import = Import { unit, attempt, expected: Generation::ZERO, next, secrets: &refreshable("refresh") };
        self.desks[3].store.import(&import).await
    }

    /// None of them counts, and all of them are said to be on the way.
    async fn are_short(&self, words: &str) {
        let (dispatched, committed, settled, imported) =
            tokio::join!(self.dispatch(), self.commit(), self.settle(), self.import());
        assert_away(dispatched, words);
        for written in [committed, settled, imported] {
            assert_away(written, words);
        }
    }

    async fn are_done(&self) -> bool {
        let (dispatched, committed, settled, imported) =
            tokio::join!(self.dispatch(), self.commit(), self.settle(), self.import());
        matches!(dispatched, Ok(Dispatched::Go))
            && [committed, settled, imported].iter().all(|written| matches!(written, Ok(Written::Done)))
    }
}

#[tokio::test]
async fn nothing_counts_before_a_replica_has_it() {
    // With Redis 7.0 `WAIT` takes also what others wrote into account; this server is the stricter one.
    let primary = Redis::start_valkey(&[]).await;
    let mut replica = replica_of(&primary).await;
    let config = RedisConfig { wait_replicas: 1, ..settings(&primary.url()) };
    let (one, two) = (open(&config).await, open(&config).await);
    let writes = Writes::prepare(&one).await;
    replica.process().signal("STOP");
    writes.are_short("0 of 1 replicas").await;
    // Also not on a connection that has nothing to wait for, because everything is found done.
    let fresh = join_all((0..4).map(async |_| writes.of(&open(&config).await))).await;
    let (dispatched, committed, settled, imported) =
        tokio::join!(fresh[0].dispatch(), fresh[1].commit(), fresh[2].settle(), fresh[3].import());
    assert_away(dispatched, "0 of 1 replicas");
    for written in [committed, settled, imported] {
        assert_away(written, "0 of 1 replicas");
    }
    // What only reads is not held up.
    let (short, loaded) = tokio::join!(writes.commit(), writes.desks[1].load());
    assert_away(short, "0 of 1 replicas");
    assert_eq!(loaded.revision(), writes.revision);

    replica.process().signal("CONT");
    eventually(PATIENCE, async || writes.of(&two).are_done().await).await;
    assert!(writes.are_done().await);
    let (here, there): (Vec<String>, Vec<String>) = (primary.keys().await, replica.keys().await);
    assert_eq!(here.len(), there.len());
}

#[tokio::test]
async fn in_a_cluster_it_is_the_replica_of_the_very_node() {
    let mut cluster = Cluster::start().await;
    let store = open(&RedisConfig { wait_replicas: 1, ..settings(&cluster.url()) }).await;
    // One grant of each node.
    let mut writes: [Option<Writes>; 3] = [None, None, None];
    while writes.iter().any(Option::is_none) {
        let desk = Desk::of(&store, AttemptId::random().as_str(), "read");
        let holder = cluster.holder(&format!("test:{{{}}}:grant", desk.place.unit.as_str())).await;
        let desks = [0; 4].map(|_| Desk { store: Arc::clone(&store), place: desk.place.clone() });
        writes[holder] = Some(Writes { desks, attempt: AttemptId::random(), revision: Generation::new(1) });
    }
    let writes = writes.map(Option::unwrap);
    let replica = cluster.replica_of(1).await;
    eventually(PATIENCE, async || writes[0].commit().await.is_ok() && writes[2].commit().await.is_ok()).await;
    cluster.nodes[replica].process().signal("STOP");
    assert_away(writes[1].commit().await, "0 of 1 replicas");
    assert_eq!(writes[2].commit().await.unwrap(), Written::Done);
    cluster.nodes[replica].process().signal("CONT");
    eventually(PATIENCE, async || writes[1].commit().await.is_ok()).await;
}

#[tokio::test]
async fn nothing_counts_before_it_is_on_disk() {
    let primary = Redis::start_valkey(&["--appendfsync", "everysec"]).await;
    let mut replica = replica_of(&primary).await;
    let alone = RedisConfig { wait_fsync: true, ..settings(&primary.url()) };
    let both = RedisConfig { wait_replicas: 1, ..alone.clone() };
    let (alone, both) = (open(&alone).await, open(&both).await);
    let writes = Writes::prepare(&alone).await;
    replica.process().signal("STOP");
    writes.of(&both).are_short("0 of 1 replicas").await;
    eventually(PATIENCE, async || writes.are_done().await).await;
    replica.process().signal("CONT");
    eventually(PATIENCE, async || writes.of(&both).are_done().await).await;

    let _: () = primary.cli(&["CONFIG", "SET", "appendonly", "no"]).await;
    writes.are_short("appendonly").await;
    let _: () = primary.cli(&["CONFIG", "SET", "appendonly", "yes"]).await;
    eventually(PATIENCE, async || writes.are_done().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writes_wait_together() {
    let redis = Redis::start_valkey(&["--appendfsync", "everysec"]).await;
    let store = open(&RedisConfig { wait_fsync: true, ..settings(&redis.url()) }).await;
    let desks: Vec<Desk> = (0..200).map(|number| Desk::of(&store, &format!("subject {number}"), "read")).collect();
    // Each of them alone would take up to a second.
    timeout(PATIENCE, join_all(desks.iter().map(|desk| desk.refresh("first")))).await.expect("all within the limit");
}

#[tokio::test]
async fn a_server_that_cannot_do_it_is_refused() {
    let (old, forgetful) = (Redis::start().await, Redis::start_valkey(&["--appendonly", "no"]).await);
    let fsync = |redis: &Redis| RedisConfig { wait_fsync: true, ..settings(&redis.url()) };
    let why = refusal(&fsync(&old)).await;
    assert!(why.contains("store.wait_fsync needs Redis 7.2 or Valkey"), "{why}");
    let why = refusal(&fsync(&forgetful)).await;
    assert!(why.contains("store.wait_fsync needs appendonly yes"), "{why}");
}
