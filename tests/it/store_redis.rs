//! What only the shared store promises: key lifetimes, several replicas, and a server that is damaged or goes away.

use std::{sync::Arc, time::Duration};

use bearerd::{
    store::{
        AttemptId, Ring, Store, StoreError,
        redis::{Redis as RedisStore, RedisConfig},
    },
    token::Generation,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    store_contract::{Desk, LONG, bearer, canary, events::change},
    support::{PATIENCE, Redis, eventually},
};

mod acl;
mod checkup;
pub mod cluster;
mod connection;
mod damage;
pub mod durable;
mod heartbeat;
mod login;
mod root;
pub mod sentinel;
mod tls;

fn ring(id: &str, byte: u8) -> Ring {
    Ring::new([(id, [byte; 32].as_slice())]).unwrap()
}

/// The usual settings for the Redis behind this URL.
pub fn settings(url: &str) -> RedisConfig {
    RedisConfig {
        url: url.into(),
        username: None,
        password: None,
        sentinel_username: None,
        sentinel_password: None,
        prefix: "test".into(),
        wait_replicas: 0,
        wait_fsync: false,
        ca: None,
    }
}

/// The same with a prefix that nobody else has, for servers that several use.
fn own(url: &str) -> RedisConfig {
    RedisConfig { prefix: AttemptId::random().as_str().to_owned(), ..settings(url) }
}

async fn open_with(redis: &Redis, ring: Ring) -> Result<RedisStore, StoreError> {
    RedisStore::open(&settings(&redis.url()), ring).await
}

/// Why a store with these settings is not opened.
async fn refusal(settings: &RedisConfig) -> String {
    match RedisStore::open(settings, ring("a", 1)).await.err() {
        Some(StoreError::Open(why)) => why,
        other => panic!("not refused but {other:?}"),
    }
}

/// A replica's own connection to the store.
async fn replica(redis: &Redis) -> Arc<dyn Store> {
    Arc::new(open_with(redis, ring("a", 1)).await.unwrap())
}

/// A store for the contract, with the server that it stands in.
pub async fn new_store() -> (Arc<dyn Store>, Redis) {
    let redis = Redis::start().await;
    (replica(&redis).await, redis)
}

#[tokio::test]
async fn only_what_may_be_forgotten_has_a_ttl() {
    let (store, redis) = new_store().await;
    let (brief, fixed) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    brief.refresh("first").await;
    let revision = brief.record().await.revision;
    let token = bearer(brief.load().await.next, "fixed", None);
    fixed.commit_token(&AttemptId::random(), revision, &token, "second").await.unwrap();
    brief.hold(&AttemptId::random()).await;

    let base = format!("test:{{{}}}", brief.place.unit.as_str());
    let long = i64::try_from(LONG.as_millis()).unwrap();
    let ttl = async |key: String| redis.cli::<i64>(&["PTTL", &key]).await;
    assert_eq!(ttl("test:root".into()).await, -1);
    assert_eq!(ttl(format!("{base}:grant")).await, -1);
    assert_eq!(ttl(format!("{base}:token:{}", fixed.place.token.as_str())).await, -1);
    for key in [format!("{base}:lease"), format!("{base}:token:{}", brief.place.token.as_str())] {
        let left = ttl(key.clone()).await;
        assert!(left > long / 2 && left <= long, "{key} {left}");
    }
    // One hash tag, so that every script is one slot of a cluster; and nothing beside these keys.
    let keys = redis.keys().await;
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert_eq!(keys.iter().filter(|key| key.starts_with(&format!("{base}:"))).count(), 4, "{keys:?}");
}

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let _: () = redis.cli(&["SCRIPT", "FLUSH"]).await;
    desk.refresh("second").await;
    assert_eq!(desk.token().await.as_deref(), Some("second-access"));
}

#[tokio::test]
async fn replicas_share_names_leases_tokens_and_events() {
    let redis = Redis::start().await;
    // Started at once on an empty server, so that both draw a key of names.
    let (one, two) = tokio::join!(replica(&redis), replica(&redis));
    assert!(one.is_shared());
    let (here, there) = (Desk::new(&one), Desk::new(&two));
    assert_eq!(here.place, there.place);
    let owner = AttemptId::random();
    here.hold(&owner).await;
    assert!(there.is_busy().await);
    here.release(&owner).await;

    let mut heard = two.events();
    let made = here.refresh("first").await;
    assert_eq!(there.token().await.as_deref(), Some("first-access"));
    assert_eq!(change(&mut heard).await.token, Some(here.place.token.clone()));
    here.reject(made).await;
    assert_eq!(change(&mut heard).await.floor, made);
    assert_eq!(there.token().await, None);
    here.hand_over("second").await;
    assert_eq!(change(&mut heard).await.token, None);
}

#[tokio::test]
async fn another_key_is_refused() {
    let (_store, redis) = new_store().await;
    for (other, word) in [(ring("b", 1), "the key \"a\""), (ring("a", 2), "or key \"a\" is not the one that sealed it")]
    {
        match open_with(&redis, other).await.err() {
            Some(StoreError::Open(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("not refused but {other:?}"),
        }
    }
}

#[tokio::test]
async fn neither_the_wire_nor_the_keys_nor_the_files_tell_a_secret() {
    let (store, redis) = new_store().await;
    let mut monitor = TcpStream::connect(redis.url().trim_start_matches("redis://")).await.unwrap();
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let mut wire = vec![0; 5];
    monitor.read_exact(&mut wire).await.unwrap();
    assert_eq!(wire, b"+OK\r\n");

    canary::leave(&store).await;
    let _: Option<String> = redis.cli(&["GET", "the-end"]).await;
    while memchr::memmem::find(&wire, b"the-end").is_none() {
        assert_ne!(timeout(PATIENCE, monitor.read_buf(&mut wire)).await.unwrap().unwrap(), 0);
    }
    // The commands of the life that was led are there, each as long as it is.
    assert!(memchr::memmem::find(&wire, b"OutcomeUnknown").is_none());
    assert!(memchr::memmem::find(&wire, b"\"unknown\"").is_some());
    canary::assert_silent("the wire", &wire);
    canary::assert_silent("a key's name", redis.keys().await.join("\n").as_bytes());
    let files = redis.files();
    assert!(memchr::memmem::find(&files, b"sealed").is_some());
    canary::assert_silent("the append-only file", &files);
}

#[tokio::test]
async fn a_generation_from_nowhere_is_no_fault() {
    let (store, _redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    desk.reject(Generation::new(u64::MAX)).await;
    assert_eq!(desk.token().await, None);
}
