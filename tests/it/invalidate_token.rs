//! `InvalidateToken`: one refresh for everybody, nothing for late or made-up reports, and rejection rules for evidence.

use std::{sync::Arc, time::Duration};

use bearerd::{
    proto::{
        GetTokenRequest, InvalidateTokenOutcome as Outcome, InvalidateTokenRequest, Rejection,
        invalidate_token_request::Rejected,
    },
    sandbox::{Options, Sandbox},
};

use crate::{
    provider_words::{answer, endpoint},
    support::{
        Redis,
        house::{CLIENT_CREDENTIALS, House, ROTATING, reason},
    },
};

fn reporting(rejected: Rejected) -> InvalidateTokenRequest {
    InvalidateTokenRequest {
        credential: "demo".to_owned(),
        rejected: Some(rejected),
        ..InvalidateTokenRequest::default()
    }
}

#[tokio::test]
async fn a_report_about_the_current_token_gets_a_new_one() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let (outcome, token) = house.report("demo", first.generation).await.unwrap();
    let token = token.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
    assert!(token.generation > first.generation && token.access_token != first.access_token);
    assert!(house.get("demo").await.unwrap() == token);
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn two_hundred_reports_at_once_make_one_refresh() {
    let house = House::furnished(Options { latency: Duration::from_millis(100), ..Options::default() }, ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let all = futures_util::future::join_all((0..200).map(|_| house.report("demo", first.generation))).await;
    let tokens: std::collections::HashSet<u64> =
        all.into_iter().map(|answer| answer.unwrap().1.unwrap().generation).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens.iter().all(|generation| *generation > first.generation));
    assert_eq!(house.asked(), 2);
}

/// What a report means is found out once for all who report the same at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_at_once_are_one_rejection_in_the_store() {
    let slow = Options { latency: Duration::from_secs(1), ..Options::default() };
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(slow).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    let scripts = async || {
        let statistics: String = redis.cli(&["INFO", "commandstats"]).await;
        let calls = statistics.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.filter_map(|line| line.split(',').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    for by_value in [false, true] {
        let first = house.get("demo").await.unwrap();
        let (value, generation) = (&first.access_token, first.generation);
        let rejected = || match by_value {
            true => Rejected::AccessToken(value.clone()),
            false => Rejected::Generation(generation),
        };
        let before = (rejections(&redis), scripts().await, house.asked());
        let all = futures_util::future::join_all((0..200).map(|_| house.report_whole(reporting(rejected())))).await;
        assert!(all.into_iter().all(|answer| answer.unwrap().1.unwrap().generation > generation));
        assert_eq!(rejections(&redis) - before.0, 1, "{by_value}");
        assert!(scripts().await - before.1 < 20, "{by_value}: {} scripts", scripts().await - before.1);
        assert_eq!(house.asked() - before.2, 1, "{by_value}");
    }
}

/// How often a token was rejected in the store: each time its strikes are noted.
fn rejections(redis: &Redis) -> usize {
    redis.changes().iter().filter(|command| command.iter().any(|word| word == "strikes")).count()
}

#[tokio::test]
async fn late_and_made_up_reports_ask_nobody() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let (_, second) = house.report("demo", first.generation).await.unwrap();
    for rejected in [
        Rejected::Generation(first.generation),
        Rejected::Generation(1),
        Rejected::Generation(u64::MAX),
        Rejected::AccessToken(first.access_token.clone()),
        Rejected::AccessToken("never-issued".to_owned()),
    ] {
        let (outcome, token) = house.report_whole(reporting(rejected.clone())).await.unwrap();
        assert_eq!(outcome, Outcome::AlreadyReplaced, "{rejected:?}");
        assert!(token == second, "{rejected:?}");
    }
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn a_report_may_name_the_token_itself() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let rejected = Rejected::AccessToken(first.access_token.clone());
    let (outcome, token) = house.report_whole(reporting(rejected)).await.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
    assert!(token.unwrap().generation > first.generation);
}

