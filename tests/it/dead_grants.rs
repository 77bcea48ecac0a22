//! A grant that was declared dead keeps its refresh token, and can live again.

use std::{collections::BTreeMap, process::Command, sync::Arc};

use bearerd::{
    proto::{
        DescribeGrantRequest, GetTokenRequest, GrantState, ImportGrantRequest, InvalidateTokenRequest, RetriedGrant,
        RetryGrantRequest, RetryOutcome, import_grant_request::Secret, invalidate_token_request::Rejected,
    },
    sandbox::{Fault, Options, Sandbox},
};
use tonic::Status;

use crate::support::{
    Redis,
    house::{House, ROTATING, reason},
};

const DEAD: &str = "REAUTHORIZATION_REQUIRED";

/// What a provider says that is ill, of a refresh token that is good.
fn ill() -> Fault {
    Fault::ErrorWord("invalid_grant".to_owned())
}

fn token_of(subject: &str) -> GetTokenRequest {
    GetTokenRequest { credential: "demo".to_owned(), subject: subject.to_owned(), ..GetTokenRequest::default() }
}

/// Has a grant die of this, with its token gone.
async fn dies(house: &House, subject: &str, fault: Fault) {
    let token = house.ask(token_of(subject)).await.unwrap();
    house.sandbox.fail_next(fault);
    let report = InvalidateTokenRequest {
        credential: "demo".to_owned(),
        subject: subject.to_owned(),
        rejected: Some(Rejected::Generation(token.generation)),
        ..InvalidateTokenRequest::default()
    };
    house.report_whole(report).await.unwrap_err();
}

async fn import(house: &House, subject: &str) {
    let request = ImportGrantRequest {
        credential: "demo".to_owned(),
        subject: subject.to_owned(),
        secret: Some(Secret::RefreshToken(house.sandbox.mint_refresh_token(subject))),
        ..ImportGrantRequest::default()
    };
    house.grants.clone().import_grant(request).await.unwrap();
}

async fn state(house: &House, subject: &str) -> (GrantState, bool) {
    let (credential, subject) = ("demo".to_owned(), subject.to_owned());
    let request = DescribeGrantRequest { credential, subject, ..DescribeGrantRequest::default() };
    let grant = house.grants.clone().describe_grant(request).await.unwrap().into_inner();
    (grant.state(), grant.next_attempt_at.is_some())
}

async fn retry(house: &House, subject: &str, dry_run: bool) -> Result<RetriedGrant, Status> {
    let (credential, subject) = ("demo".to_owned(), subject.to_owned());
    let request = RetryGrantRequest { credential, subject, dry_run, ..RetryGrantRequest::default() };
    let answer = house.grants.clone().retry_grant(request).await?.into_inner();
    Ok(answer.grants.into_iter().next().unwrap())
}

/// All pages, by subject.
async fn retry_all(house: &House, dry_run: bool) -> BTreeMap<String, (RetryOutcome, String)> {
    let (mut found, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let credential = "demo".to_owned();
        let request =
            RetryGrantRequest { credential, all: true, page_token, dry_run, per_minute: 600, ..Default::default() };
        let page = house.grants.clone().retry_grant(request).await.unwrap().into_inner();
        found.extend(page.grants.iter().map(|grant| (grant.subject.clone(), (grant.outcome(), grant.reason.clone()))));
        if page.next_page_token.is_empty() {
            return found;
        }
        page_token = page.next_page_token;
    }
}

/// P-K1, rows 4 to 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tries_a_dead_grant_again_and_it_lives() {
    let house = House::with(ROTATING).await;
    assert_eq!(reason(&retry(&house, "", false).await.unwrap_err()).1, DEAD, "there is none yet");
    let first = house.get("demo").await.unwrap();
    assert_eq!(retry(&house, "", false).await.unwrap().outcome(), RetryOutcome::NotDead);
    dies(&house, "", ill()).await;
    let (asked, died) =
        (house.asked(), "bearerd_grants_died_total{credential=\"demo\",result=\"REAUTHORIZATION_REQUIRED\"}");
    assert_eq!((house.metric(died).await, state(&house, "").await), (1.0, (GrantState::Dead, true)));
    assert_eq!(reason(&house.get("demo").await.unwrap_err()).1, DEAD);

    let would = retry(&house, "", true).await.unwrap();
    assert_eq!((would.outcome(), would.reason.as_str()), (RetryOutcome::WouldRetry, DEAD));
    assert_eq!(house.asked(), asked, "nothing was sent");
    house.sandbox.fail_next(ill());
    let refused = retry(&house, "", false).await.unwrap();
    assert_eq!((refused.outcome(), refused.reason.as_str()), (RetryOutcome::StillDead, DEAD));
    assert_eq!(house.metric(died).await, 1.0);

    let revived = retry(&house, "", false).await.unwrap();
    assert_eq!(revived.outcome(), RetryOutcome::Revived);
    assert!(revived.generation > first.generation);
    assert_eq!(house.asked(), asked + 2);
    assert_eq!(house.get("demo").await.unwrap().generation, revived.generation);
    assert_eq!(state(&house, "").await, (GrantState::Active, false));
    assert_eq!(house.metric("bearerd_grants_revived_total{credential=\"demo\"}").await, 1.0);
}

