//! `CallThrough`: the call is made with a token that the caller never sees, and replayed once after a rejection.

use bearerd::proto::{CallThroughRequest, GetTokenRequest, Header, Replay};
use tonic::Code;

use self::raw::{Raw, Reply};
use crate::support::{
    PATIENCE, eventually,
    house::{House, ROTATING, reason},
};

mod answers;
mod fence;
mod peers;
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
            CallThroughRequest { headers: header("X-Forwarded-For"), ..calling("GET", "/") },
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

/// The credential `demo` with another API and these lines.
fn at(api: &Raw, lines: &str) -> String {
    ROTATING.replace("{api_url}", &api.url()).replace("[credentials.demo]", &format!("[credentials.demo]\n{lines}"))
}

/// LOW 17: a rule that finds a rejection in an answer of success made a POST run twice, and other people write what such an
/// answer has in it.
#[tokio::test]
async fn what_was_acted_upon_is_repeated_only_if_that_does_no_harm() {
    let key = ("Idempotency-Key", "7");
    for (status, method, header, attempts) in [
        (200, "POST", None, 1),
        (200, "PATCH", None, 1),
        (302, "POST", None, 1),
        (200, "POST", Some(key), 2),
        (200, "GET", None, 2),
        (200, "PUT", None, 2),
        (200, "DELETE", None, 2),
        (400, "POST", None, 2),
        (500, "POST", None, 2),
    ] {
        let body = "token_expired";
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let api = Raw::answering(Reply::Bytes(answer.into_bytes())).await;
        let rule = format!("rejected_when = [\"{status} body ~ token_expired\"]");
        let house = House::with(&at(&api, &rule)).await;
        let headers = header.map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() });
        let request = CallThroughRequest { headers: headers.into_iter().collect(), ..calling(method, "/x") };
        let answer = house.call_whole(request).await.unwrap();
        let what = format!("{method} answered {status}");
        assert_eq!((answer.status, answer.attempts, answer.refreshed), (status, attempts, true), "{what}");
        assert_eq!(api.seen().len(), usize::try_from(attempts).unwrap(), "{what}");
    }
}

/// Two callers, `local` and `token:ci`, of an API, with room for bodies of 64 KiB, of which one caller may have half.
async fn roomy(api: &Raw) -> House {
    use bearerd::identity::{hex, sha256};
    let row = |caller: &str| {
        format!("[[allow]]\ncaller = \"{caller}\"\ncredentials = [\"*\"]\nactions = [\"get\", \"call\"]")
    };
    House::with(&format!(
        "[limits]\nmax_call_body_bytes = 65_536\n[[identity.token]]\nname = \"ci\"\nsha256 = \"{}\"\n{}\n{}\n{}",
        hex(&sha256("bearerd_t")),
        row("local"),
        row("token:ci"),
        at(api, "")
    ))
    .await
}

/// As `token:ci`.
fn as_ci(request: CallThroughRequest) -> tonic::Request<CallThroughRequest> {
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("authorization", "Bearer bearerd_t".parse().unwrap());
    request
}

/// S9: 120 calls of 4 MB to an API that stalls took 520 MB.
#[tokio::test]
async fn bodies_of_calls_under_way_have_room_for_each_caller_and_are_refused_beyond_it() {
    let api = Raw::answering(Reply::Stall(Vec::new())).await;
    let house = roomy(&api).await;
    let large = || CallThroughRequest { body: vec![b'x'; 30_000].into(), ..calling("POST", "/x") };
    let (tokens, request) = (house.tokens.clone(), large());
    let stalled = tokio::spawn(async move { tokens.clone().call_through(request).await });
    eventually(PATIENCE, async || api.seen().len() == 1).await;
    let (code, word, wait) = reason(&house.call_whole(large()).await.unwrap_err());
    assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(wait.is_some(), "a caller is told when to come again");
    assert_eq!(api.seen().len(), 1, "what is refused is not sent");
    house.get("demo").await.expect("tokens are served all the while");

    let small = tokio::spawn({
        let tokens = house.tokens.clone();
        async move { tokens.clone().call_through(calling("POST", "/small")).await }
    });
    let other = tokio::spawn({
        let tokens = house.tokens.clone();
        async move { tokens.clone().call_through(as_ci(large())).await }
    });
    eventually(PATIENCE, async || api.seen().len() == 3).await;
    for call in [stalled, small, other] {
        call.abort();
    }
    let tokens = house.tokens.clone();
    eventually(PATIENCE, async || {
        let request =
            CallThroughRequest { timeout: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }), ..large() };
        reason(&tokens.clone().call_through(request).await.unwrap_err()).1 != "OVERLOADED"
    })
    .await;
}

/// S9, the other direction: an answer that the caller does not read is kept for it.
#[tokio::test]
async fn answers_count_among_the_bodies_until_their_caller_has_read_them() {
    let api = Raw::saying("", vec![b'x'; 40_000]).await;
    let house = roomy(&api).await;
    let (code, word, wait) = reason(&house.call("demo", "/x").await.unwrap_err());
    assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(wait.is_some());

    let api = Raw::saying("", vec![b'x'; 30_000]).await;
    let house = roomy(&api).await;
    for _ in 0..10 {
        assert_eq!(house.call("demo", "/x").await.unwrap().body.len(), 30_000, "what was read leaves its room");
    }
    // A window of one byte: the server has the answer and cannot send it.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", house.address()))
        .unwrap()
        .initial_stream_window_size(1)
        .connect()
        .await
        .unwrap();
    let mut slow = bearerd::proto::token_service_client::TokenServiceClient::new(channel);
    let unread = tokio::spawn(async move { slow.call_through(calling("GET", "/x")).await });
    eventually(PATIENCE, async || {
        house.call("demo", "/x").await.is_err_and(|status| reason(&status).1 == "OVERLOADED")
    })
    .await;
    unread.abort();
    eventually(PATIENCE, async || house.call("demo", "/x").await.is_ok()).await;
}
