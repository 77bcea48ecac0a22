//! Answers of a provider that are compressed although bearerd asks for `identity`: they are unpacked within the bound.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use tonic::Code;

use crate::{
    call_through::raw::Raw,
    support::house::{CLIENT_CREDENTIALS, House, reason},
};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A token answer whose description would fill 256 MiB.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(br#"{"access_token":"a","token_type":"bearer","description":""#).unwrap();
    for _ in 0..256 {
        encoder.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    encoder.write_all(br#""}"#).unwrap();
    encoder.finish().unwrap()
}

async fn house_before(coding: &str, body: Vec<u8>) -> (Raw, House) {
    assert!(body.len() < 1 << 20, "{coding}: it is not its size that is refused");
    let head = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n");
    let provider = Raw::saying(&head, body).await;
    let token_url = format!("{}/token", provider.url());
    let house = House::with(&CLIENT_CREDENTIALS.replace("{token_url}", &token_url)).await;
    (provider, house)
}

/// P-K6, row 23.
#[tokio::test]
async fn case_53_a_compressed_answer_is_unpacked_within_the_bound() {
    let token = br#"{"access_token":"a","token_type":"bearer"}"#;
    for (coding, body) in [("gzip", gzip(token)), ("gzip, gzip", gzip(&gzip(token)))] {
        let (provider, house) = house_before(coding, body).await;
        assert_eq!(house.get("cc").await.unwrap().access_token, "a", "{coding}");
        let asked = provider.seen().join("\n").to_ascii_lowercase();
        assert!(asked.contains("accept-encoding: identity"), "{asked}");
    }
    for (what, coding, body) in [("a bomb", "gzip", bomb()), ("an unknown coding", "x-own", gzip(token))] {
        let (_provider, house) = house_before(coding, body).await;
        let (code, word, wait) = reason(&house.get("cc").await.expect_err(what));
        assert_eq!((code, word.as_str()), (Code::Unavailable, "PROVIDER_ANSWER_INVALID"), "{what}");
        assert!(wait.is_some(), "{what}");
    }
}

#[tokio::test]
async fn what_is_only_said_to_be_compressed_is_read() {
    let fields = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let provider = Raw::saying(fields, r#"{"access_token":"plain","token_type":"bearer"}"#).await;
    let token_url = format!("{}/token", provider.url());
    let house = House::with(&CLIENT_CREDENTIALS.replace("{token_url}", &token_url)).await;
    assert_eq!(house.get("cc").await.unwrap().access_token, "plain");
}
