//! The ACL user that the documentation shows: it may do what bearerd does, and nothing else.

use std::{collections::BTreeSet, fs};

use bearerd::store::{Event, Step};
use tempfile::TempDir;

use super::*;
use crate::support::eventually;

/// The line of `deploy/README.md`, as it would stand in an ACL file.
fn documented() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).unwrap();
    let mut lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("user "));
    let line = lines.next().expect("a line for an ACL file").to_owned();
    assert_eq!(lines.next(), None);
    line
}

/// A server with that user, the user's settings, what the user may run, and the directory of the ACL file.
async fn guarded() -> (Redis, RedisConfig, BTreeSet<String>, TempDir) {
    let line = documented();
    let directory = TempDir::with_prefix("bearerd-acl-").unwrap();
    let file = directory.path().join("users.acl");
    fs::write(&file, &line).unwrap();
    let redis = Redis::start_with(&["--aclfile", file.to_str().unwrap()]).await;
    let (username, password) = (line.split(' ').nth(1), line.split(' ').find_map(|word| word.strip_prefix('>')));
    let config = RedisConfig {
        username: username.map(str::to_owned),
        password: password.map(Into::into),
        prefix: "bearerd".into(),
        ..settings(&redis.url())
    };
    let commands = line.split(' ').filter_map(|word| word.strip_prefix('+').map(str::to_owned)).collect();
    (redis, config, commands, directory)
}

/// How often the server denied something.
async fn denied(redis: &Redis) -> usize {
    redis.cli::<Vec<redis::Value>>(&["ACL", "LOG"]).await.len()
}

#[tokio::test]
async fn the_documented_user_may_do_what_is_done_and_nothing_else() {
    let (redis, config, commands, _file) = guarded().await;
    let _: () = redis.cli(&["CONFIG", "RESETSTAT"]).await;
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    let mut events = store.events();
    canary::leave(&store).await;
    Desk::new(&store).refresh("first").await;
    assert!(matches!(events.recv().await, Ok(Event::Changed(_))));
    store.reseal(&Step { from: None, reseal: true }).await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(denied(&redis).await, 0);

    let stats: String = redis.cli(&["INFO", "commandstats"]).await;
    let done = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    // Whoever logs in may say HELLO; the rest is what this test itself runs.
    let own = ["hello", "config|resetstat", "acl|log", "client|setinfo", "client"];
    let done: BTreeSet<String> = done.filter(|command| !own.contains(command)).map(str::to_owned).collect();
    assert_eq!(done, commands);
}

#[tokio::test]
async fn a_right_that_is_missing_is_told() {
    let (redis, config, _, _file) = guarded().await;
    for (missing, word) in
        [("-subscribe", "subscribe"), ("-ping", "ping"), ("resetchannels", "channels"), ("-set", "set")]
    {
        let _: () = redis.cli(&["ACL", "LOAD"]).await;
        let _: () = redis.cli(&["ACL", "SETUSER", "bearerd", missing]).await;
        let why = refusal(&config).await;
        assert!(why.contains("NoPerm") && why.contains(word), "{missing}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_info_the_server_is_taken_as_it_is() {
    let (redis, config, _, _file) = guarded().await;
    let _: () = redis.cli(&["ACL", "SETUSER", "bearerd", "-info"]).await;
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    Desk::new(&store).refresh("first").await;
    // The role is known all the same.
    let _: () = redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    eventually(PATIENCE, async || store.ping().await.is_err_and(|error| error.to_string().contains("replica"))).await;
    assert!(refusal(&config).await.contains("is a replica"));
}
