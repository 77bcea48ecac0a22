//! How much time a caller gives (`grpc-timeout`): none, years, and what is no time at all.

use std::time::Duration;

use bearerd::proto::GetTokenRequest;
use prost::Message;
use reqwest::{Client, header::CONTENT_TYPE};
use tokio::{net::TcpListener, time::timeout};

use crate::{
    identity::configuration,
    support::{
        Bearerd, PATIENCE, eventually,
        house::{CLIENT_CREDENTIALS, House, ROTATING},
    },
};

const OK: &str = "0";
const INVALID_ARGUMENT: &str = "3";
const DEADLINE_EXCEEDED: &str = "4";

/// Asks for the token, with these values of `grpc-timeout` as they stand on the wire; the status and its text. A gRPC client
/// would look at the clock itself before it asks the server.
async fn get_within(address: &str, values: &[&str]) -> (String, String) {
    get_of_within(address, "demo", values).await
}

async fn get_of_within(address: &str, credential: &str, values: &[&str]) -> (String, String) {
    let message = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let mut request = client
        .post(format!("http://{address}/bearerd.v1.TokenService/GetToken"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body([&[0], length.as_slice(), &message].concat());
    for value in values {
        request = request.header("grpc-timeout", *value);
    }
    let answer = request.send().await.unwrap();
    let field = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    // An error stands in the header, because there is nothing before it; a success in the trailer.
    (field("grpc-status").unwrap_or_else(|| OK.to_owned()), field("grpc-message").unwrap_or_default())
}

#[tokio::test]
async fn case_32_no_time_at_all_costs_nothing() {
    let house = House::with(ROTATING).await;
    for value in ["0n", "0u", "0m", "0S", "0M", "0H", "00000000n"] {
        let (status, text) = get_within(&house.address(), &[value]).await;
        assert_eq!(status, DEADLINE_EXCEEDED, "{value}: {text}");
    }
    assert_eq!(house.asked(), 0, "no refresh token is spent for somebody who has gone");
}

#[tokio::test]
async fn case_32_what_is_no_time_is_told() {
    let house = House::with(ROTATING).await;
    for values in [
        &["x"][..],
        &["5"],
        &["S"],
        &["5s"],
        &["-1S"],
        &["1.5S"],
        &["123456789n"],
        &["99999999999999999999H"],
        &["1S", "2S"],
    ] {
        let (status, text) = get_within(&house.address(), values).await;
        assert_eq!(status, INVALID_ARGUMENT, "{values:?}: {text}");
        assert!(text.contains("grpc-timeout"), "{values:?}: {text}");
    }
    assert_eq!(house.asked(), 0);
}

#[tokio::test]
async fn case_32_years_are_as_good_as_no_limit() {
    let house = House::with(ROTATING).await;
    for value in ["99999999H", "99999999M", "99999999S"] {
        let (status, text) = get_within(&house.address(), &[value]).await;
        assert_eq!(status, OK, "{value}: {text}");
    }
    assert_eq!(house.asked(), 1);
}

#[tokio::test]
async fn who_waits_is_told_when_the_time_is_over() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", silent.local_addr().unwrap());
    let house = House::with(&CLIENT_CREDENTIALS.replace("{token_url}", &token_url)).await;
    let (status, text) = get_of_within(&house.address(), "cc", &["200m"]).await;
    assert_eq!(status, DEADLINE_EXCEEDED, "{text}");
}

/// A process of its own, for its log and its metrics.
async fn process() -> Bearerd {
    let config = configuration("local", "listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n")
        .replace("{ env = \"S\" }", "{ file = \"@DIR@/secret\" }");
    Bearerd::start(&config, &[("secret", "hunter2")]).await
}

fn address(bearerd: &Bearerd) -> String {
    bearerd.grpc().replace("http://", "")
}

#[tokio::test]
async fn case_32_what_is_no_time_is_counted_and_does_not_fill_the_log() {
    let mut bearerd = process().await;
    let address = address(&bearerd);
    for _ in 0..100 {
        assert_eq!(get_within(&address, &["x"]).await.0, INVALID_ARGUMENT);
    }
    let series = "bearerd_requests_total{rpc=\"GetToken\",result=\"INVALID_REQUEST\"}";
    assert_eq!(bearerd.metric(series).await, 100.0);
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.log().contains("stopped") && bearerd.process().ended().is_some()).await;
    let told = bearerd.log().matches("grpc-timeout").count();
    assert!((1..50).contains(&told), "{told} lines, where one a second is enough");
}

#[tokio::test]
async fn case_32_no_time_at_all_is_counted() {
    let bearerd = process().await;
    for _ in 0..3 {
        assert_eq!(get_within(&address(&bearerd), &["0n"]).await.0, DEADLINE_EXCEEDED);
    }
    assert_eq!(bearerd.metric("bearerd_requests_total{rpc=\"GetToken\",result=\"CANCELLED\"}").await, 3.0);
}

#[tokio::test]
async fn whoever_does_not_wait_for_the_end_is_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", silent.local_addr().unwrap());
    let server = "[server]\nlisten = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n[store]\npath = \"@DIR@/b.redb\"\n";
    let secret = "{ file = \"@DIR@/secret\" }";
    let credential =
        CLIENT_CREDENTIALS.replace("{token_url}", &token_url).replace("{ env = \"CLIENT_SECRET\" }", secret);
    let bearerd = Bearerd::start(&format!("{server}{credential}"), &[("secret", "s")]).await;
    let address = address(&bearerd);
    let cancelled = async || bearerd.metric("bearerd_requests_total{rpc=\"GetToken\",result=\"CANCELLED\"}").await;
    // One whose time passes, and one who hangs up.
    assert_eq!(get_of_within(&address, "cc", &["200m"]).await.0, DEADLINE_EXCEEDED);
    eventually(PATIENCE, async || cancelled().await == 1.0).await;
    // Until one of them was heard before he hung up.
    eventually(PATIENCE, async || {
        let gone = timeout(Duration::from_millis(200), get_of_within(&address, "cc", &[])).await;
        assert!(gone.is_err(), "{gone:?}");
        cancelled().await > 1.0
    })
    .await;
}