/// P-K1, row 5: after an illness of the provider hundreds are dead at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tries_all_dead_grants_but_those_that_died_of_a_lost_answer() {
    let house = House::with(ROTATING).await;
    for subject in ["ada", "grace", "jane", "lost", "well"] {
        import(&house, subject).await;
    }
    for subject in ["ada", "grace", "jane"] {
        dies(&house, subject, ill()).await;
    }
    dies(&house, "lost", Fault::DropAfterHandling).await;
    assert_eq!(reason(&house.ask(token_of("lost")).await.unwrap_err()).1, "REFRESH_OUTCOME_UNKNOWN");
    crate::support::eventually(crate::support::PATIENCE, async || {
        reason(&house.ask(token_of("lost")).await.unwrap_err()).1 == DEAD
    })
    .await;
    house.ask(token_of("well")).await.unwrap();

    let asked = house.asked();
    let of =
        |outcome| BTreeMap::from(["ada", "grace", "jane"].map(|name| (name.to_owned(), (outcome, DEAD.to_owned()))));
    let mut expected = of(RetryOutcome::WouldRetry);
    let left_out = (RetryOutcome::LeftOut, "REFRESH_OUTCOME_LOST".to_owned());
    expected.insert("lost".to_owned(), left_out.clone());
    assert_eq!(retry_all(&house, true).await, expected);
    assert_eq!(house.asked(), asked, "nothing was sent");

    house.sandbox.fail_next(ill());
    let found = retry_all(&house, false).await;
    assert_eq!(found.get("lost"), Some(&left_out));
    let count = |outcome| found.values().filter(|(found, _)| *found == outcome).count();
    assert_eq!([RetryOutcome::Revived, RetryOutcome::StillDead].map(count), [2, 1], "{found:?}");
    assert_eq!(house.asked(), asked + 3);

    // The same from a shell.
    let address = format!("http://{}", house.address());
    let args = ["grant", "retry", "demo", "--all", "--rate", "600", "--address", &address];
    let run = || Command::new(env!("CARGO_BIN_EXE_bearerd")).args(args).output().unwrap();
    let output = tokio::task::block_in_place(run);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {:?}", String::from_utf8(output.stderr));
    assert_eq!((text.matches(": revived\n").count(), text.matches("lost: left out").count()), (1, 1), "{text}");
    for subject in ["ada", "grace", "jane"] {
        assert_eq!(state(&house, subject).await.0, GrantState::Active);
    }
}

/// P-K1, row 5: without an operator, seldom, when a caller asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_grant_is_tried_when_its_time_has_come_and_one_in_a_minute() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let (here, there) =
        (House::beside(&redis, &sandbox, ROTATING).await, House::beside(&redis, &sandbox, ROTATING).await);
    for subject in ["ada", "jane"] {
        import(&here, subject).await;
        dies(&here, subject, ill()).await;
    }
    let asked = sandbox.journal().len();
    for house in [&here, &there] {
        assert_eq!(reason(&house.ask(token_of("ada")).await.unwrap_err()).1, DEAD);
    }
    assert_eq!(sandbox.journal().len(), asked, "not before its time");

    // Five minutes pass.
    for key in redis.keys().await.iter().filter(|key| key.ends_with(":grant")) {
        redis.cli::<i64>(&["HSET", key, "revive_us", "1"]).await;
    }
    there.ask(token_of("ada")).await.unwrap();
    assert_eq!(state(&here, "ada").await.0, GrantState::Active);
    assert_eq!(there.metric("bearerd_grants_revived_total{credential=\"demo\"}").await, 1.0);
    for house in [&here, &there] {
        assert_eq!(reason(&house.ask(token_of("jane")).await.unwrap_err()).1, DEAD);
    }
    assert_eq!(sandbox.journal().len(), asked + 1, "one in a minute");

    // A minute passes; the provider refuses it again, and the next try is further away.
    let turn = redis.keys().await.into_iter().find(|key| key.contains("{retry/")).unwrap();
    redis.cli::<i64>(&["DEL", &turn]).await;
    sandbox.fail_next(ill());
    for house in [&here, &there] {
        assert_eq!(reason(&house.ask(token_of("jane")).await.unwrap_err()).1, DEAD);
    }
    assert_eq!(sandbox.journal().len(), asked + 2);
    assert_eq!(state(&there, "jane").await, (GrantState::Dead, true));
}
