//! The ACL users that the documentation shows: each may do what bearerd does, and nothing else.

use std::{collections::BTreeSet, fs};

use bearerd::{
    secret::ExposeSecret,
    store::{Event, Step},
};
use tempfile::TempDir;

use super::*;
use crate::support::{Cluster, Sentinel, eventually};

/// The lines of `deploy/README.md`, as they would stand in an ACL file: for a server, a node of a cluster, a Sentinel.
fn documented() -> [String; 3] {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).unwrap();
    let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("user ")).map(str::to_owned);
    lines.collect::<Vec<_>>().try_into().expect("three lines for ACL files")
}

/// The name and the password of a line.
fn login(line: &str) -> (String, String) {
    let mut words = line.split(' ');
    let name = words.nth(1).unwrap();
    (name.to_owned(), words.find_map(|word| word.strip_prefix('>')).unwrap().to_owned())
}

/// The settings of whoever is that user.
fn as_user(line: &str, url: &str) -> RedisConfig {
    let (username, password) = login(line);
    let password = Some(password.as_str().into());
    RedisConfig { username: Some(username), password, prefix: "bearerd".into(), ..settings(url) }
}

fn commands(line: &str) -> BTreeSet<String> {
    line.split(' ').filter_map(|word| word.strip_prefix('+').map(str::to_owned)).collect()
}

/// An ACL file, and its directory.
fn file(line: &str) -> (String, TempDir) {
    let directory = TempDir::with_prefix("bearerd-acl-").unwrap();
    let file = directory.path().join("users.acl");
    fs::write(&file, line).unwrap();
    (file.to_str().unwrap().to_owned(), directory)
}

