//! What is too much is refused at once, and said to be that.

use std::time::Duration;

use bearerd::identity::{hex, sha256};
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, Streaming, codec::CompressionEncoding, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use crate::support::house::{CLIENT_CREDENTIALS, House, ROTATING, reason};

#[tokio::test]
async fn a_caller_that_sends_more_than_it_may_is_told_when_it_may_again() {
    let house = House::with(&format!("[limits]\nrequests_per_second = 1\nburst = 3\n{ROTATING}")).await;
    for _ in 0..3 {
        house.get("demo").await.unwrap();
    }
    // Also what the policy would refuse, and what makes no sense, counts and is not looked at.
    for credential in ["demo", "nobody", "No Name"] {
        let (code, word, wait) = reason(&house.get(credential).await.unwrap_err());
        assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{credential}");
        assert!(wait.is_some_and(|wait| wait > Duration::ZERO && wait <= Duration::from_secs(1)), "{wait:?}");
    }
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn when_all_places_are_taken_the_next_is_refused_before_anything_is_done() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", silent.local_addr().unwrap());
    let credential = CLIENT_CREDENTIALS.replace("{token_url}", &token_url);
    let house = House::with(&format!("[limits]\nmax_in_flight = 1\n{credential}")).await;
    let tokens = house.tokens.clone();
    let waiting = tokio::spawn(async move { tokens.clone().get_token(asking("cc")).await });
    // Once the provider has heard of it, the first request is under way.
    let _connection = silent.accept().await.unwrap();
    for credential in ["cc", "nobody"] {
        let (code, word, wait) = reason(&house.get(credential).await.unwrap_err());
        assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{credential}");
        assert_eq!(wait, Some(Duration::from_millis(250)));
    }
    // A caller that goes away leaves its place.
    waiting.abort();
    crate::support::eventually(crate::support::PATIENCE, async || {
        reason(&house.get("nobody").await.unwrap_err()).1 == "CREDENTIAL_NOT_FOUND"
    })
    .await;
}

#[tokio::test]
async fn one_caller_that_waits_leaves_places_to_the_others() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", silent.local_addr().unwrap());
    let waits = CLIENT_CREDENTIALS.replace("{token_url}", &token_url);
    let row = "credentials = [\"*\"]\nactions = [\"get\"]";
    let house = House::with(&format!(
        "[limits]\nmax_in_flight = 2\n[[identity.token]]\nname = \"ci\"\nsha256 = \"{}\"\n\
         [[allow]]\ncaller = \"local\"\n{row}\n[[allow]]\ncaller = \"token:ci\"\n{row}\n{waits}\n{ROTATING}",
        hex(&sha256("t"))
    ))
    .await;
    let tokens = house.tokens.clone();
    let _waiting = tokio::spawn(async move { tokens.clone().get_token(asking("cc")).await });
    let _connection = silent.accept().await.unwrap();
    let (code, word, wait) = reason(&house.get("demo").await.unwrap_err());
    assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert_eq!(wait, Some(Duration::from_millis(250)));
    let mut request = Request::new(asking("demo"));
    request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
    house.tokens.clone().get_token(request).await.unwrap();
}

#[tokio::test]
async fn case_30_what_is_too_large_also_once_it_is_unpacked_is_not_taken_apart() {
    let house = House::with(ROTATING).await;
    let mut request = asking("demo");
    request.subject = "a".repeat(5 << 20);
    // "What surprised a user" 4: it has an ErrorInfo, and names the setting.
    let status = house.ask(request.clone()).await.unwrap_err();
    let (code, word, _) = reason(&status);
    assert_eq!((code, word.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert!(status.message().contains("max_message_bytes"), "{}", status.message());
    let mut compressing = house.tokens.clone().send_compressed(CompressionEncoding::Gzip);
    assert_eq!(compressing.get_token(request).await.unwrap_err().code(), Code::ResourceExhausted);
    let mut request = asking("demo");
    request.scopes = vec!["a".to_owned(); 1 << 20];
    assert_eq!(reason(&house.ask(request).await.unwrap_err()).1, "INVALID_REQUEST");
    assert_eq!(house.asked(), 0);
    house.get("demo").await.unwrap();
}

/// C-K17, row 38.
#[tokio::test]
async fn a_compressed_request_is_taken() {
    let house = House::with(ROTATING).await;
    let mut compressing = house.tokens.clone().send_compressed(CompressionEncoding::Gzip);
    compressing.get_token(asking("demo")).await.unwrap();
}

/// "What surprised a user" 4: the defaults fit together.
#[tokio::test]
async fn a_body_of_the_default_limit_fits_in_a_message_of_the_default_limit() {
    let house = House::with(ROTATING).await;
    let call = |bytes: usize| bearerd::proto::CallThroughRequest {
        credential: "demo".to_owned(),
        method: "PUT".to_owned(),
        path: "/hello".to_owned(),
        headers: vec![bearerd::proto::Header { name: "x".to_owned(), value: "a".repeat(60 << 10) }],
        body: vec![b'a'; bytes].into(),
        ..Default::default()
    };
    house.call_whole(call(4 << 20)).await.unwrap();
    let status = house.call_whole(call((4 << 20) + 1)).await.unwrap_err();
    assert!(status.message().contains("body: larger than the 4194304 bytes"), "{}", status.message());
}

fn asking(credential: &str) -> bearerd::proto::GetTokenRequest {
    bearerd::proto::GetTokenRequest { credential: credential.to_owned(), ..Default::default() }
}

/// What one address may have of conversations that need no caller.
const CONVERSATIONS: usize = 512;

async fn watched(health: &HealthClient<Channel>) -> Result<Streaming<HealthCheckResponse>, Status> {
    health.clone().watch(HealthCheckRequest::default()).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn case_30_conversations_that_need_no_caller_are_bounded_and_questions_are_answered_meanwhile() {
    let house = House::with(ROTATING).await;
    let channel = Channel::from_shared(format!("http://{}", house.address())).unwrap().connect().await.unwrap();
    let health = HealthClient::new(channel);
    let mut watches = Vec::new();
    for _ in 0..CONVERSATIONS {
        watches.push(watched(&health).await.unwrap());
    }
    let (code, word, _) = reason(&watched(&health).await.unwrap_err());
    assert_eq!((code, word.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    health.clone().check(HealthCheckRequest::default()).await.unwrap();
    house.get("demo").await.unwrap();
    watches.pop();
    crate::support::eventually(crate::support::PATIENCE, async || watched(&health).await.is_ok()).await;
}
