//! `GetToken`: cached, shared, refreshed in time, for every kind of grant and of client authentication.

use std::time::{Duration, Instant};

use bearerd::{
    proto::{
        DescribeGrantRequest, GetTokenRequest, ImportGrantRequest, InvalidateTokenRequest, import_grant_request,
        invalidate_token_request::Rejected,
    },
    sandbox::{DEMO_API_KEY, Fault, Options, Outcome, Rotation},
};
use tonic::Code;

use crate::support::{
    PATIENCE, eventually,
    house::{CLIENT_CREDENTIALS, House, ROTATING, reason},
};

fn asking(credential: &str) -> GetTokenRequest {
    GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() }
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_then_comes_from_memory() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let again = house.get("demo").await.unwrap();
    assert!(first == again);
    assert_eq!(house.asked(), 1);
    assert_eq!(first.token_type, "Bearer");
    assert_eq!(first.headers[0].value, format!("Bearer {}", first.access_token));
    assert!(first.expires_at.is_some() && first.generation > 0 && !first.degraded);
}

#[tokio::test]
async fn two_hundred_callers_at_once_make_one_request() {
    let house = House::furnished(Options { latency: Duration::from_millis(100), ..Options::default() }, ROTATING).await;
    let all = futures_util::future::join_all((0..200).map(|_| house.get("demo"))).await;
    let generations: std::collections::HashSet<u64> = all.into_iter().map(|token| token.unwrap().generation).collect();
    assert_eq!(generations.len(), 1);
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn callers_who_leave_do_not_abort_the_refresh() {
    let house = House::furnished(Options { latency: Duration::from_secs(1), ..Options::default() }, ROTATING).await;
    let impatient = (0..50).map(|_| async {
        let mut request = tonic::Request::new(asking("demo"));
        request.set_timeout(Duration::from_millis(20));
        house.tokens.clone().get_token(request).await
    });
    let left = futures_util::future::join_all(impatient).await;
    assert!(left.iter().all(Result::is_err));
    house.get("demo").await.unwrap();
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn a_used_token_is_refreshed_before_it_ends_and_an_unused_one_is_not() {
    let options = Options { access_token_lifetime: Duration::from_secs(2), ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    let first = house.get("demo").await.unwrap();
    // Used once more, so the timer finds it used.
    house.get("demo").await.unwrap();
    eventually(PATIENCE, async || house.asked() == 2).await;
    eventually(PATIENCE, async || house.get("demo").await.unwrap().generation > first.generation).await;
}

#[tokio::test]
async fn scopes_and_resources_tell_tokens_apart_and_their_order_does_not() {
    let house = House::with(CLIENT_CREDENTIALS).await;
    let with = |scopes: &[&str]| {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        house.ask(GetTokenRequest { scopes, ..asking("cc") })
    };
    let read = with(&["read"]).await.unwrap();
    let both = with(&["read", "write"]).await.unwrap();
    let turned = with(&["write", "read", "write"]).await.unwrap();
    assert!(both == turned);
    assert_ne!(read.access_token, both.access_token);
    assert_eq!(both.scopes, ["read", "write"]);
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn every_way_of_client_authentication_works() {
    let house = House::with(
        r#"
[credentials.basic]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo awkward:client"
client_auth = "client_secret_basic"
client_secret = { env = "AWKWARD_SECRET" }
[credentials.post]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo-confidential"
client_auth = "client_secret_post"
client_secret = { env = "CLIENT_SECRET" }
[credentials.key]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo-jwt"
client_auth = "private_key_jwt"
client_key = { env = "KEY" }
client_key_algorithm = "ES256"
issuer = "{issuer}"
[credentials.public]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "demo-public"
client_auth = "none"
refresh_token = { env = "REFRESH_TOKEN" }
"#
        .replace("demo awkward:client", bearerd::sandbox::DEMO_AWKWARD)
        .as_str(),
    )
    .await;
    for credential in ["basic", "post", "key", "public"] {
        house.get(credential).await.unwrap_or_else(|status| panic!("{credential}: {status:?}"));
    }
    assert!(house.sandbox.journal().iter().all(|entry| entry.outcome == Outcome::Issued));
}

#[tokio::test]
async fn a_jwt_bearer_grant_signs_anew_after_a_rejection() {
    let house = House::with(
        r#"
[credentials.sa]
grant = "jwt_bearer"
token_url = "{token_url}"
client_id = "demo-jwt"
assertion_key = { env = "KEY" }
assertion_algorithm = "ES256"
assertion_audience = "{issuer}"
base_url = "{api_url}"
min_age = "0s"
"#,
    )
    .await;
    let first = house.get("sa").await.unwrap();
    house.sandbox.revoke_access_tokens();
    let answer = house.call("sa", "/hello").await.unwrap();
    assert_eq!((answer.status, answer.attempts, answer.refreshed), (200, 2, true));
    assert!(answer.generation > first.generation);
    assert_eq!(house.asked(), 2);
    // On behalf of somebody: the assertion's subject.
    let jane = GetTokenRequest { subject: "jane".to_owned(), ..asking("sa") };
    assert_ne!(house.ask(jane).await.unwrap().access_token, house.get("sa").await.unwrap().access_token);
}

#[tokio::test]
async fn static_secrets_come_in_the_form_of_tokens() {
    let house = House::with(
        r#"
[credentials.key]
grant = "static"
scheme = "api_key"
header = "X-Api-Key"
secret = { env = "API_KEY" }
[credentials.basic]
grant = "static"
scheme = "basic"
username = "demo"
secret = { env = "PASSWORD" }
"#,
    )
    .await;
    let key = house.get("key").await.unwrap();
    assert_eq!((key.headers[0].name.as_str(), key.headers[0].value.as_str()), ("x-api-key", DEMO_API_KEY));
    assert_eq!((key.token_type.as_str(), key.expires_at), ("ApiKey", None));
    let basic = house.get("basic").await.unwrap();
    assert!(basic.headers[0].value.starts_with("Basic ZGVtbzp"), "demo: in base64");
    // Nobody can refresh an API key: the operator is told, and the secret goes on being served.
    for rejected in [Rejected::Generation(key.generation), Rejected::AccessToken(key.access_token.clone())] {
        let report = InvalidateTokenRequest {
            credential: "key".to_owned(),
            rejected: Some(rejected),
            ..InvalidateTokenRequest::default()
        };
        let status = house.report_whole(report).await.unwrap_err();
        assert_eq!(reason(&status), (Code::FailedPrecondition, "CLIENT_CONFIGURATION_REJECTED".to_owned(), None));
    }
    assert!(house.get("key").await.unwrap() == key);
    assert_eq!(house.asked(), 0);
}

#[tokio::test]
async fn refused_generations_and_min_remaining_are_kept() {
    let options = Options { access_token_lifetime: Duration::from_secs(60), ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    let first = house.get("demo").await.unwrap();
    let newer = house.ask(GetTokenRequest { refused_generation: first.generation, ..asking("demo") }).await.unwrap();
    assert!(newer.generation > first.generation);
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let longer = GetTokenRequest { min_remaining: seconds(30), ..asking("demo") };
    assert_eq!(house.ask(longer).await.unwrap().generation, newer.generation);
    assert_eq!(house.asked(), 2);

    for impossible in [
        GetTokenRequest { min_remaining: seconds(3600), ..asking("demo") },
        GetTokenRequest { min_remaining: seconds(60), ..asking("demo") },
        GetTokenRequest { min_remaining: seconds(-1), ..asking("demo") },
        GetTokenRequest { refused_generation: u64::MAX, ..asking("demo") },
    ] {
        for _ in 0..3 {
            let status = house.ask(impossible.clone()).await.unwrap_err();
            assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), None), "{impossible:?}");
        }
    }
    assert_eq!(house.asked(), 2, "what cannot be had is not asked for");
}

#[tokio::test]
async fn malformed_names_are_told_by_field() {
    let house = House::with(ROTATING).await;
    for (request, field) in [
        (GetTokenRequest { credential: "DEMO".to_owned(), ..asking("") }, "credential"),
        (GetTokenRequest { subject: "a\nb".to_owned(), ..asking("demo") }, "subject"),
        (GetTokenRequest { scopes: vec!["a b".to_owned()], ..asking("demo") }, "scopes"),
        (GetTokenRequest { resources: vec!["x".to_owned()], ..asking("demo") }, "resources"),
    ] {
        let status = house.ask(request).await.unwrap_err();
        assert_eq!(reason(&status).1, "INVALID_REQUEST");
        let details = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
    let status = house.get("nobody").await.unwrap_err();
    assert_eq!(reason(&status), (Code::NotFound, "CREDENTIAL_NOT_FOUND".to_owned(), None));
}

#[tokio::test]
async fn a_failing_provider_is_asked_with_growing_waits_and_then_works_again() {
    let house = House::with(ROTATING).await;
    house.sandbox.fail_next(Fault::Status(503));
    let status = house.get("demo").await.unwrap_err();
    let (code, word, wait) = reason(&status);
    assert_eq!((code, word.as_str()), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
    assert!(wait.is_some_and(|wait| !wait.is_zero()));
    // While the wait lasts nobody asks, however many want a token.
    for _ in 0..20 {
        let _ = house.get("demo").await;
    }
    assert!(house.asked() <= 2, "asked {} times", house.asked());
    eventually(PATIENCE, async || house.get("demo").await.is_ok()).await;
}

#[tokio::test]
async fn odd_answers_of_real_providers_are_taken() {
    let house = House::furnished(Options { rotation: Rotation::Off, ..Options::default() }, ROTATING).await;
    let fault = |content_type: &str, body: &str| Fault::Body {
        status: 200,
        content_type: content_type.to_owned(),
        body: body.to_owned(),
    };
    for (fault, value) in [
        (
            fault("application/json", r#"{"access_token":"as-text","token_type":"BEARER","expires_in":"3600"}"#),
            "as-text",
        ),
        (fault("application/json", r#"{"access_token":"array","token_type":"bearer","scope":["a","b"]}"#), "array"),
        (fault("application/x-www-form-urlencoded", "access_token=form&token_type=bearer&expires_in=60"), "form"),
    ] {
        let current = house.get("demo").await.map_or(0, |token| token.generation);
        house.sandbox.fail_next(fault);
        let request = GetTokenRequest { refused_generation: current, ..asking("demo") };
        assert_eq!(house.ask(request).await.unwrap().access_token, value);
    }
}

#[tokio::test]
async fn a_success_that_says_error_is_a_refusal() {
    let house = House::with(ROTATING).await;
    house.sandbox.fail_next(Fault::Body {
        status: 200,
        content_type: "application/json".to_owned(),
        body: r#"{"ok":false,"error":"invalid_client"}"#.to_owned(),
    });
    let status = house.get("demo").await.unwrap_err();
    assert_eq!(reason(&status).1, "CLIENT_CONFIGURATION_REJECTED");
}

#[tokio::test]
async fn a_grant_that_ended_says_so_and_lives_again_after_an_import() {
    let house = House::with(ROTATING).await;
    house.sandbox.fail_next(Fault::ErrorWord("invalid_grant".to_owned()));
    for _ in 0..3 {
        let status = house.get("demo").await.unwrap_err();
        assert_eq!(reason(&status), (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED".to_owned(), None));
    }
    assert_eq!(house.asked(), 1, "a dead grant is not asked for again");
    let secret = import_grant_request::Secret::RefreshToken(house.sandbox.mint_refresh_token("demo"));
    let import =
        ImportGrantRequest { credential: "demo".to_owned(), secret: Some(secret), ..ImportGrantRequest::default() };
    let imported = house.grants.clone().import_grant(import).await.unwrap().into_inner().generation;
    assert_eq!(house.get("demo").await.unwrap().generation, imported);
    assert_eq!(house.asked(), 2, "the import has given a token");
}

#[tokio::test]
async fn grants_that_are_imported_and_looked_at_take_no_place_in_memory() {
    let house = House::with(ROTATING).await;
    let mut grants = house.grants.clone();
    for subject in ["ada", "grace", "emmy"] {
        let secret = import_grant_request::Secret::RefreshToken(house.sandbox.mint_refresh_token("demo"));
        let (credential, subject) = ("demo".to_owned(), subject.to_owned());
        let look = DescribeGrantRequest {
            credential: credential.clone(),
            subject: subject.clone(),
            ..DescribeGrantRequest::default()
        };
        let import =
            ImportGrantRequest { credential, subject, secret: Some(secret), scopes: Vec::new(), no_verify: false };
        grants.import_grant(import).await.unwrap();
        grants.describe_grant(look).await.unwrap();
    }
    house.ask(GetTokenRequest { subject: "ada".to_owned(), ..asking("demo") }).await.unwrap();
    // They are counted every two seconds.
    eventually(PATIENCE, async || house.metric("bearerd_cached_tokens").await == 1.0).await;
}

#[tokio::test]
async fn a_token_that_memory_has_no_room_for_comes_from_the_store_and_is_invalidated_there() {
    let house = House::with(&[ROTATING, "\n[cache]\nmax_tokens = 2\n"].concat()).await;
    let subjects = ["ada", "grace", "emmy", "maria", "sofja"];
    let of = |subject: &str| GetTokenRequest { subject: subject.to_owned(), ..asking("demo") };
    let mut first = Vec::new();
    for subject in subjects {
        let secret = import_grant_request::Secret::RefreshToken(house.sandbox.mint_refresh_token("demo"));
        let (credential, subject) = ("demo".to_owned(), subject.to_owned());
        let import = ImportGrantRequest {
            credential,
            subject: subject.clone(),
            secret: Some(secret),
            scopes: Vec::new(),
            no_verify: false,
        };
        house.grants.clone().import_grant(import).await.unwrap();
        first.push(house.ask(of(&subject)).await.unwrap());
    }
    for (subject, token) in subjects.iter().zip(&first) {
        // The store keeps its end less exactly than memory does, so the whole message may differ in that.
        let again = house.ask(of(subject)).await.unwrap();
        assert!((again.generation, again.access_token) == (token.generation, token.access_token.clone()), "{subject}");
    }
    assert_eq!(house.asked(), subjects.len(), "the provider is not asked again for what the store has");
    // They are counted every two seconds.
    eventually(PATIENCE, async || house.metric("bearerd_cached_tokens").await == 2.0).await;

    let refusing = GetTokenRequest { refused_generation: first[0].generation, ..of(subjects[0]) };
    let newer = house.ask(refusing).await.unwrap();
    assert!(newer.generation > first[0].generation);
    for subject in subjects.iter().rev() {
        let token = house.ask(of(subject)).await.unwrap();
        assert!(token.access_token != first[0].access_token, "{subject} gets a dead token");
    }
    assert_eq!(house.ask(of(subjects[0])).await.unwrap().generation, newer.generation);
    assert_eq!(house.asked(), subjects.len() + 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_when_it_is_needed_and_told_apart() {
    let options = Options { rotation: Rotation::Strict, ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    house.sandbox.fail_next(Fault::DropAfterHandling);
    let status = house.get("demo").await.unwrap_err();
    assert_eq!(reason(&status).1, "REFRESH_OUTCOME_UNKNOWN");
    // A strict provider has rotated and takes the second use as theft; that this happened is told apart.
    eventually(PATIENCE, async || {
        let status = house.get("demo").await.unwrap_err();
        let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        info.metadata.get("cause").is_some_and(|cause| cause == "REFRESH_OUTCOME_LOST")
    })
    .await;
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn unclear_answers_end_no_grant() {
    let house = House::with(ROTATING).await;
    for _ in 0..3 {
        house.sandbox.fail_next(Fault::Status(502));
    }
    let status = house.get("demo").await.unwrap_err();
    assert_eq!(reason(&status).0, Code::Unavailable);
    eventually(PATIENCE, async || house.get("demo").await.is_ok()).await;
    assert_eq!(house.asked(), 4);
}

#[tokio::test]
async fn while_a_token_is_valid_an_unclear_answer_is_not_repeated_for_a_newer_one() {
    let options = Options { access_token_lifetime: Duration::from_secs(4), ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    let first = house.get("demo").await.unwrap();
    house.sandbox.fail_next(Fault::Status(502));
    eventually(PATIENCE, async || house.asked() == 2 || house.get("demo").await.is_err()).await;
    // The token lives on, and whoever gets it is told that refreshing fails.
    eventually(PATIENCE, async || house.get("demo").await.unwrap().degraded).await;
    assert_eq!(house.get("demo").await.unwrap().generation, first.generation);
    assert_eq!(house.asked(), 2);
    // Once it has ended the refresh token is tried again, because it is needed.
    eventually(PATIENCE, async || house.get("demo").await.is_ok_and(|token| token.generation > first.generation)).await;
}

#[tokio::test]
async fn a_token_that_lives_for_years_disturbs_no_other() {
    let short = ROTATING.replace("[credentials.demo]", "[credentials.short]\nkeep_alive = true");
    let options = Options { access_token_lifetime: Duration::from_secs(2), ..Options::default() };
    let house = House::furnished(options, &format!("{CLIENT_CREDENTIALS}{short}")).await;
    house.sandbox.fail_next(Fault::Body {
        status: 200,
        content_type: "application/json".to_owned(),
        body: r#"{"access_token":"old-as-the-hills","token_type":"bearer","expires_in":4000000000}"#.to_owned(),
    });
    house.get("cc").await.unwrap();
    house.get("short").await.unwrap();
    // The short one is kept alive in the background all the same.
    eventually(PATIENCE, async || house.asked() >= 4).await;
}

#[tokio::test]
async fn client_credentials_act_for_nobody_else() {
    let house = House::with(CLIENT_CREDENTIALS).await;
    let status = house.ask(GetTokenRequest { subject: "jane".to_owned(), ..asking("cc") }).await.unwrap_err();
    assert_eq!(reason(&status).1, "INVALID_REQUEST");
    assert_eq!(house.asked(), 0);
}

/// The timer of a token that was replaced long before its time ends first.
#[tokio::test]
async fn the_timer_of_a_replaced_token_takes_nothing_from_its_successors() {
    let options = Options { access_token_lifetime: Duration::from_secs(8), ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    let (began, first) = (Instant::now(), house.get("demo").await.unwrap());
    eventually(PATIENCE, async || began.elapsed() > Duration::from_secs(2)).await;
    house.report("demo", first.generation).await.unwrap();
    // Nobody asks any more. The successor was used, so it is refreshed ahead of time.
    eventually(PATIENCE, async || house.asked() == 3).await;
}
