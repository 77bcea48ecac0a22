//! Events on Redis' channel: only a replica's own word raises a floor; any other message costs a look into the store.

use std::sync::Arc;

use bearerd::sandbox::{Options, Sandbox};

use crate::support::{
    PATIENCE, Redis, eventually,
    house::{House, ROTATING},
};

/// The largest generation: years after any token.
const FAR: &str = "9007199254740991";

/// Lives longer than the test: only events end what is believed.
fn lines() -> String {
    format!("{ROTATING}\n[cache]\nmax_age = \"1h\"\n")
}

/// How many scripts the server ran so far.
async fn scripts(redis: &Redis) -> u64 {
    let stats: String = redis.cli(&["INFO", "commandstats"]).await;
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| line.contains("eval")).filter_map(calls).sum()
}

/// The names of the only grant and of its token.
async fn names(redis: &Redis) -> (String, String) {
    let keys = redis.keys().await;
    let key = keys.iter().find(|key| key.contains(":token:")).expect("a token");
    let (unit, token) = key.strip_prefix("bearerd:{").unwrap().split_once("}:token:").unwrap();
    (unit.to_owned(), token.to_owned())
}

/// S6 and case 45: whoever may publish on the channel cannot end caching.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_without_proof_keeps_tokens_out_of_memory() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, &lines()).await;
    let first = house.get("demo").await.unwrap();
    let (unit, token) = names(&redis).await;
    for forged in [
        format!("{unit} {token} {FAR}"),
        format!("{unit} * {FAR}"),
        format!("{unit} {token} {FAR} AAAAAAAAAAAAAAAAAAAAAA"),
        format!("{unit} * 18446744073709551615 AAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        let before = scripts(&redis).await;
        let heard: u32 = redis.cli(&["PUBLISH", "bearerd:events", &forged]).await;
        assert_eq!(heard, 1);
        // It asks for a look, so that a replica of an older version is still heard.
        eventually(PATIENCE, async || {
            assert_eq!(house.get("demo").await.unwrap().generation, first.generation, "{forged}");
            scripts(&redis).await > before
        })
        .await;
        let before = scripts(&redis).await;
        for _ in 0..100 {
            assert_eq!(house.get("demo").await.unwrap().generation, first.generation);
        }
        // Upkeep looks at the store meanwhile.
        let after = scripts(&redis).await;
        assert!(after < before + 20, "{forged}: {before} to {after}");
    }
    assert_eq!(house.asked(), 1);
}

/// A replica of the version before codes publishes without one: the others find out at their next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_older_version_is_followed_by_a_look() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, &lines()).await;
    let first = house.get("demo").await.unwrap();
    let (unit, token) = names(&redis).await;
    // What an older replica's script does for a rejection.
    let _: i64 = redis.cli(&["DEL", &format!("bearerd:{{{unit}}}:token:{token}")]).await;
    let event = format!("{unit} {token} {}", first.generation);
    let _: u32 = redis.cli(&["PUBLISH", "bearerd:events", &event]).await;
    eventually(PATIENCE, async || house.get("demo").await.unwrap().generation > first.generation).await;
    assert_eq!(house.asked(), 2);
}

/// What replicas say can be recorded and said again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_event_that_is_said_again_changes_nothing() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let lines = lines();
    let (here, there) = tokio::join!(House::beside(&redis, &sandbox, &lines), House::beside(&redis, &sandbox, &lines));
    let mut recorded = redis.listen("bearerd:events").await;
    let first = here.get("demo").await.unwrap();
    let (_, second) = here.report("demo", first.generation).await.unwrap();
    let second = second.unwrap();
    eventually(PATIENCE, async || there.get("demo").await.unwrap().generation == second.generation).await;
    let mut messages = Vec::new();
    while let Ok(message) = recorded.try_recv() {
        messages.push(message);
    }
    assert!(messages.iter().any(|message| message.split(' ').count() == 4), "{messages:?}");
    for message in &messages {
        let _: u32 = redis.cli(&["PUBLISH", "bearerd:events", message]).await;
    }
    let before = scripts(&redis).await;
    for _ in 0..100 {
        for house in [&here, &there] {
            assert_eq!(house.get("demo").await.unwrap().generation, second.generation);
        }
    }
    let after = scripts(&redis).await;
    assert!(after < before + 20, "{before} to {after}");
    assert_eq!(here.asked(), 2);
}
