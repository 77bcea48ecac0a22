//! The look at a server before anything is kept there: what would lose grants is refused, what might is told.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::*;
use crate::support::{Bearerd, Process, eventually};

async fn set(redis: &Redis, name: &str, value: &str) {
    let _: () = redis.cli(&["CONFIG", "SET", name, value]).await;
}

fn configuration(redis: &Redis) -> String {
    format!(
        "[server]\nlisten = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n\n[store]\nkind = \"redis\"\nurl = \"{}\"\n\n\
         [seal]\nkeys = [{{ id = \"test\", file = \"@DIR@/seal\" }}]\n",
        redis.url()
    )
}

const SEAL_KEY: (&str, &str) = ("seal", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");

/// Runs a `bearerd serve` that ends by itself, for a mistake in the configuration, and says this.
async fn is_not_served(redis: &Redis, words: &str) {
    let directory = TempDir::with_prefix("bearerd-").unwrap();
    let file = directory.path().join("bearerd.toml");
    let text = configuration(redis).replace("@LISTEN@", "127.0.0.1:0").replace("@ADMIN@", "127.0.0.1:0");
    fs::write(&file, text.replace("@DIR@", directory.path().to_str().unwrap())).unwrap();
    fs::write(directory.path().join(SEAL_KEY.0), SEAL_KEY.1).unwrap();
    let mut bearerd = Process::start(Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["serve", "--config"]).arg(file));
    eventually(PATIENCE, async || bearerd.ended().is_some()).await;
    assert_eq!(bearerd.ended().and_then(|status| status.code()), Some(78), "{bearerd:?}");
    eventually(PATIENCE, async || bearerd.err().contains(words)).await;
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let redis = Redis::start().await;
    set(&redis, "maxmemory", "100mb").await;
    for (policy, lost) in [
        ("volatile-lru", "leases"),
        ("volatile-ttl", "leases"),
        ("allkeys-lru", "any key, refresh tokens included"),
        ("allkeys-random", "any key, refresh tokens included"),
    ] {
        set(&redis, "maxmemory-policy", policy).await;
        let why = refusal(&settings(&redis.url())).await;
        for part in [policy, lost, "set maxmemory-policy noeviction"] {
            assert!(why.contains(part), "{policy}: {why}");
        }
    }
    assert!(redis.keys().await.is_empty());
    is_not_served(&redis, "set maxmemory-policy noeviction").await;

    set(&redis, "maxmemory-policy", "noeviction").await;
    replica(&redis).await;
    set(&redis, "maxmemory-policy", "allkeys-lru").await;
    set(&redis, "maxmemory", "0").await;
    replica(&redis).await;
}

#[tokio::test]
async fn a_replica_is_refused() {
    let (primary, other) = (Redis::start().await, Redis::start().await);
    let _: () = other.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    let why = refusal(&settings(&other.url())).await;
    assert!(why.contains("is a replica and takes no writes"), "{why}");
    is_not_served(&other, "is a replica and takes no writes").await;
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused() {
    let redis = Redis::start_with(&["--cluster-enabled", "yes"]).await;
    let why = refusal(&settings(&redis.url())).await;
    assert!(why.contains("this is a node of a Redis Cluster; write redis+cluster://"), "{why}");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let redis = Redis::start().await;
    let config = RedisConfig { password: Some("wrong".into()), username: Some("me".into()), ..settings(&redis.url()) };
    let why = refusal(&config).await;
    assert!(why.contains("WRONGPASS") && !why.contains("\"wrong\""), "{why}");
}

#[tokio::test]
async fn a_server_that_is_away_is_no_mistake_in_the_configuration() {
    let mut redis = Redis::start().await;
    redis.kill();
    // It says where, for how long it was tried, and what to look at.
    let Some(StoreError::Unavailable(why)) = open_with(&redis, ring("a", 1)).await.err() else { panic!("not away") };
    let address = format!("127.0.0.1:{}", redis.port());
    for word in [address.as_str(), "within 5 s", "refused", "is store.url right?"] {
        assert!(why.contains(word), "{word}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_at_a_restart_is_told() {
    for (appendonly, told) in [("no", true), ("yes", false)] {
        let redis = Redis::start_with(&["--appendonly", appendonly]).await;
        let bearerd = Bearerd::start(&configuration(&redis), &[SEAL_KEY]).await;
        eventually(PATIENCE, async || bearerd.log().contains("bearerd is ready")).await;
        let log = bearerd.log();
        assert_eq!(log.contains("WARN") && log.contains("a restart of Redis loses every refresh token"), told, "{log}");
    }
}

/// C-K13, rows 46 and 47: a restart helps nothing, so each is refused with what to do.
#[tokio::test]
async fn a_server_that_lacks_what_bearerd_needs_is_refused_with_the_remedy() {
    for (lines, words) in [
        (["--requirepass", "secret-of-redis"], ["it asks for a password: set store.password", "NOAUTH"]),
        (["--rename-command", "EVALSHA"], ["bearerd needs this command", "EVALSHA"]),
        (["--rename-command", "EVAL"], ["bearerd needs this command", "EVAL"]),
        (["--rename-command", "HELLO"], ["it does not speak RESP3", "HELLO"]),
    ] {
        let (name, value) = (lines[0], lines[1]);
        let redis = match name {
            "--requirepass" => {
                let redis = Redis::start().await;
                let _: () = redis.cli(&["CONFIG", "SET", "requirepass", value]).await;
                redis
            }
            _ => Redis::start_with(&[name, value, ""]).await,
        };
        let why = refusal(&settings(&redis.url())).await;
        for word in words {
            assert!(why.contains(word), "{value}: {word}: {why}");
        }
        assert!(!why.contains("secret-of-redis"), "{why}");
    }
}

/// C-K14: a failover can lead to a server that is set up otherwise.
#[tokio::test]
async fn a_server_that_evicts_is_not_used_after_a_reconnect_either() {
    let redis = Redis::start().await;
    let store = open_with(&redis, ring("a", 1)).await.unwrap();
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    store.ping().await.unwrap();
    for kind in ["normal", "pubsub"] {
        let _: i64 = redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
    }
    let refused = async || store.ping().await.is_err_and(|error| error.to_string().contains("allkeys-lru"));
    eventually(PATIENCE, refused).await;
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    eventually(PATIENCE, async || store.ping().await.is_ok()).await;
}