/// A server with that user, the user's settings, what the user may run, and the directory of the ACL file.
async fn guarded() -> (Redis, RedisConfig, BTreeSet<String>, TempDir) {
    let [line, _, _] = documented();
    let (file, directory) = file(&line);
    let redis = Redis::start_with(&["--aclfile", &file]).await;
    let config = as_user(&line, &redis.url());
    (redis, config, commands(&line), directory)
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

/// Case 45: whoever has the password reaches no other key and no other channel.
#[tokio::test]
async fn the_documented_user_reaches_no_foreign_key_and_no_foreign_channel() {
    let (redis, config, _, _file) = guarded().await;
    let _: () = redis.cli(&["SET", "foreign", "x"]).await;
    let _: () = redis.cli(&["HSET", "bearer:{crm/u}:grant", "rev", "1"]).await;
    let login = format!("{}:{}@", config.username.unwrap(), config.password.unwrap().expose_secret());
    let client = redis::Client::open(redis.url().replace("redis://", &format!("redis://{login}"))).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script = "return redis.call(ARGV[1], KEYS[1], ARGV[2])";
    for words in [
        vec!["GET", "foreign"],
        vec!["SET", "foreign", "y"],
        vec!["EVAL", script, "1", "foreign", "SET", "y"],
        vec!["EVAL", script, "1", "bearer:{crm/u}:grant", "HGET", "rev"],
        vec!["EVAL", "return redis.call('PUBLISH', ARGV[1], 'x')", "0", "foreign"],
        vec!["PUBLISH", "foreign", "x"],
        vec!["PUBLISH", "bearerd:events:foreign", "x"],
        vec!["SUBSCRIBE", "foreign"],
        vec!["PSUBSCRIBE", "*"],
        vec!["KEYS", "*"],
        vec!["CONFIG", "GET", "*"],
        vec!["FLUSHALL"],
    ] {
        let answer: redis::RedisResult<redis::Value> =
            redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await;
        let error = answer.expect_err(&format!("{words:?} was allowed"));
        let text = error.to_string();
        let denied = ["NoPerm", "ACL failure", "can't publish", "can't access"].iter().any(|word| text.contains(word));
        assert!(denied || error.code() == Some("NOPERM"), "{words:?}: {text}");
    }
    assert_eq!(redis.cli::<String>(&["GET", "foreign"]).await, "x");
    // The same user's own key and channel, so that it was not for another reason.
    let _: () = redis::cmd("SET").arg("bearerd:own").arg("x").query_async(&mut connection).await.unwrap();
    let _: () = redis::cmd("PUBLISH").arg("bearerd:events").arg("x").query_async(&mut connection).await.unwrap();
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

#[tokio::test]
async fn durable_writes_take_one_right_more() {
    let [line, _, _] = documented();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).unwrap();
    let (file, _directory) = file(&line);
    let redis = Redis::start_valkey(&["--aclfile", &file]).await;
    let plain = as_user(&line, &redis.url());
    for (right, config) in [
        ("wait", RedisConfig { wait_replicas: 1, ..plain.clone() }),
        ("waitaof", RedisConfig { wait_fsync: true, ..plain.clone() }),
    ] {
        assert!(readme.contains(&format!("`+{right}`")), "{right}");
        let why = refusal(&config).await;
        assert!(why.contains("NoPerm") && why.contains(&format!("'{right}'")), "{why}");
        let _: () = redis.cli(&["ACL", "SETUSER", "bearerd", &format!("+{right}")]).await;
        let _: () = redis.cli(&["ACL", "LOG", "RESET"]).await;
        // There is no replica to wait for; that is told only to whoever writes what must not be forgotten.
        let answer = RedisStore::open(&config, ring("a", 1)).await;
        assert_eq!(answer.is_ok(), right == "waitaof", "{right}");
        assert_eq!(denied(&redis).await, 0);
    }
}

#[tokio::test]
async fn in_a_cluster_the_user_may_ask_for_the_nodes() {
    let [single, line, _] = documented();
    let more: Vec<String> = commands(&line).difference(&commands(&single)).cloned().collect();
    assert_eq!(more, ["cluster|info", "cluster|slots"]);
    assert!(commands(&single).is_subset(&commands(&line)));

    let (file, _directory) = file(&line);
    let cluster = Cluster::start_with(&["--aclfile", &file]).await;
    let config = as_user(&line, &cluster.url());
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    let mut events = store.events();
    for number in 0..20 {
        Desk::of(&store, &format!("subject {number}"), "read").refresh("first").await;
    }
    assert!(matches!(events.recv().await, Ok(Event::Changed(_))));
    store.ping().await.unwrap();
    assert!(cluster.on_primaries::<Vec<redis::Value>>(&["ACL", "LOG"]).await.iter().all(Vec::is_empty));

    for missing in more {
        cluster.on_primaries::<()>(&["ACL", "SETUSER", "bearerd", &format!("-{missing}")]).await;
        let why = refusal(&config).await;
        assert!(why.contains("NoPerm") && why.contains(&missing), "{missing}: {why}");
    }
}

#[tokio::test]
async fn at_a_sentinel_the_user_may_ask_for_the_primary() {
    let [_, _, line] = documented();
    let redis = Redis::start().await;
    let sentinel = Sentinel::start(&redis, 1, &[&line]).await;
    let (username, password) = login(&line);
    let config = RedisConfig {
        sentinel_username: Some(username.clone()),
        sentinel_password: Some(password.as_str().into()),
        ..settings(&format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port()))
    };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    Desk::new(&store).refresh("first").await;
    store.ping().await.unwrap();
    assert!(sentinel.cli::<Vec<redis::Value>>(&["ACL", "LOG"]).await.is_empty());

    for missing in commands(&line) {
        let _: () = sentinel.cli(&["ACL", "SETUSER", &username, &format!("-{missing}")]).await;
        let why = refusal(&config).await;
        assert!(why.contains("NoPerm") && why.contains(&missing), "{missing}: {why}");
        let _: () = sentinel.cli(&["ACL", "SETUSER", &username, &format!("+{missing}")]).await;
    }
}
