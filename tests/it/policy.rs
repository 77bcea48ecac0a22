//! Who may do what, and what is said to those who may not.

use std::time::Duration;

use bearerd::{
    policy::PathPrefix,
    proto::{
        CallThroughRequest, DescribeGrantRequest, GetTokenRequest, Header, ImportGrantRequest,
        InvalidateTokenOutcome as Outcome, InvalidateTokenRequest, Rejection, import_grant_request::Secret,
        invalidate_token_request::Rejected,
    },
    sandbox::{Fault, Options},
    upstream::target,
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tonic::{Code, Status};
use url::Url;

use crate::support::{
    PATIENCE, eventually,
    house::{House, ROTATING, reason},
};

async fn with_rows(rows: &str) -> House {
    let demo = ROTATING.replace("[\"read\"]", "[\"read\", \"write\"]");
    let other = ROTATING.replace("[credentials.demo]", "[credentials.hidden]");
    House::with(&format!("{rows}\n{demo}\n{other}")).await
}

async fn call(house: &House, credential: &str) -> Result<(), Status> {
    let request = CallThroughRequest {
        credential: credential.to_owned(),
        method: "GET".to_owned(),
        path: "/hello".to_owned(),
        ..CallThroughRequest::default()
    };
    house.call_whole(request).await.map(drop)
}

async fn describe(house: &House, credential: &str) -> Result<(), Status> {
    let request = DescribeGrantRequest { credential: credential.to_owned(), ..DescribeGrantRequest::default() };
    house.grants.clone().describe_grant(request).await.map(drop)
}

async fn import(house: &House, credential: &str) -> Result<(), Status> {
    let secret = Some(Secret::RefreshToken("x".to_owned()));
    let request = ImportGrantRequest {
        credential: credential.to_owned(),
        secret,
        no_verify: true,
        ..ImportGrantRequest::default()
    };
    house.grants.clone().import_grant(request).await.map(drop)
}

#[tokio::test]
async fn every_rpc_needs_its_own_action() {
    for allowed in ["get", "invalidate", "call", "administer"] {
        let house =
            with_rows(&format!("[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [\"{allowed}\"]"))
                .await;
        for (action, result) in [
            ("get", house.get("demo").await.map(drop)),
            ("invalidate", house.report("demo", 1).await.map(drop)),
            ("call", call(&house, "demo").await),
            ("administer", describe(&house, "demo").await),
            ("administer", import(&house, "demo").await),
        ] {
            match result {
                Ok(()) => assert_eq!(action, allowed),
                Err(status) => {
                    assert_ne!(action, allowed, "{status:?}");
                    assert_eq!(reason(&status), (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned(), None));
                }
            }
        }
    }
}

/// S2: `invalidate` alone gives no token, whatever a report leads to.
#[tokio::test]
async fn no_report_gives_a_token_to_a_caller_without_get() {
    let row =
        |actions: &str| format!("[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [{actions}]\n");
    for (rows, sees) in [
        (row("\"call\", \"invalidate\""), false),
        (row("\"invalidate\""), false),
        (row("\"get\", \"invalidate\""), true),
        (row("\"invalidate\"") + &row("\"get\""), true),
        // What "get" is for is another token.
        (row("\"invalidate\"") + &row("\"get\"") + "subjects = [\"jane\"]\n", false),
        (row("\"invalidate\"") + &row("\"get\"") + "scopes = [\"list\"]\n", false),
    ] {
        let house = with_rows(&rows).await;
        let report = |rejected| InvalidateTokenRequest {
            credential: "demo".to_owned(),
            rejected: Some(rejected),
            ..InvalidateTokenRequest::default()
        };
        let answered = async |rejected| {
            let answer = house.tokens.clone().invalidate_token(report(rejected)).await.unwrap().into_inner();
            assert_eq!(answer.token.as_ref().map_or(answer.generation, |token| token.generation), answer.generation);
            answer
        };
        let first = answered(Rejected::Generation(1)).await;
        assert_eq!((first.outcome(), first.token.is_some()), (Outcome::AlreadyReplaced, sees), "{rows}");
        assert!(first.generation > 0);
        let next = answered(Rejected::Generation(first.generation)).await;
        assert_eq!((next.outcome(), next.token.is_some()), (Outcome::Refreshed, sees), "{rows}");
        assert!(next.generation > first.generation);
        let made_up = answered(Rejected::AccessToken("made-up".to_owned())).await;
        assert_eq!((made_up.outcome(), made_up.token.is_some()), (Outcome::AlreadyReplaced, sees), "{rows}");
        let unfounded = InvalidateTokenRequest {
            rejection: Some(Rejection { http_status: 403, ..Rejection::default() }),
            ..report(Rejected::Generation(next.generation))
        };
        let unfounded = house.tokens.clone().invalidate_token(unfounded).await.unwrap().into_inner();
        assert_eq!((unfounded.generation, unfounded.token), (next.generation, None));
    }
}

/// S2: `get` alone has no token replaced, by no field of the request.
#[tokio::test]
async fn get_alone_replaces_no_token() {
    let get = "[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [\"get\"]\n";
    let house = with_rows(get).await;
    let first = house.get("demo").await.unwrap();
    let refusing = |generation| GetTokenRequest {
        credential: "demo".to_owned(),
        refused_generation: generation,
        ..GetTokenRequest::default()
    };
    for generation in [first.generation, first.generation - 1, 1, u64::MAX] {
        let status = house.ask(refusing(generation)).await.unwrap_err();
        assert_eq!(reason(&status).1, "CALLER_NOT_ALLOWED", "{generation}");
    }
    assert!(house.ask(refusing(0)).await.unwrap() == first);
    assert_eq!(house.asked(), 1);
    let house = with_rows(&get.replace("\"get\"", "\"get\", \"invalidate\"")).await;
    let first = house.get("demo").await.unwrap();
    assert!(house.ask(refusing(first.generation)).await.unwrap().generation > first.generation);
}

/// S2: a caller that always wants nearly a whole life does not get a token of its own each time.
#[tokio::test]
async fn min_remaining_replaces_no_token_younger_than_min_age() {
    let options = Options { access_token_lifetime: Duration::from_secs(12), ..Options::default() };
    let house = House::furnished(options, &ROTATING.replace("min_age = \"0s\"", "min_age = \"5s\"")).await;
    let wanting = |seconds| GetTokenRequest {
        credential: "demo".to_owned(),
        min_remaining: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..GetTokenRequest::default()
    };
    let first = house.ask(wanting(10)).await.unwrap();
    eventually(PATIENCE, async || match house.ask(wanting(10)).await {
        Ok(token) => {
            assert_eq!((token.generation, house.asked()), (first.generation, 1));
            false
        }
        Err(status) => {
            assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), None));
            assert!(status.message().contains("min_remaining"), "{}", status.message());
            true
        }
    })
    .await;
    assert_eq!(house.asked(), 1);
    // Once it is old enough it is replaced.
    eventually(PATIENCE, async || house.ask(wanting(10)).await.is_ok_and(|token| token.generation > first.generation))
        .await;
    assert_eq!(house.asked(), 2);
}

