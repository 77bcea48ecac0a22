//! Tokens while the store is away, for grants for which asking twice is harmless.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bearerd::{
    proto::{GetTokenRequest, InvalidateTokenOutcome as Outcome},
    sandbox::{Fault, Options, Sandbox},
};
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, Redis, eventually,
    house::{CLIENT_CREDENTIALS, House, ROTATING, reason},
};

/// `cc` is served without the store, `young` too but no sooner than its tokens may be replaced; `plain` is not.
fn credentials() -> String {
    let named = |name: &str, lines: &str| {
        CLIENT_CREDENTIALS.replace("[credentials.cc]", &format!("[credentials.{name}]\n{lines}"))
    };
    let (served, young) = ("store_outage = \"serve\"\nmin_age = \"0s\"", "store_outage = \"serve\"");
    [named("cc", served), named("young", young), named("plain", ""), ROTATING.to_owned()].concat()
}

async fn replicas<const COUNT: usize>() -> (Redis, Arc<Sandbox>, [House; COUNT]) {
    replicas_before(Options::default()).await
}

async fn replicas_before<const COUNT: usize>(provider: Options) -> (Redis, Arc<Sandbox>, [House; COUNT]) {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(provider).await.unwrap()));
    let credentials = credentials();
    let houses = join_all((0..COUNT).map(|_| House::beside(&redis, &sandbox, &credentials))).await;
    (redis, sandbox, houses.try_into().ok().unwrap())
}

/// Starts Redis again, and waits until this replica has found it: `plain` is not served without.
async fn back(redis: &mut Redis, house: &House) {
    redis.start_again().await;
    eventually(PATIENCE, async || house.get("plain").await.is_ok()).await;
}

