//! The protected API: challenges, its odd corners, and what it makes of garbage.

use http::header::{LOCATION, WWW_AUTHENTICATE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

#[tokio::test]
async fn every_path_says_no_in_its_own_way() {
    let stage = Stage::new().await;
    let read = stage.access_token("read").await;
    let (bare, bad) = ("Bearer realm=\"sandbox\"", "Bearer realm=\"sandbox\", error=\"invalid_token\"");
    let cases = [
        ("/hello", None, 401, bare, ""),
        ("/hello", Some("made-up"), 401, bad, ""),
        ("/hello", Some(""), 401, bad, ""),
        ("/admin", Some("made-up"), 401, bad, ""),
        ("/admin", Some(&*read), 403, "Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"admin\"", ""),
        ("/plain401", Some("made-up"), 401, "", "session expired"),
        ("/plain401", Some(&*read), 200, "", "ok"),
        ("/soap500", Some("made-up"), 500, "", "INVALID_SESSION_ID"),
        ("/soap500", Some(&*read), 200, "", "<ok/>"),
        ("/nowhere", None, 401, bare, ""),
        ("/nowhere", Some("made-up"), 401, bad, ""),
        ("/nowhere", Some(&*read), 404, "", ""),
        ("/key", Some(&*read), 401, "Basic realm=\"sandbox\"", ""),
    ];
    for (path, token, status, challenge, text) in cases {
        let answer = stage.get(path, token).await;
        assert_eq!(answer.status, status, "{path} {token:?}");
        let sent = answer.header(WWW_AUTHENTICATE);
        assert_eq!(sent.split(", error_description").next(), Some(challenge), "{path} {token:?}");
        assert!(answer.text.contains(text), "{path} {token:?}");
    }
    assert_eq!(stage.sandbox.requests("/hello"), 3);
    assert_eq!(stage.sandbox.requests("/unvisited"), 0);
    let admin = stage.access_token("admin").await;
    assert_eq!(stage.get("/admin", Some(&admin)).await.status, 200);
}

#[tokio::test]
async fn a_token_ends_by_itself() {
    let stage = Stage::with(Options { access_token_lifetime: Duration::ZERO, ..Options::default() }).await;
    let token = stage.access_token("read").await;
    let answer = stage.get("/hello", Some(&token)).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header(WWW_AUTHENTICATE).contains("invalid_token"));
}

#[tokio::test]
async fn echo_repeats_the_request_and_the_token() {
    let stage = Stage::new().await;
    let token = stage.access_token("read").await;
    let request = stage.http.put(format!("{}/echo?a=1&b=%20", stage.sandbox.api_url())).body("hi");
    let request = request.header(AUTHORIZATION, format!("bearer {token}")).header("x-two", "1").header("x-two", "2");
    let echoed = stage.send(request).await.unwrap().json();
    assert_eq!(echoed["method"], "PUT");
    assert_eq!(echoed["path"], "/echo?a=1&b=%20");
    assert_eq!(echoed["body"], "hi");
    assert_eq!(echoed["headers"]["authorization"], format!("bearer {token}"));
    assert_eq!(echoed["headers"]["x-two"], "1, 2");
}

#[tokio::test]
async fn key_takes_a_key_or_a_password() {
    let stage = Stage::new().await;
    let get = || stage.http.get(format!("{}/key", stage.sandbox.api_url()));
    let cases = [
        (get().header("X-Api-Key", DEMO_API_KEY), 200),
        (get().basic_auth(DEMO_USERNAME, Some(DEMO_PASSWORD)), 200),
        (get().header("X-Api-Key", "wrong"), 401),
        (get().header("X-Api-Key", &b"\xff"[..]), 401),
        (get().basic_auth(DEMO_USERNAME, Some("wrong")), 401),
        (get().basic_auth("other", Some(DEMO_PASSWORD)), 401),
        (get(), 401),
    ];
    for (request, status) in cases {
        assert_eq!(stage.send(request).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn away_leads_to_another_origin() {
    let stage = Stage::new().await;
    let token = stage.access_token("read").await;
    let answer = stage.get("/away", Some(&token)).await;
    let location = answer.header(LOCATION);
    assert_eq!((answer.status, location), (302, format!("{}/landing", stage.sandbox.issuer()).as_str()));
    assert!(!location.starts_with(&stage.sandbox.api_url()));
    assert_eq!(stage.sandbox.requests("/landing"), 0);
    assert_eq!(stage.send(stage.http.get(location)).await.unwrap().status, 200);
    assert_eq!(stage.sandbox.requests("/landing"), 1);
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let stage = Stage::new().await;
    let large = "x".repeat(2 << 20);
    let hello = format!("{}/hello", stage.sandbox.api_url());
    let token_url = stage.sandbox.token_url();
    let requests = [
        (stage.http.post(&token_url).body(large.clone()), 413),
        (stage.http.post(format!("{}/echo", stage.sandbox.api_url())).body(large), 413),
        (stage.http.get(&token_url), 405),
        (stage.http.post(&token_url).body("{}"), 400),
        (stage.http.post(&token_url).header(AUTHORIZATION, &b"Basic \xff\xfe"[..]), 400),
        (stage.form(token_url.clone(), &[]).header(AUTHORIZATION, &b"Basic \xff\xfe"[..]), 401),
        (stage.form(token_url.clone(), &[]).body(&b"grant_type=%ff%&&=&\x00\xff"[..]), 401),
        (stage.http.get(&hello).header(AUTHORIZATION, &b"Bearer \xff"[..]), 401),
        (stage.http.get(&hello).header(AUTHORIZATION, "Bearer a").header(AUTHORIZATION, "Bearer b"), 400),
    ];
    for (request, status) in requests {
        let shown = format!("{request:?}");
        assert_eq!(stage.send(request).await.unwrap().status, status, "{shown}");
    }
    let mut raw = TcpStream::connect(stage.sandbox.issuer().trim_start_matches("http://")).await.unwrap();
    raw.write_all(b"\x16\x03\x01 no HTTP at all\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"));
    assert_eq!(stage.access_token("read").await.len(), "at_".len() + 43);
}
