//! The login for Redis changes while the store is open: passwords that are tokens of a cloud provider do so every few minutes.

use bearerd::store::Event;

use super::{connection::heard, *};
use crate::support::{Sentinel, eventually};

async fn guarded(password: &str) -> Redis {
    guard(Redis::start().await, password).await
}

/// The same that knows `WAITAOF`.
async fn guarded_valkey(password: &str) -> Redis {
    guard(Redis::start_valkey(&[]).await, password).await
}

async fn guard(redis: Redis, password: &str) -> Redis {
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "on", &format!(">{password}"), "~*", "&*", "+@all"]).await;
    redis
}

fn as_me(redis: &Redis, password: &str) -> RedisConfig {
    RedisConfig { username: Some("me".into()), password: Some(password.into()), ..settings(&redis.url()) }
}

/// Ends all connections of that user, as a server does whose tokens have run out.
async fn throw_out(redis: &Redis) {
    let _: i64 = redis.cli(&["CLIENT", "KILL", "USER", "me"]).await;
}

/// How often somebody logged in on a connection that was open.
async fn logins(redis: &Redis) -> u64 {
    let stats: String = redis.cli(&["INFO", "commandstats"]).await;
    let calls = |line: &str| line.strip_prefix("cmdstat_auth:calls=")?.split(',').next()?.parse().ok();
    stats.lines().find_map(calls).unwrap_or(0)
}

/// C-K6, row 45.
#[tokio::test]
async fn a_changed_password_is_shown_on_open_connections_and_used_for_new_ones() {
    for wait_fsync in [false, true] {
        let redis = guarded_valkey("first").await;
        let config = |password| RedisConfig { wait_fsync, ..as_me(&redis, password) };
        let store = RedisStore::open(&config("first"), ring("a", 1)).await.unwrap();
        let before = logins(&redis).await;
        let _: () = redis.cli(&["ACL", "SETUSER", "me", ">second"]).await;
        // What is read again and has not changed is no reason to do anything.
        store.log_in_as(&config("first")).await.unwrap();
        assert_eq!(logins(&redis).await, before);
        store.log_in_as(&config("second")).await.unwrap();
        assert!(logins(&redis).await > before, "{wait_fsync}");

        let _: () = redis.cli(&["ACL", "SETUSER", "me", "<first"]).await;
        let mut events = store.events();
        throw_out(&redis).await;
        heard(&mut events, &Event::Gap).await;
        heard(&mut events, &Event::Heard).await;
        let store: Arc<dyn Store> = Arc::new(store);
        Desk::new(&store).refresh("first").await;
    }
}

#[tokio::test]
async fn a_password_that_comes_late_ends_the_outage() {
    let redis = guarded("first").await;
    let store = RedisStore::open(&as_me(&redis, "first"), ring("a", 1)).await.unwrap();
    let _: () = redis.cli(&["ACL", "SETUSER", "me", ">second", "<first"]).await;
    throw_out(&redis).await;
    let refused = async || store.ping().await.is_err_and(|error| error.to_string().contains("WRONGPASS"));
    eventually(PATIENCE, refused).await;
    // Also after one that is wrong as well.
    store.log_in_as(&as_me(&redis, "third")).await.unwrap();
    eventually(PATIENCE, refused).await;
    store.log_in_as(&as_me(&redis, "second")).await.unwrap();
    eventually(PATIENCE, async || store.ping().await.is_ok()).await;
}

#[tokio::test]
async fn a_login_for_another_server_is_not_taken_over() {
    let (redis, other) = (guarded("first").await, guarded("second").await);
    let store = RedisStore::open(&as_me(&redis, "first"), ring("a", 1)).await.unwrap();
    store.log_in_as(&as_me(&other, "second")).await.unwrap();
    let mut events = store.events();
    throw_out(&redis).await;
    heard(&mut events, &Event::Heard).await;
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_changed_password_of_the_sentinels_is_used() {
    let redis = Redis::start().await;
    let acl = "user me on >first +sentinel|get-master-addr-by-name +sentinel|master";
    let sentinel = Sentinel::start(&redis, 1, &[acl]).await;
    let config = |password: &str| RedisConfig {
        sentinel_username: Some("me".into()),
        sentinel_password: Some(password.into()),
        ..settings(&format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port()))
    };
    let store = RedisStore::open(&config("first"), ring("a", 1)).await.unwrap();
    let _: () = sentinel.cli(&["ACL", "SETUSER", "me", ">second", "<first"]).await;
    store.log_in_as(&config("second")).await.unwrap();
    let mut events = store.events();
    for kind in ["normal", "pubsub"] {
        let _: i64 = redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
    }
    heard(&mut events, &Event::Heard).await;
    eventually(PATIENCE, async || store.ping().await.is_ok()).await;
}