fn is_unavailable(status: &Status) -> bool {
    let (code, word, _) = reason(status);
    (code, word.as_str()) == (Code::Unavailable, "STORE_UNAVAILABLE")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replica_asks_for_itself_and_the_stores_own_token_wins_when_it_is_back() {
    let (mut redis, sandbox, [here, there]) = replicas().await;
    let stored = here.get("cc").await.unwrap();
    redis.kill();

    // One request for all reports of one token, here alone.
    let reports = join_all((0..20).map(|_| here.report("cc", stored.generation))).await;
    let tokens: Vec<_> = reports.into_iter().map(|report| report.unwrap().1.unwrap()).collect();
    let generations: HashSet<u64> = tokens.iter().map(|token| token.generation).collect();
    assert_eq!(generations, HashSet::from([stored.generation + 1]));
    assert!(tokens.iter().all(|token| token.degraded && token.access_token != stored.access_token));
    assert_eq!(sandbox.journal().len(), 2);
    // It is kept as any other, and reported as any other.
    assert_eq!(here.get("cc").await.unwrap().access_token, tokens[0].access_token);
    let (outcome, late) = here.report("cc", stored.generation).await.unwrap();
    assert_eq!((outcome, late.unwrap().generation), (Outcome::AlreadyReplaced, stored.generation + 1));
    assert_eq!(sandbox.journal().len(), 2);
    // A replica that has none asks for its own.
    let own = there.get("cc").await.unwrap();
    assert!(own.degraded && own.access_token != tokens[0].access_token);
    assert_eq!(there.get("cc").await.unwrap().access_token, own.access_token);
    assert_eq!(sandbox.journal().len(), 3);

    redis.start_again().await;
    let newer = async |house: &House| {
        let token = house.get("cc").await.unwrap();
        (!token.degraded && token.generation > stored.generation + 1).then_some(token.access_token)
    };
    eventually(PATIENCE, async || {
        let (one, other) = (newer(&here).await, newer(&there).await);
        one.is_some() && one == other
    })
    .await;
    assert_eq!(sandbox.journal().len(), 4, "one token for both, as ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_flooded_and_nothing_is_risked_meanwhile() {
    let (mut redis, sandbox, [house]) = replicas().await;
    redis.kill();
    // What is not to be served so, and what cannot be: a refresh token may be in use elsewhere.
    for credential in ["plain", "demo"] {
        assert!(is_unavailable(&house.get(credential).await.unwrap_err()), "{credential}");
    }
    assert_eq!(sandbox.journal().len(), 0);

    // A fresh token is not replaced.
    let young = house.get("young").await.unwrap();
    for _ in 0..3 {
        assert_eq!(house.report("young", young.generation).await.unwrap().0, Outcome::HeldBack);
    }
    // A made-up generation moves nothing, and a token that is newer is promised to nobody.
    let (outcome, same) = house.report("young", u64::MAX).await.unwrap();
    assert_eq!((outcome, same.unwrap().access_token), (Outcome::AlreadyReplaced, young.access_token.clone()));
    let refusing = |generation| GetTokenRequest {
        credential: "young".to_owned(),
        refused_generation: generation,
        ..GetTokenRequest::default()
    };
    assert!(is_unavailable(&house.ask(refusing(u64::MAX)).await.unwrap_err()));
    assert_eq!(reason(&house.ask(refusing(young.generation)).await.unwrap_err()).1, "TOKEN_REJECTED_REPEATEDLY");
    assert_eq!(house.get("young").await.unwrap().access_token, young.access_token);
    assert_eq!(sandbox.journal().len(), 1);

    // A provider that wants a rest gets it.
    sandbox.fail_next(Fault::Wait { status: 429, retry_after: "60".to_owned() });
    for _ in 0..3 {
        let (_, word, wait) = reason(&house.get("cc").await.unwrap_err());
        assert_eq!((word.as_str(), wait.unwrap() > Duration::from_secs(50)), ("PROVIDER_RATE_LIMITED", true));
    }
    assert_eq!(sandbox.journal().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_too_is_asked_with_growing_waits() {
    let (mut redis, sandbox, [house]) = replicas().await;
    redis.kill();
    // What is told by the first and by the second failure at most: half a second and a second, and a fifth more.
    let mut longest = [Duration::ZERO; 2];
    (0..2).for_each(|_| sandbox.fail_next(Fault::Status(503)));
    eventually(PATIENCE, async || match house.get("cc").await {
        Ok(_) => true,
        Err(status) => {
            let (_, word, wait) = reason(&status);
            assert_eq!(word, "PROVIDER_UNAVAILABLE");
            let failure = sandbox.journal().len() - 1;
            longest[failure] = longest[failure].max(wait.unwrap());
            false
        }
    })
    .await;
    let [first, second] = longest;
    assert!(first <= Duration::from_millis(600) && second > Duration::from_millis(600), "{longest:?}");
    assert_eq!(sandbox.journal().len(), 3, "whoever came during a wait was told of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_token_that_is_rejected_when_the_store_is_back_is_not_served_again() {
    let (mut redis, sandbox, [house]) = replicas().await;
    redis.kill();
    let own = house.get("cc").await.unwrap();
    back(&mut redis, &house).await;
    let asked = sandbox.journal().len();
    let (outcome, next) = house.report("cc", own.generation).await.unwrap();
    let next = next.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
    assert!(next.access_token != own.access_token && next.generation > own.generation);
    assert_eq!(sandbox.journal().len(), asked + 1);
    let (outcome, same) = house.report("cc", own.generation).await.unwrap();
    assert_eq!((outcome, same.unwrap().access_token), (Outcome::AlreadyReplaced, next.access_token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_every_caller_looks_into_the_store_while_an_own_token_is_replaced() {
    const CALLS: usize = 100;
    let slow = Options { latency: Duration::from_secs(2), ..Options::default() };
    let (mut redis, _sandbox, [house]) = replicas_before(slow).await;
    redis.kill();
    let own = house.get("cc").await.unwrap();
    back(&mut redis, &house).await;
    let _: () = redis.cli(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(house.get("cc").await.unwrap().access_token, own.access_token);
    for _ in 1..CALLS {
        house.get("cc").await.unwrap();
    }
    let statistics: String = redis.cli(&["INFO", "commandstats"]).await;
    let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    let calls: usize = calls.unwrap().parse().unwrap();
    assert!(calls < CALLS / 2, "{statistics}");
}
