//! `CallThrough`: the call is made with a token that the caller never sees, and replayed once after a rejection.

use bearerd::proto::{CallThroughRequest, GetTokenRequest, Header, Replay};
use tonic::Code;

use crate::support::house::{House, ROTATING, reason};

mod fence;
pub(crate) mod raw;
mod reach;

fn calling(method: &str, path: &str) -> CallThroughRequest {
    CallThroughRequest {
        credential: "demo".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        ..CallThroughRequest::default()
    }
}

#[tokio::test]
async fn a_call_is_made_and_answered() {
    let house = House::with(ROTATING).await;
    let answer = house.call("demo", "/hello").await.unwrap();
    assert_eq!((answer.status, answer.attempts, answer.refreshed), (200, 1, false));
    assert!(String::from_utf8_lossy(&answer.body).contains("demo"));
}

#[tokio::test]
async fn a_rejected_token_is_replaced_and_the_call_sent_once_more() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    house.sandbox.revoke_access_tokens();
    let answer = house.call("demo", "/hello").await.unwrap();
    assert_eq!((answer.status, answer.attempts, answer.refreshed), (200, 2, true));
    assert!(answer.generation > first.generation);
    assert_eq!(house.asked(), 2);
}

#[tokio::test]
async fn a_caller_may_forbid_the_second_send_and_the_token_is_replaced_all_the_same() {
    let house = House::with(ROTATING).await;
    let first = house.get("demo").await.unwrap();
    house.sandbox.revoke_access_tokens();
    let request = CallThroughRequest { replay: Replay::Never.into(), ..calling("GET", "/hello") };
    let answer = house.call_whole(request).await.unwrap();
    assert_eq!((answer.status, answer.attempts), (401, 1));
    assert!(house.get("demo").await.unwrap().generation > first.generation);
}

#[tokio::test]
async fn a_scope_problem_is_passed_on_and_asks_nobody() {
    let house = House::with(ROTATING).await;
    house.get("demo").await.unwrap();
    let answer = house.call("demo", "/admin").await.unwrap();
    assert_eq!((answer.status, answer.attempts, answer.refreshed), (403, 1, false));
    assert!(answer.headers.iter().any(|header| header.value.contains("insufficient_scope")));
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn an_upstream_that_rejects_everything_is_asked_twice_and_no_more() {
    let house =
        House::with(&ROTATING.replace("[credentials.demo]", "[credentials.demo]\nrejected_when = [\"404\"]")).await;
    let answer = house.call("demo", "/no/such/path").await.unwrap();
    assert!(answer.attempts <= 2);
    assert!(house.asked() <= 2);
}

#[tokio::test]
async fn an_api_without_a_challenge_needs_one_line_of_configuration() {
    for (rules, status, attempts) in [("", 401, 1), ("rejected_when = [\"401\"]", 200, 2)] {
        let house = House::with(&ROTATING.replace("[credentials.demo]", &format!("[credentials.demo]\n{rules}"))).await;
        house.get("demo").await.unwrap();
        house.sandbox.revoke_access_tokens();
        let answer = house.call("demo", "/plain401").await.unwrap();
        assert_eq!((answer.status, answer.attempts), (status, attempts), "{rules}");
    }
}

#[tokio::test]
async fn an_api_that_says_expired_in_the_body_of_a_500_is_understood() {
    let rules = "[credentials.demo]\nrejected_when = [\"500 body ~ INVALID_SESSION_ID\"]";
    let house = House::with(&ROTATING.replace("[credentials.demo]", rules)).await;
    house.get("demo").await.unwrap();
    house.sandbox.revoke_access_tokens();
    let answer = house.call("demo", "/soap500").await.unwrap();
    assert_eq!((answer.status, answer.attempts), (200, 2));
}

#[tokio::test]
async fn method_query_headers_and_body_arrive_and_an_echoed_token_is_cut_out() {
    let house = House::with(ROTATING).await;
    let token = house.get("demo").await.unwrap().access_token;
    let request = CallThroughRequest {
        headers: vec![Header { name: "X-Request-Id".to_owned(), value: "seven".to_owned() }],
        body: "hello body".into(),
        ..calling("PUT", "/echo?a=1&b=%20")
    };
    let answer = house.call_whole(request).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for part in ["PUT", "/echo?a=1&b=%20", "seven", "hello body", "[redacted]"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains(&token));
    assert!(answer.headers.iter().all(|header| !header.value.contains(&token)));
}

#[tokio::test]
async fn redirects_are_data_and_no_token_follows_them() {
    let house = House::with(ROTATING).await;
    let answer = house.call("demo", "/away").await.unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(house.sandbox.requests("/landing"), 0);
}

#[tokio::test]
async fn what_is_no_request_to_the_api_is_refused_before_anything_is_sent() {
    let house = House::with(&format!(
        "{ROTATING}\n[credentials.no-api]\n{}",
        &ROTATING.trim_start()["[credentials.demo]".len()..].replace("base_url = \"{api_url}\"", "")
    ))
    .await;
    let header = |name: &str| vec![Header { name: name.to_owned(), value: "x".to_owned() }];
    for (request, code, word) in [
        (calling("GET", "//evil.example/"), Code::InvalidArgument, "INVALID_TARGET"),
        (calling("GET", "/a/../../b"), Code::InvalidArgument, "INVALID_TARGET"),
        (calling("CONNECT", "/"), Code::InvalidArgument, "INVALID_TARGET"),
        (
            CallThroughRequest { headers: header("Authorization"), ..calling("GET", "/") },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            CallThroughRequest { headers: header("Host"), ..calling("GET", "/") },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            CallThroughRequest { credential: "no-api".to_owned(), ..calling("GET", "/") },
            Code::PermissionDenied,
            "TARGET_NOT_ALLOWED",
        ),
    ] {
        let status = house.call_whole(request.clone()).await.unwrap_err();
        assert_eq!(reason(&status), (code, word.to_owned(), None), "{} {}", request.method, request.path);
    }
    assert_eq!(house.asked(), 0);
}

#[tokio::test]
async fn an_api_key_goes_in_its_own_header() {
    let house = House::with(
        r#"
[credentials.demo]
grant = "static"
scheme = "api_key"
header = "X-Api-Key"
secret = { env = "API_KEY" }
base_url = "{api_url}"
"#,
    )
    .await;
    assert_eq!(house.call("demo", "/key").await.unwrap().status, 200);
    let ask = GetTokenRequest { credential: "demo".to_owned(), ..GetTokenRequest::default() };
    assert!(house.ask(ask).await.unwrap().expires_at.is_none());
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_named_so() {
    let house = House::with(&ROTATING.replace("{api_url}", "http://127.0.0.1:9")).await;
    let status = house.call("demo", "/").await.unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "UPSTREAM_UNREACHABLE".to_owned(), None));
}