/// S8: what was granted counts, and not only what was asked for.
#[tokio::test]
async fn a_token_that_has_more_scopes_than_the_row_is_not_used() {
    let row = |actions: &str, rest: &str| {
        format!("[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [{actions}]\n{rest}\n")
    };
    let read = "scopes = [\"read\"]";
    let rows = row("\"get\", \"invalidate\", \"call\"", read);
    let house = House::with(&format!("{rows}{ROTATING}")).await;
    // The provider gives more than it was asked for.
    house.sandbox.fail_next(Fault::Body {
        status: 200,
        content_type: "application/json".to_owned(),
        body: r#"{"access_token":"more","token_type":"Bearer","expires_in":600,"scope":"read write"}"#.to_owned(),
    });
    let denied = |status: Status| assert_eq!(reason(&status).1, "CALLER_NOT_ALLOWED", "{status:?}");
    denied(house.get("demo").await.unwrap_err());
    denied(house.get("demo").await.unwrap_err());
    denied(call(&house, "demo").await.unwrap_err());
    let (_, token) = house.report("demo", 1).await.unwrap();
    assert_eq!(token, None);
    // The grant has "write" too, and a refresh that leaves its scopes unsaid would bring it.
    let house = House::with(&format!("{rows}{ROTATING}")).await;
    assert_eq!(house.get("demo").await.unwrap().scopes, ["read"]);
}

#[tokio::test]
async fn what_is_hidden_looks_like_what_does_not_exist() {
    let house =
        with_rows("[[allow]]\ncaller = \"*\"\ncredentials = [\"demo\"]\nactions = [\"get\", \"invalidate\"]").await;
    let seen = |status: Status| (status.code(), status.message().to_owned(), reason(&status));
    let hidden = seen(house.get("hidden").await.unwrap_err());
    assert_eq!(hidden, seen(house.get("nobody").await.unwrap_err()));
    assert_eq!(hidden.0, Code::PermissionDenied);
    assert_eq!(house.asked(), 0);
}

