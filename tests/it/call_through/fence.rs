//! What no call through gets out of, over gRPC. `e0NN_…` is an abuse case of `docs/security.md`.

use std::{io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bearerd::{
    proto::{CallThroughRequest, Header},
    sandbox::DEMO_API_KEY,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    calling,
    raw::{Raw, Reply, ok},
};
use crate::support::{
    PATIENCE,
    house::{House, ROTATING, reason},
};

/// A static token for the API at this URL, and more lines of configuration.
pub(super) fn api(url: &str, lines: &str) -> String {
    format!(
        "[credentials.demo]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = {{ env = \"API_KEY\" }}\n\
         base_url = \"{url}\"\n{lines}\n"
    )
}

fn with_header(name: &str, value: &str) -> CallThroughRequest {
    let headers = vec![Header { name: name.to_owned(), value: value.to_owned() }];
    CallThroughRequest { headers, ..calling("GET", "/") }
}

/// The code, the reason and the field that is at fault.
fn refusal(status: &Status) -> (Code, String, String) {
    let (code, word, _) = reason(status);
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    (code, word, violations.into_iter().map(|violation| violation.field).collect())
}

fn invalid(word: &str, field: &str) -> (Code, String, String) {
    (Code::InvalidArgument, word.to_owned(), field.to_owned())
}

#[tokio::test]
async fn e001_e002_no_redirect_is_followed_to_anywhere() {
    let elsewhere = Raw::saying("", "landed").await;
    for status in [301, 302, 303, 307, 308] {
        for location in
            [elsewhere.url(), elsewhere.url().replace("http://127.0.0.1", "//127.0.0.1"), "/v1/again".into()]
        {
            let answer = format!("HTTP/1.1 {status} x\r\nlocation: {location}\r\nrefresh: 0;url={location}\r\n\r\n");
            let upstream = Raw::answering(Reply::Bytes(answer.into_bytes())).await;
            let house = House::with(&api(&upstream.url(), "")).await;
            let answer =
                house.call_whole(CallThroughRequest { body: "b".into(), ..calling("POST", "/") }).await.unwrap();
            assert_eq!(answer.status, status, "{location}");
            assert!(answer.headers.iter().any(|header| header.name == "location" && header.value == location));
            assert_eq!(upstream.seen().len(), 1, "{location}");
        }
    }
    assert_eq!(elsewhere.seen(), [""; 0]);
}

#[tokio::test]
async fn e003_e004_e005_a_path_stays_behind_the_base_url_or_is_refused() {
    let (upstream, evil) = (Raw::saying("", "").await, Raw::saying("", "").await);
    let house = House::with(&api(&format!("{}/v1", upstream.url()), "")).await;
    let host = evil.url().replace("http://", "");
    for path in [
        format!("//{host}/"),
        format!("\\\\{host}/"),
        format!("/\\{host}/"),
        format!(" http://{host}/"),
        format!("http://{host}/"),
        format!("@{host}/"),
        format!(":80@{host}/"),
        format!("/\t/{host}/"),
        "/../admin".to_owned(),
        "/%2e%2e/admin".to_owned(),
        "/..%2fadmin".to_owned(),
        "/%252e%252e/admin".to_owned(),
        "/..;/admin".to_owned(),
        "/%c0%ae%c0%ae/admin".to_owned(),
        "/a#b".to_owned(),
        "/a HTTP/1.1\r\nHost: evil\r\n\r\nGET /".to_owned(),
        "/a%0d%0aHost:%20evil".to_owned(),
        "/a\0".to_owned(),
        String::new(),
        "*".to_owned(),
    ] {
        let status = house.call("demo", &path).await.unwrap_err();
        assert_eq!(refusal(&status), invalid("INVALID_TARGET", "path"), "{path:?}");
    }
    assert_eq!((upstream.seen().len(), evil.seen().len()), (0, 0));
    // What only looks like an authority is a name of a resource.
    for path in [format!("/@{host}/"), format!("/:443@{host}"), format!("/{host}"), format!("/x?u=http://{host}/")] {
        house.call("demo", &path).await.unwrap();
        let line = format!("GET /v1{path} HTTP/1.1\r\n");
        assert!(upstream.seen().last().unwrap().starts_with(&line), "{line}");
    }
    assert_eq!(evil.seen(), [""; 0]);
}

#[tokio::test]
async fn e009_headers_of_others_are_refused_and_ours_are_as_they_should_be() {
    let upstream = Raw::saying("", "").await;
    let house = House::with(&api(&upstream.url(), "")).await;
    for (name, value) in [
        ("Authorization", "Bearer mine"),
        ("authorization", ""),
        ("Proxy-Authorization", "Basic x"),
        ("Cookie", "session=1"),
        (":authority", "evil.example"),
        ("Transfer_Encoding", "chunked"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X_Forwarded_For", "127.0.0.1"),
        ("X-Forwarded-Client-Cert", "By=spiffe://x"),
        ("X-Original-URL", "/admin"),
        ("X-Real-IP", "127.0.0.1"),
        ("x", "a\r\nHost: evil"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r\nHost", "evil"),
        ("", "a"),
        ("x y", "a"),
    ] {
        let status = house.call_whole(with_header(name, value)).await.unwrap_err();
        assert_eq!(refusal(&status), invalid("INVALID_REQUEST", "headers"), "{name:?} {value:?}");
    }
    assert_eq!(upstream.seen(), [""; 0]);

    house.call_whole(with_header("X-Request-Id", "7")).await.unwrap();
    let seen = upstream.seen().concat().to_ascii_lowercase();
    let host = upstream.url().replace("http://", "");
    for line in [
        format!("host: {host}"),
        format!("authorization: bearer {DEMO_API_KEY}"),
        "accept-encoding: identity".into(),
        "x-request-id: 7".into(),
    ] {
        assert_eq!(seen.lines().filter(|seen| **seen == *line).count(), 1, "{line}: {seen}");
    }
    assert!(!seen.contains("forwarded") && !seen.contains("via:"), "{seen}");
}

#[tokio::test]
async fn e010_methods_that_are_no_requests_are_refused_and_a_body_is_no_second_request() {
    let upstream = Raw::saying("transfer-encoding: identity\r\n", "").await;
    let house = House::with(&api(&upstream.url(), "")).await;
    for method in
        ["", "CONNECT", "connect", "TRACE", "Track", "PRI", "GET /x HTTP/1.1\r\n", "G ET", "GET\0", "GET\r\nx: y"]
    {
        let status = house.call_whole(calling(method, "/")).await.unwrap_err();
        assert_eq!(refusal(&status), invalid("INVALID_TARGET", "method"), "{method:?}");
    }
    assert_eq!(upstream.seen(), [""; 0]);
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nhost: x\r\n\r\n";
    let upstream = Raw::saying("", "").await;
    let house = House::with(&api(&upstream.url(), "")).await;
    for method in ["GET", "DELETE", "POST", "PROPFIND"] {
        let answer =
            house.call_whole(CallThroughRequest { body: smuggled.into(), ..calling(method, "/") }).await.unwrap();
        assert_eq!(answer.status, 200, "{method}");
        let seen = upstream.seen().pop().unwrap();
        assert!(seen.contains(&format!("content-length: {}", smuggled.len())) && seen.ends_with(smuggled), "{seen}");
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[tokio::test]
async fn e011_an_echoed_token_is_cut_out_in_every_form() {
    let header = format!("Bearer {DEMO_API_KEY}");
    let percent: String = DEMO_API_KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped: String = DEMO_API_KEY.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
    let entities: String = DEMO_API_KEY.bytes().map(|byte| format!("&#{byte};")).collect();
    let base64 = STANDARD.encode(&header);
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for form in [DEMO_API_KEY, &percent, &escaped, &entities, &base64] {
        let fields =
            format!("x-echo: a {form} b\r\nwww-authenticate: Bearer realm=\"{form}\"\r\nlocation: /?t={form}\r\n");
        for (fields, body) in [
            (fields.clone(), format!("<p>{form}</p>{form}").into_bytes()),
            (format!("{fields}content-encoding: gzip\r\n"), gzip(&format!("<p>{form}</p>"))),
        ] {
            let upstream = Raw::saying(&fields, body).await;
            let answer = House::with(&api(&upstream.url(), "")).await.call("demo", "/").await.unwrap();
            let fields: String = answer.headers.iter().map(|header| format!("{}\n", header.value)).collect();
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            for (place, text) in [("headers", &fields), ("body", &body)] {
                assert!(text.contains("[redacted]"), "{place}: {text}");
                // Of the base64 of the whole header, the scheme's name may stay.
                let secret = form.get(base64.len() / 3..).filter(|_| form == base64).unwrap_or(form);
                assert!(!text.contains(secret), "{place}: {text}");
            }
            assert!(!answer.headers.iter().any(|header| header.name == "content-encoding"));
        }
    }
}

#[tokio::test]
async fn e011_a_token_is_cut_out_across_the_chunks_in_which_it_came() {
    let (first, second) = DEMO_API_KEY.split_at(7);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-echo\r\n\r\n{chunks}");
    let trailers = answer.replace("0\r\n\r\n", &format!("0\r\nx-echo: {DEMO_API_KEY}\r\n\r\n"));
    for answer in [answer, trailers] {
        let upstream = Raw::answering(Reply::Bytes(answer.into_bytes())).await;
        let answer = House::with(&api(&upstream.url(), "")).await.call("demo", "/").await.unwrap();
        assert_eq!(answer.body, "[redacted]");
        assert!(answer.headers.iter().all(|header| !header.value.contains(DEMO_API_KEY)));
    }
}

#[tokio::test]
async fn e012_an_answer_that_is_too_much_or_never_ends_is_given_up() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 32 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000)).into_bytes();
    let fields: String = (0..100_000).map(|number| format!("x-{number}: a\r\n")).collect();
    let (too_large, no_answer) =
        ((Code::ResourceExhausted, "UPSTREAM_ANSWER_TOO_LARGE"), (Code::DeadlineExceeded, "UPSTREAM_NO_ANSWER"));
    let cases = [
        ("more than allowed", Reply::Bytes(ok("", &vec![0; 3 * 1024 * 1024 + 1])), too_large),
        ("endless chunks", Reply::Endless(head("transfer-encoding: chunked\r\n"), chunk), too_large),
        ("endless until the end of the connection", Reply::Endless(head(""), vec![0; 4096]), too_large),
        ("a compressed bomb", Reply::Bytes(ok("content-encoding: gzip\r\n", &bomb)), too_large),
        ("a damaged coding", Reply::Bytes(ok("content-encoding: br\r\n", b"x")), no_answer),
        ("many fields", Reply::Bytes(ok(&fields, b"")), no_answer),
        (
            "endless fields",
            Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: aaaaaaaaaaaaaaaa\r\n".repeat(64)),
            no_answer,
        ),
        (
            "endless interim answers",
            Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(64)),
            no_answer,
        ),
        ("no answer", Reply::Stall(Vec::new()), no_answer),
        ("half a head", Reply::Stall(b"HTTP/1.1 200 OK\r\nx-a: ".to_vec()), no_answer),
        ("half a body", Reply::Stall(head("content-length: 10\r\n")), no_answer),
        ("no HTTP", Reply::Bytes(b"\x16\x03\x01 what?".to_vec()), no_answer),
    ];
    join_all(cases.map(async |(name, reply, (code, word))| {
        let upstream = Raw::answering(reply).await;
        // What is too much ends by itself; of the rest some would go on for ever.
        let limit = if word == too_large.1 { "25s" } else { "3s" };
        let house = House::with(&api(&upstream.url(), &format!("call_timeout = \"{limit}\""))).await;
        let status = timeout(PATIENCE, house.call("demo", "/")).await.expect(name).unwrap_err();
        assert_eq!(reason(&status), (code, word.to_owned(), None), "{name}");
    }))
    .await;
}

#[tokio::test]
async fn e013_a_token_goes_to_its_own_api_only() {
    let (own, other) = (Raw::saying("", "").await, Raw::saying("", "").await);
    let second = api(&other.url(), "").replace("credentials.demo", "credentials.other");
    let house = House::with(&format!("{}{}", api(&own.url(), ""), second.replace("API_KEY", "PASSWORD"))).await;
    let host = other.url().replace("http://", "");
    for path in [format!("//{host}/"), format!("/@{host}/"), "/".to_owned()] {
        // Whether it is refused or is a name of a resource: it is not another API.
        let _ = house.call("demo", &path).await;
    }
    assert_eq!(other.seen(), [""; 0]);
    house.call("other", "/").await.unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(!other.seen()[0].contains(DEMO_API_KEY) && other.seen()[0].contains("demo-password"));
}

#[tokio::test]
async fn e014_urls_in_an_answer_are_not_asked() {
    let elsewhere = Raw::saying("", "{}").await;
    let url = elsewhere.url();
    let challenge = format!(
        "HTTP/1.1 401 x\r\nwww-authenticate: Bearer error=\"invalid_token\", resource_metadata=\"{url}/m\", \
         authorization_uri=\"{url}/a\"\r\nlink: <{url}>; rel=preload\r\nalt-svc: h2=\"{}\"\r\ncontent-length: 0\r\n\r\n",
        url.replace("http://", "")
    );
    let upstream = Raw::answering(Reply::Bytes(challenge.into_bytes())).await;
    let house = House::with(&api(&upstream.url(), "")).await;
    for _ in 0..2 {
        assert_eq!(house.call("demo", "/").await.unwrap().status, 401);
    }
    assert_eq!(elsewhere.seen(), [""; 0]);
}

#[tokio::test]
async fn e015_an_api_that_refuses_everything_cannot_make_us_flood_the_provider() {
    let refusal = "HTTP/1.1 401 x\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\ncontent-length: 0\r\n\r\n";
    let upstream = Raw::answering(Reply::Bytes(refusal.into())).await;
    let house = House::with(&ROTATING.replace("{api_url}", &upstream.url()).replace("\"0s\"", "\"1h\"")).await;
    let answers = join_all((0..20).map(|_| house.call("demo", "/"))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 401));
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn a_credential_narrows_what_may_be_called() {
    let upstream = Raw::saying("x-internal-id: 7\r\nx-public: 8\r\nset-cookie: session=1\r\n", "").await;
    let lines = "methods = [\"GET\", \"POST\"]\ndeny_request_headers = [\"X-Admin-*\"]\n\
                 deny_response_headers = [\"x-internal-*\"]\nmax_request_bytes = 4";
    let house = House::with(&api(&upstream.url(), lines)).await;
    let not_allowed = |field: &str| (Code::PermissionDenied, "TARGET_NOT_ALLOWED".to_owned(), field.to_owned());
    let body = |body: &'static str| CallThroughRequest { body: body.into(), ..calling("POST", "/") };
    for (request, expected) in [
        (calling("DELETE", "/"), not_allowed("method")),
        (calling("get", "/"), not_allowed("method")),
        (with_header("x-admin-mode", "1"), invalid("INVALID_REQUEST", "headers")),
        (with_header("X-HTTP-Method-Override", "DELETE"), invalid("INVALID_REQUEST", "headers")),
        (body("12345"), invalid("INVALID_REQUEST", "body")),
    ] {
        assert_eq!(refusal(&house.call_whole(request.clone()).await.unwrap_err()), expected, "{:?}", request.method);
    }
    assert_eq!(upstream.seen(), [""; 0]);
    let answer = house.call_whole(body("1234")).await.unwrap();
    let names: Vec<&str> = answer.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, ["x-public"]);
}

#[tokio::test]
async fn a_caller_shortens_the_time_of_a_call_and_never_lengthens_it() {
    let upstream = Raw::answering(Reply::Stall(Vec::new())).await;
    for (lines, seconds, nanos) in [("call_timeout = \"100ms\"", 3600, 0), ("call_timeout = \"1h\"", 0, 100_000_000)] {
        let house = House::with(&api(&upstream.url(), lines)).await;
        // The token is there already, so that the time is the upstream's alone.
        house.get("demo").await.unwrap();
        let limit = prost_types::Duration { seconds, nanos };
        let call = house.call_whole(CallThroughRequest { timeout: Some(limit), ..calling("GET", "/") });
        let status = timeout(Duration::from_secs(60), call).await.unwrap().unwrap_err();
        assert_eq!(reason(&status), (Code::DeadlineExceeded, "UPSTREAM_NO_ANSWER".to_owned(), None), "{lines}");
    }
}
