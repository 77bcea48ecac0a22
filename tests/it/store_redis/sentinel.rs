//! Sentinels: the primary that they name is used, and a failover is followed.

use bearerd::store::Event;

use super::{
    connection::{assert_away, heard},
    *,
};
use crate::{
    store_contract::events::change,
    support::{Sentinel, Watched, eventually},
};

/// A store for the contract.
pub async fn new_store() -> (Arc<dyn Store>, Arc<Watched>) {
    let watched = Watched::shared().await;
    (open(&own(&watched.url())).await, watched)
}

async fn open(config: &RedisConfig) -> Arc<dyn Store> {
    Arc::new(RedisStore::open(config, ring("a", 1)).await.unwrap())
}

/// One Sentinel that watches over a server, and its address.
async fn lone(redis: &Redis, lines: &[&str]) -> (Sentinel, String) {
    let sentinel = Sentinel::start(redis, 1, lines).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port());
    (sentinel, url)
}

#[tokio::test]
async fn a_failover_is_followed() {
    let mut watched = Watched::start().await;
    let store = open(&settings(&watched.url())).await;
    let desk = Desk::new(&store);
    let made = desk.refresh("first").await;
    let mut events = store.events();
    let grant = format!("test:{{{}}}:grant", desk.place.unit.as_str());
    let there = &watched.servers[1];
    eventually(PATIENCE, async || there.cli::<i64>(&["EXISTS", &grant]).await == 1).await;

    watched.servers[0].kill();
    heard(&mut events, &Event::Gap).await;
    heard(&mut events, &Event::Heard).await;
    assert_eq!(desk.record().await.revision, made);
    desk.refresh("second").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
    store.ping().await.unwrap();
    let role: String = watched.servers[1].cli(&["INFO", "replication"]).await;
    assert!(role.contains("role:master"), "{role}");
}

#[tokio::test]
async fn lost_connections_and_scripts_are_made_good() {
    let redis = Redis::start().await;
    let (_sentinel, url) = lone(&redis, &[]).await;
    let store = open(&settings(&url)).await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let _: () = redis.cli(&["SCRIPT", "FLUSH"]).await;
    desk.refresh("second").await;
    for kind in ["normal", "pubsub"] {
        let mut events = store.events();
        let _: i64 = redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
        if kind == "pubsub" {
            // Connections that listen are of this type only.
            heard(&mut events, &Event::Gap).await;
            heard(&mut events, &Event::Heard).await;
        }
    }
    desk.refresh("third").await;
}

#[tokio::test]
async fn some_sentinels_are_enough() {
    let mut watched = Watched::start().await;
    watched.sentinels[0].kill();
    let store = open(&settings(&watched.url())).await;
    Desk::new(&store).refresh("first").await;
    // Once there is a connection none of them is needed until the primary is lost.
    watched.sentinels[1].kill();
    watched.sentinels[2].kill();
    store.ping().await.unwrap();
    Desk::new(&store).refresh("second").await;
    let answer = RedisStore::open(&settings(&watched.url()), ring("a", 1)).await;
    assert_away(answer.map(|_| ()), "no Sentinel answers");
}

#[tokio::test]
async fn a_primary_that_the_sentinels_left_is_left_while_it_still_answers() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let (sentinel, url) = lone(&old, &[]).await;
    let store = open(&settings(&url)).await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let mut events = store.events();

    // As after a partition: both take writes, and only the Sentinels know which of them counts.
    let _: () = new.cli(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
    eventually(PATIENCE, async || new.is_in_sync().await).await;
    let _: () = new.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let _: () = sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]).await;
    let _: () = sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &new.port().to_string(), "1"]).await;
    assert_away(store.ping().await, "name another primary now");
    heard(&mut events, &Event::Gap).await;
    heard(&mut events, &Event::Heard).await;
    desk.refresh("second").await;
    let there = Desk::new(&replica(&new).await);
    assert_eq!(there.token().await.as_deref(), Some("second-access"));
}

#[tokio::test]
async fn what_is_wrong_with_the_sentinels_is_told() {
    let redis = Redis::start().await;
    let (_sentinel, url) = lone(&redis, &["requirepass of-the-sentinels"]).await;
    let named = RedisConfig { sentinel_password: Some("of-the-sentinels".into()), ..settings(&url) };
    Desk::new(&open(&named).await).refresh("first").await;

    let other = RedisConfig { url: url.replace("mymaster", "another").as_str().into(), ..named.clone() };
    let server = format!("redis+sentinel://127.0.0.1:{}/mymaster", redis.port());
    for (config, words) in [
        (other, "know no primary of the name \"another\""),
        (settings(&url), "ask for a password: set store.sentinel_password"),
        (RedisConfig { sentinel_password: Some("wrong".into()), ..settings(&url) }, "WRONGPASS"),
        (settings(&server), "is no Sentinel"),
        (settings(&url.replace("+sentinel", "").replace("/mymaster", "")), "NOAUTH"),
    ] {
        let why = refusal(&config).await;
        assert!(why.contains(words), "{why}");
    }
    let (_open, url) = lone(&redis, &[]).await;
    let why = refusal(&settings(&url.replace("+sentinel", "").replace("/mymaster", ""))).await;
    assert!(why.contains("write redis+sentinel://"), "{why}");
}