/// What a row does not cover gets no further than the policy.
#[tokio::test]
async fn a_row_limits_subjects_scopes_methods_and_paths() {
    let house = with_rows(
        "[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [\"get\", \"invalidate\"]\n\
         subjects = [\"\"]\nscopes = [\"read\"]\n\
         [[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [\"call\"]\n\
         methods = [\"GET\"]\npaths = [\"/hello\", \"/echo\"]",
    )
    .await;
    let ask = |subject: &str, scopes: &[&str]| GetTokenRequest {
        credential: "demo".to_owned(),
        subject: subject.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..GetTokenRequest::default()
    };
    let denied = |status: Status| assert_eq!(reason(&status).1, "CALLER_NOT_ALLOWED", "{status:?}");
    denied(house.ask(ask("jane", &[])).await.unwrap_err());
    denied(house.ask(ask("", &["write"])).await.unwrap_err());
    denied(house.ask(ask("", &["read", "write"])).await.unwrap_err());
    let report = InvalidateTokenRequest {
        credential: "demo".to_owned(),
        scopes: vec!["write".to_owned()],
        rejected: Some(Rejected::Generation(1)),
        ..InvalidateTokenRequest::default()
    };
    denied(house.report_whole(report).await.unwrap_err());
    let call = |method: &str, path: &str| CallThroughRequest {
        credential: "demo".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        ..CallThroughRequest::default()
    };
    for (method, path) in
        [("POST", "/echo"), ("GET", "/"), ("GET", "/hello/../echo"), ("GET", "/hello-not"), ("get", "/hello")]
    {
        denied(house.call_whole(call(method, path)).await.unwrap_err());
    }
    // An upstream that believes this field would do what the row does not cover.
    let disguised = CallThroughRequest {
        headers: vec![Header { name: "X-HTTP-Method-Override".to_owned(), value: "DELETE".to_owned() }],
        ..call("GET", "/hello")
    };
    assert_eq!(reason(&house.call_whole(disguised).await.unwrap_err()).1, "INVALID_REQUEST");
    assert_eq!(house.asked(), 0, "the provider was never asked");

    // Who names none would get the credential's own, which are more than the row has.
    denied(house.ask(ask("", &[])).await.unwrap_err());
    assert_eq!(house.ask(ask("", &["read"])).await.unwrap().scopes, ["read"]);
    assert_eq!(house.call_whole(call("GET", "/hello")).await.unwrap().status, 200);
    assert_eq!(house.call_whole(call("GET", "/echo?next=/../x")).await.unwrap().status, 200);
}

#[test]
fn no_path_that_is_covered_and_sent_leads_out_of_its_prefix() {
    let base = Url::parse("https://api.example/base/").unwrap();
    let prefix = PathPrefix::new("/open/data").unwrap();
    let pieces = [
        "/", "open", "data", "..", ".", ";", "%2e", "%2E", "%252e", "%2f", "\\", "%5c", "%00", "?", "#", "a", "@", "//",
    ];
    let piece = proptest::sample::select(pieces.to_vec());
    let mut runner = TestRunner::deterministic();
    let mut sent = 0;
    for _ in 0..20_000 {
        let tail = proptest::collection::vec(piece.clone(), 0..6).new_tree(&mut runner).unwrap().current().concat();
        let path = format!("/open/data{tail}");
        let plain = path.split('?').next().unwrap();
        let Ok(url) = target::url(&base, &path) else { continue };
        if prefix.covers(plain) {
            sent += 1;
            let below = url.path().strip_prefix("/base/open/data").unwrap_or_else(|| panic!("{path} became {url}"));
            assert!(below.is_empty() || below.starts_with('/'), "{path} became {url}");
            let trick = |segment: &str| segment.split(';').next().is_some_and(|bare| bare == "." || bare == "..");
            assert!(!below.split('/').any(trick), "{path} became {url}");
        }
    }
    assert!(sent > 500, "{sent}");
}

#[tokio::test]
async fn without_rows_a_local_caller_may_do_everything() {
    let house = House::with(ROTATING).await;
    house.get("demo").await.unwrap();
    describe(&house, "demo").await.unwrap();
}
