//! A Redis Cluster: every key goes to who holds it, and whoever takes over is followed.

use bearerd::store::Event;

use super::{
    connection::{assert_away, heard, write},
    *,
};
use crate::{
    store_contract::events::change,
    support::{Cluster, eventually},
};

/// A store for the contract.
pub async fn new_store() -> (Arc<dyn Store>, Arc<Cluster>) {
    let cluster = Cluster::shared().await;
    (open(&own(&cluster.url())).await, cluster)
}

async fn open(config: &RedisConfig) -> Arc<dyn Store> {
    Arc::new(RedisStore::open(config, ring("a", 1)).await.unwrap())
}

fn grant(desk: &Desk) -> String {
    format!("test:{{{}}}:grant", desk.place.unit.as_str())
}

/// A place at each of the first three nodes.
async fn desks(cluster: &Cluster, store: &Arc<dyn Store>) -> [Desk; 3] {
    let mut desks = [None, None, None];
    for number in 0.. {
        let desk = Desk::of(store, &format!("subject {number}"), "read");
        let holder = cluster.holder(&grant(&desk)).await;
        desks[holder] = Some(desk);
        if desks.iter().all(Option::is_some) {
            break;
        }
    }
    desks.map(Option::unwrap)
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_by_its_replica() {
    let mut cluster = Cluster::start().await;
    let store = open(&settings(&cluster.url())).await;
    for (number, desk) in desks(&cluster, &store).await.iter().enumerate().take(2) {
        let made = desk.refresh("first").await;
        let mut events = store.events();
        let next = cluster.replica_of(number).await;
        let there = &cluster.nodes[next];
        eventually(PATIENCE, async || {
            // A replica tells its own keys, and only to those who say that they know it is one.
            there.keys().await.contains(&grant(desk))
        })
        .await;

        cluster.nodes[number].kill();
        heard(&mut events, &Event::Gap).await;
        // Nobody has to look for it.
        eventually(PATIENCE, async || store.load(&desk.place).await.is_ok()).await;
        assert_eq!(desk.record().await.revision, made);
        eventually(PATIENCE, async || store.ping().await.is_ok()).await;
        let mut events = store.events();
        desk.refresh("second").await;
        while change(&mut events).await.token != Some(desk.place.token.clone()) {}
    }
}

#[tokio::test]
async fn a_replica_that_takes_over_in_peace_is_noticed() {
    let cluster = Cluster::start().await;
    let store = open(&settings(&cluster.url())).await;
    let desk = &desks(&cluster, &store).await[2];
    let made = desk.refresh("first").await;
    let mut events = store.events();
    store.ping().await.unwrap();
    let next = cluster.replica_of(2).await;
    let _: () = cluster.nodes[next].cli(&["CLUSTER", "FAILOVER"]).await;
    // No connection breaks by that, and nobody writes.
    eventually(PATIENCE, async || {
        let answer = store.ping().await;
        answer.is_err_and(|error| error.to_string().contains("other primaries now"))
    })
    .await;
    heard(&mut events, &Event::Gap).await;
    heard(&mut events, &Event::Heard).await;
    assert_eq!(cluster.holder(&grant(desk)).await, next);
    assert_eq!(desk.record().await.revision, made);
    desk.refresh("second").await;
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_in_silence() {
    let cluster = Cluster::start().await;
    let store = open(&settings(&cluster.url())).await;
    let desk = &desks(&cluster, &store).await[0];
    let mut events = store.events();
    let slot = cluster.nodes[0].cli::<u64>(&["CLUSTER", "KEYSLOT", &grant(desk)]).await.to_string();
    let to: String = cluster.nodes[1].cli(&["CLUSTER", "MYID"]).await;
    for node in [1, 0, 2] {
        let _: () = cluster.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await;
    }
    let made = desk.refresh("first").await;
    assert_eq!(cluster.holder(&grant(desk)).await, 1);
    store.ping().await.unwrap();
    // The first thing that is heard: no connection was replaced.
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));

    // A slot that is under way with its keys answers in neither place, and is there again afterwards.
    let from: String = cluster.nodes[0].cli(&["CLUSTER", "MYID"]).await;
    let _: () = cluster.nodes[0].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &to]).await;
    let _: () = cluster.nodes[1].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &from]).await;
    assert_away(write(desk).await, "TryAgain");
    let _: () = cluster.nodes[1].cli(&["CLUSTER", "SETSLOT", &slot, "STABLE"]).await;
    assert_eq!(desk.record().await.revision, made);
    desk.refresh("second").await;
}

#[tokio::test]
async fn lost_connections_and_scripts_are_made_good() {
    let cluster = Cluster::start().await;
    let store = open(&settings(&cluster.url())).await;
    let desks = desks(&cluster, &store).await;
    for desk in &desks {
        desk.refresh("first").await;
    }
    cluster.on_primaries::<()>(&["SCRIPT", "FLUSH"]).await;
    for desk in &desks {
        desk.refresh("second").await;
    }
    // One node has the connection that listens, the others do not; the loss of each is a gap.
    for (number, desk) in desks.iter().enumerate() {
        let mut events = store.events();
        for kind in ["normal", "pubsub"] {
            let _: i64 = cluster.nodes[number].cli(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        heard(&mut events, &Event::Gap).await;
        heard(&mut events, &Event::Heard).await;
        eventually(PATIENCE, async || store.load(&desk.place).await.is_ok()).await;
        desk.refresh("third").await;
        assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
    }
}

#[tokio::test]
async fn a_part_that_is_gone_leaves_the_rest_alone() {
    let mut cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]).await;
    let store = open(&settings(&cluster.url())).await;
    let desks = desks(&cluster, &store).await;
    let mut events = store.events();
    let replica = cluster.replica_of(0).await;
    cluster.nodes[replica].kill();
    cluster.nodes[0].kill();
    heard(&mut events, &Event::Gap).await;
    heard(&mut events, &Event::Heard).await;
    assert_away(write(&desks[0]).await, &format!("127.0.0.1:{}", cluster.nodes[0].port()));
    // That is no reason to replace the connections to the others.
    for desk in &desks[1..] {
        desk.refresh("first").await;
        assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
    }
    // Another replica can start meanwhile, also where the nodes that it is told of are gone in part.
    let other = open(&settings(&cluster.url_of(&[0, 1]))).await;
    assert_eq!(Desk { store: other, place: desks[1].place.clone() }.token().await.as_deref(), Some("first-access"));

    cluster.nodes[0].start_again().await;
    eventually(PATIENCE, async || write(&desks[0]).await.is_ok()).await;
    desks[0].refresh("first").await;
}

#[tokio::test]
async fn every_node_is_looked_at_before_it_is_used() {
    let cluster = Cluster::start().await;
    let node = &cluster.nodes[2];
    let _: () = node.cli(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await;
    let why = refusal(&settings(&cluster.url_of(&[0]))).await;
    assert!(why.contains(&format!("127.0.0.1:{}", node.port())) && why.contains("noeviction"), "{why}");
    let single = Redis::start().await;
    let why = refusal(&settings(&format!("redis+cluster://127.0.0.1:{}", single.port()))).await;
    assert!(why.contains("is no node of a Redis Cluster"), "{why}");
}
