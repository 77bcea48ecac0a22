//! A Redis that goes back in time, and a provider that ends a grant when a refresh token is used twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bearerd::{
    proto::{DescribeGrantRequest, ImportGrantRequest, import_grant_request::Secret},
    sandbox::{Fault, Options, Outcome, Sandbox},
};

use crate::support::{
    PATIENCE, Redis, eventually,
    house::{House, ROTATING, reason},
};

async fn set_out(options: Options) -> (Redis, Arc<Sandbox>, House) {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(options).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    (redis, sandbox, house)
}

/// Replaces the current token as soon as the store is there, and returns the new one's generation.
async fn replaced(house: &House, generation: u64) -> u64 {
    let mut newer = None;
    eventually(PATIENCE, async || {
        newer = house.report("demo", generation).await.ok().and_then(|(_, token)| token);
        newer.is_some()
    })
    .await;
    newer.unwrap().generation
}

/// How often the provider was asked; each time with another refresh token, and it never refused.
fn refreshes(sandbox: &Sandbox) -> usize {
    let journal = sandbox.journal();
    assert!(journal.iter().all(|entry| entry.outcome == Outcome::Issued), "{journal:?}");
    let presented: HashSet<_> = journal.iter().map(|entry| entry.presented).collect();
    assert_eq!(presented.len(), journal.len(), "{journal:?}");
    journal.len()
}

/// The revision of the one grant that Redis has.
async fn stored(redis: &Redis) -> Option<u64> {
    let key = redis.keys().await.into_iter().find(|key| key.ends_with(":grant"))?;
    redis.cli::<Option<u64>>(&["HGET", &key, "rev"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_is_there_again_before_anybody_asks() {
    let (mut redis, sandbox, house) = set_out(Options::default()).await;
    let first = house.get("demo").await.unwrap().generation;
    redis.kill();
    let then = redis.snapshot();
    redis.start_again().await;
    let second = replaced(&house, first).await;
    redis.kill();
    redis.roll_back(&then);
    redis.start_again().await;
    // Nobody calls, and yet other replicas can read what was lost.
    eventually(PATIENCE, async || stored(&redis).await == Some(second)).await;
    assert!(replaced(&house, second).await > second);
    assert_eq!(refreshes(&sandbox), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_gone_is_not_begun_anew() {
    let (redis, sandbox, house) = set_out(Options::default()).await;
    let first = house.get("demo").await.unwrap().generation;
    // Without a lost connection, which would be a hint. The first refresh token of the configuration is spent.
    let _: () = redis.cli(&["FLUSHALL"]).await;
    assert_eq!(house.get("demo").await.unwrap().generation, first);
    let second = replaced(&house, first).await;
    assert!(second > first);
    assert_eq!(refreshes(&sandbox), 2);
    // So is an import, of which there is no token yet.
    let import = ImportGrantRequest {
        credential: "demo".to_owned(),
        secret: Some(Secret::RefreshToken(sandbox.mint_refresh_token("jane"))),
        no_verify: true,
        ..ImportGrantRequest::default()
    };
    let imported = house.grants.clone().import_grant(import).await.unwrap().into_inner().generation;
    let _: () = redis.cli(&["FLUSHALL"]).await;
    let ask = DescribeGrantRequest { credential: "demo".to_owned(), ..DescribeGrantRequest::default() };
    assert_eq!(house.grants.clone().describe_grant(ask.clone()).await.unwrap().into_inner().generation, imported);
    house.get("demo").await.unwrap();
    assert_eq!(refreshes(&sandbox), 3);
    // So is the key of names, without which a replica that starts now would look elsewhere.
    let _: () = redis.cli(&["FLUSHALL"]).await;
    house.grants.clone().describe_grant(ask).await.unwrap();
    assert!(redis.keys().await.contains(&"bearerd:root".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_it_is_stored() {
    let slow = Options { latency: Duration::from_secs(1), ..Options::default() };
    let (redis, sandbox, house) = set_out(slow).await;
    let first = house.get("demo").await.unwrap().generation;
    // The provider has acted, and what the answer was asked from is gone when it comes.
    let (report, ()) = tokio::join!(house.report("demo", first), async {
        eventually(PATIENCE, async || house.asked() == 2).await;
        let _: () = redis.cli(&["FLUSHALL"]).await;
    });
    let second = report.unwrap().1.unwrap().generation;
    assert_eq!(stored(&redis).await, Some(second));
    assert!(!redis.keys().await.iter().any(|key| key.ends_with(":lease")));
    assert!(replaced(&house, second).await > second);
    assert_eq!(refreshes(&sandbox), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_token_does_not_come_back_with_what_was_lost() {
    let (redis, sandbox, house) = set_out(Options::default()).await;
    // The other replica made the token; it is told of the rejection and does not take the report itself.
    let other = House::beside(&redis, &sandbox, ROTATING).await;
    let first = other.get("demo").await.unwrap();
    sandbox.fail_next(Fault::Status(503));
    assert_eq!(reason(&house.report("demo", first.generation).await.unwrap_err()).1, "PROVIDER_UNAVAILABLE");
    assert!(other.get("demo").await.is_err(), "it knows that the token is dead");
    let _: () = redis.cli(&["FLUSHALL"]).await;
    let ask = DescribeGrantRequest { credential: "demo".to_owned(), ..DescribeGrantRequest::default() };
    other.grants.clone().describe_grant(ask).await.unwrap();
    assert_eq!(stored(&redis).await, Some(first.generation));

    let newcomer = House::beside(&redis, &sandbox, ROTATING).await;
    let token = newcomer.get("demo").await.unwrap();
    assert!(token.generation > first.generation && token.access_token != first.access_token);
}