#[tokio::test]
async fn evidence_is_judged_and_a_scope_problem_refreshes_nothing() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let with = |http_status, challenge: &str| InvalidateTokenRequest {
        rejection: Some(Rejection {
            http_status,
            www_authenticate: vec![challenge.to_owned()],
            ..Rejection::default()
        }),
        ..reporting(Rejected::Generation(first.generation))
    };
    for (status, challenge) in [
        (403, r#"Bearer error="insufficient_scope", scope="admin""#),
        (401, r#"Basic realm="proxy""#),
        (401, r#"DPoP error="use_dpop_nonce""#),
        (407, r#"Bearer error="invalid_token""#),
        (503, r#"Bearer error="invalid_token""#),
    ] {
        let (outcome, token) = house.report_whole(with(status, challenge)).await.unwrap();
        assert_eq!(outcome, Outcome::NotATokenRejection, "{status} {challenge}");
        assert!(token.is_none());
    }
    assert_eq!(house.asked(), 1);
    let (outcome, _) = house.report_whole(with(401, r#"Bearer error="invalid_token""#)).await.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
}

#[tokio::test]
async fn after_a_report_nobody_gets_the_rejected_token_any_more() {
    let house = House::furnished(Options { latency: Duration::from_millis(50), ..Options::default() }, ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let report = house.report("demo", first.generation);
    let readers = futures_util::future::join_all((0..50).map(|_| async {
        let wanted = GetTokenRequest {
            credential: "demo".to_owned(),
            refused_generation: first.generation,
            ..GetTokenRequest::default()
        };
        house.ask(wanted).await.unwrap().generation
    }));
    let (reported, read) = futures_util::future::join(report, readers).await;
    let (_, token) = reported.unwrap();
    assert!(read.iter().all(|generation| *generation > first.generation));
    assert!(house.get("demo").await.unwrap() == token.unwrap());
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn a_report_has_to_name_a_token() {
    let house = House::with(ROTATING).await;
    let request = InvalidateTokenRequest { rejected: None, ..reporting(Rejected::Generation(0)) };
    let status = house.report_whole(request).await.unwrap_err();
    assert_eq!(reason(&status).1, "INVALID_REQUEST");
}

/// An API that refuses everything must not flood the provider.
#[tokio::test]
async fn a_fresh_token_is_not_replaced_and_the_wait_is_told() {
    let house = House::with(&ROTATING.replace("min_age = \"0s\"", "")).await;
    let first = house.get("demo").await.unwrap();
    for _ in 0..5 {
        let request = reporting(Rejected::Generation(first.generation));
        let answer = house.tokens.clone().invalidate_token(request).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), Outcome::HeldBack);
        assert!(answer.token.is_none() && answer.detail.contains("in 10 s"), "{}", answer.detail);
        let next = std::time::SystemTime::try_from(answer.next_attempt_at.unwrap()).unwrap();
        assert!(next > std::time::SystemTime::now());
        // To refuse it is to report it.
        let refusing = GetTokenRequest {
            credential: "demo".to_owned(),
            refused_generation: first.generation,
            ..GetTokenRequest::default()
        };
        let (code, word, wait) = reason(&house.ask(refusing).await.unwrap_err());
        assert_eq!((code, word.as_str()), (tonic::Code::FailedPrecondition, "TOKEN_REJECTED_REPEATEDLY"));
        assert!(wait.unwrap() <= Duration::from_secs(10));
    }
    assert_eq!(house.asked(), 1);
    assert!(house.get("demo").await.unwrap() == first, "it goes on being served");
}

/// Whoever may get tokens can name any generation; a newer one than the current one is no way past `min_age`.
#[tokio::test]
async fn a_made_up_generation_that_is_refused_is_damped_like_the_current_one() {
    let house = House::with(&ROTATING.replace("min_age = \"0s\"", "")).await;
    let first = house.get("demo").await.unwrap();
    for ahead in [1, 1_000] {
        let refused_generation = first.generation + ahead;
        let refusing =
            GetTokenRequest { credential: "demo".to_owned(), refused_generation, ..GetTokenRequest::default() };
        let (code, word, wait) = reason(&house.ask(refusing).await.unwrap_err());
        assert_eq!((code, word.as_str()), (tonic::Code::FailedPrecondition, "TOKEN_REJECTED_REPEATEDLY"), "{ahead}");
        assert!(wait.unwrap() <= Duration::from_secs(10));
    }
    assert_eq!(house.asked(), 1);
    assert!(house.get("demo").await.unwrap() == first, "it goes on being served");
}

#[tokio::test]
async fn a_call_with_a_fresh_token_is_sent_once_more_with_the_same() {
    let house = House::with(&ROTATING.replace("min_age = \"0s\"", "")).await;
    let first = house.get("demo").await.unwrap();
    house.sandbox.revoke_access_tokens();
    let answer = house.call("demo", "/hello").await.unwrap();
    assert_eq!((answer.status, answer.attempts, answer.refreshed), (401, 2, false));
    assert_eq!(answer.generation, first.generation);
    assert_eq!(house.asked(), 1);
}

/// P-K15, row 35.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_token_once_more_is_no_new_one() {
    let body = r#"{"access_token":"fixed","token_type":"Bearer","expires_in":60}"#;
    let place = endpoint(move |_| answer(200, "", body)).await;
    let credentials = CLIENT_CREDENTIALS.replace("{token_url}", &format!("http://{place}"));
    let house = House::with(&format!("{credentials}\nmin_age = \"0s\"\n")).await;
    let first = house.get("cc").await.unwrap();
    for rejected in [Rejected::Generation(first.generation), Rejected::AccessToken("fixed".to_owned())] {
        let request = InvalidateTokenRequest {
            credential: "cc".to_owned(),
            rejected: Some(rejected),
            ..InvalidateTokenRequest::default()
        };
        let answer = house.tokens.clone().invalidate_token(request).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), Outcome::HeldBack, "outcome");
        assert!(answer.detail.contains("the same token again") && answer.token.is_none(), "{}", answer.detail);
    }
    // It is valid as far as the provider says, so callers go on with it.
    assert!(house.get("cc").await.unwrap().generation > first.generation);
}
