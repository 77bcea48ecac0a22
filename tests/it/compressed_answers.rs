//! Answers of a provider that are compressed, which nobody asked for: they are not unpacked, and said to be that.

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

#[tokio::test]
async fn case_53_a_compressed_answer_is_not_unpacked() {
    let token = br#"{"access_token":"a","token_type":"bearer"}"#;
    for (what, coding, body) in [
        ("a good answer", "gzip", gzip(token)),
        ("a bomb", "gzip", bomb()),
        ("a coding that nobody knows", "x-own", gzip(token)),
        ("two of them", "gzip, gzip", gzip(&gzip(token))),
    ] {
        assert!(body.len() < 1 << 20, "{what}: it is not its size that is refused");
        let head = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n");
        let provider = Raw::saying(&head, body).await;
        let token_url = format!("{}/token", provider.url());
        let house = House::with(&CLIENT_CREDENTIALS.replace("{token_url}", &token_url)).await;
        let (code, word, wait) = reason(&house.get("cc").await.expect_err(what));
        assert_eq!((code, word.as_str()), (Code::Unavailable, "PROVIDER_ANSWER_INVALID"), "{what}");
        assert!(wait.is_some(), "{what}");
        let asked = provider.seen();
        assert!(!asked.is_empty() && !asked.join("\n").to_ascii_lowercase().contains("accept-encoding"), "{asked:?}");
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
