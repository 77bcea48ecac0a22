//! What operators are told of a token endpoint's refusal: its own words, without a secret.

use std::sync::Arc;

use bearerd::proto::{DescribeGrantRequest, DescribeGrantResponse};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Redis,
    house::{House, ROTATING, reason},
};
use bearerd::sandbox::{Options, Sandbox};

/// A token endpoint that answers each request with what this makes of its text.
pub async fn endpoint(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("{}/oauth/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&request) {
                let length = stream.read(&mut piece).await.unwrap();
                assert_ne!(length, 0, "a request breaks off");
                request.extend_from_slice(&piece[..length]);
            }
            stream.write_all(answer(&String::from_utf8(request).unwrap()).as_bytes()).await.unwrap();
        }
    });
    place
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() >= length.parse().unwrap()
}

pub fn answer(status: u16, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

async fn described(house: &House) -> DescribeGrantResponse {
    let request = DescribeGrantRequest { credential: "demo".to_owned(), ..DescribeGrantRequest::default() };
    house.grants.clone().describe_grant(request).await.unwrap().into_inner()
}

fn at(place: &str) -> String {
    ROTATING.replace("{token_url}", &format!("http://{place}"))
}

/// P-K8, row 19; N4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_tells_the_providers_words_without_a_secret_that_it_repeats() {
    let seen = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&seen);
    let place = endpoint(move |request| {
        heard.lock().clone_from(&request.to_owned());
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap();
        let description = format!("AADSTS900: bad\u{1b}[2J request\n{authorization} {body}");
        answer(400, "", &json!({"error": "invalid_request", "error_description": description}).to_string())
    })
    .await;
    let redis = Redis::start().await;
    let sandbox = Arc::new(Sandbox::start(Options::default()).await.unwrap());
    let (one, two) =
        (House::beside(&redis, &sandbox, &at(&place)).await, House::beside(&redis, &sandbox, &at(&place)).await);
    let status = one.get("demo").await.unwrap_err();
    assert_eq!(reason(&status).1, "CLIENT_CONFIGURATION_REJECTED");
    assert!(!format!("{status:?}").contains("AADSTS"), "callers see reasons only: {status:?}");
    for house in [&one, &two] {
        let grant = described(house).await;
        assert_eq!((grant.provider_status, grant.provider_error.as_str()), (400, "invalid_request"));
        assert_eq!(grant.provider_endpoint, place);
        let said = grant.provider_error_description;
        assert!(said.starts_with("AADSTS900: bad\\u{1b}[2J request\\u{a}Basic [redacted] "), "{said}");
        assert!(
            grant.provider_advice.contains("invalid_request (HTTP 400) from 127.0.0.1:"),
            "{}",
            grant.provider_advice
        );
        let request = seen.lock().clone();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let secrets = url::form_urlencoded::parse(body.as_bytes()).filter(|(name, _)| name == "refresh_token");
        let basic = head.lines().find_map(|line| line.strip_prefix("authorization: Basic ")).unwrap();
        for secret in secrets.map(|(_, value)| value.into_owned()).chain([basic.to_owned()]) {
            assert!(!said.contains(&secret[..8]) && !grant.provider_advice.contains(&secret[..8]), "{said}");
        }
    }
}

/// P-K8, N4; P-K13, row 62.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_url_is_told_as_such() {
    for (status, fields, advice) in [
        (404, "", "HTTP 404 from PLACE: is token_url right?"),
        (
            308,
            "location: /oauth/token/?secret=1\r\n",
            "HTTP 308 from PLACE, a redirect to PLACE/: token_url has to be the address that it leads to",
        ),
    ] {
        let place = endpoint(move |_| answer(status, fields, "")).await;
        let house = House::with(&at(&place)).await;
        let refused = house.get("demo").await.unwrap_err();
        assert_eq!(reason(&refused).1, "CLIENT_CONFIGURATION_REJECTED", "{status}");
        let grant = described(&house).await;
        assert_eq!(grant.provider_advice, advice.replace("PLACE", &place));
        assert!(!grant.outcome_unknown, "{status}: nothing was done");
    }
}
