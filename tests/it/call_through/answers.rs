//! Answers with a part that is odd: the status and the fields are never lost because of it.

use bearerd::proto::{CallThroughRequest, CallThroughResponse};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use super::{
    calling,
    fence::api,
    raw::{Raw, Reply, ok},
};
use crate::support::house::{House, ROTATING, reason};

async fn answered(bytes: impl Into<Vec<u8>>) -> Result<CallThroughResponse, Status> {
    let upstream = Raw::answering(Reply::Bytes(bytes.into())).await;
    House::with(&api(&upstream.url(), "")).await.call("demo", "/").await
}

fn field<'a>(answer: &'a CallThroughResponse, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|header| header.name == name).map(|header| header.value.as_str())
}

/// What an error says of an answer that has no body: its cause, its status, and the message among the details.
fn kept(status: &Status) -> (String, String, CallThroughResponse) {
    let metadata = status.get_details_error_info().unwrap().metadata;
    let details = pb::Status::decode(status.details()).unwrap().details;
    let answer = details.iter().find(|detail| detail.type_url.ends_with("/bearerd.v1.CallThroughResponse")).unwrap();
    let answer = CallThroughResponse::decode(&*answer.value).unwrap();
    (metadata["cause"].clone(), metadata["http_status"].clone(), answer)
}

/// C-K1, row 15: an API that answers so with every dead token kept it dead for all callers.
#[tokio::test]
async fn a_token_rejection_is_judged_whatever_is_wrong_with_its_body() {
    let head = "HTTP/1.1 401 U\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\nx-request-id: 7\r\n";
    let large = "a".repeat(2048);
    for (fields, body) in [
        ("content-encoding: utf-8\r\ncontent-length: 2\r\n", "{}"),
        ("content-encoding: x-own\r\ncontent-length: 2\r\n", "{}"),
        ("content-encoding: br\r\ncontent-length: 2\r\n", "{}"),
        ("content-length: 9999\r\n", "half"),
        ("transfer-encoding: chunked\r\n", "5\r\nhal"),
        ("transfer-encoding: chunked\r\n", "what?\r\n"),
        ("content-length: 2048\r\n", &large),
    ] {
        let upstream = Raw::answering(Reply::Bytes(format!("{head}{fields}\r\n{body}").into_bytes())).await;
        let lines = ROTATING
            .replace("{api_url}", &upstream.url())
            .replace("[credentials.demo]", "[credentials.demo]\nmax_response_bytes = 1024");
        let house = House::with(&lines).await;
        house.get("demo").await.unwrap();
        // The upstream rejects the second token, too, and the caller learns that.
        let answer = house.call("demo", "/").await;
        assert_eq!(house.asked(), 2, "{fields}{body}");
        assert_eq!(upstream.seen().len(), 2, "{fields}{body}");
        match answer {
            Ok(answer) => assert_eq!((answer.status, field(&answer, "x-request-id")), (401, Some("7"))),
            Err(status) => {
                let (_, http_status, answer) = kept(&status);
                assert_eq!((http_status.as_str(), answer.status, answer.attempts), ("401", 401, 2), "{fields}");
                assert!(answer.refreshed && answer.body.is_empty());
                assert_eq!(field(&answer, "x-request-id"), Some("7"), "{fields}");
            }
        }
    }
}

/// C-K1, row 15: the body of a rejection need not even come.
#[tokio::test]
async fn a_token_rejection_whose_body_never_ends_does_not_wait_for_it() {
    let head = "HTTP/1.1 401 U\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\ncontent-length: 10\r\n\r\n";
    let upstream = Raw::answering(Reply::Stall(head.into())).await;
    let house = House::with(&ROTATING.replace("{api_url}", &upstream.url())).await;
    house.get("demo").await.unwrap();
    let (cause, status, _) = kept(&house.call("demo", "/").await.unwrap_err());
    assert_eq!((cause.as_str(), status.as_str(), house.asked()), ("TIMED_OUT", "401", 2));
}

/// C-K1, rows 13 and 14, and "What surprised a user" 1.
#[tokio::test]
async fn a_body_that_callers_cannot_have_leaves_them_status_and_fields() {
    let many: String = (0..200).map(|number| format!("x-{number}: {}\r\n", "v".repeat(40))).collect();
    let stays = |fields: &str, body: &str| format!("HTTP/1.1 503 x\r\nretry-after: 7\r\n{fields}\r\n{body}");
    for (bytes, word, cause) in [
        (stays("content-encoding: x-own\r\ncontent-length: 1\r\n", "x"), "UPSTREAM_NO_ANSWER", "BODY_UNDECODABLE"),
        (stays("content-encoding: gzip\r\n", "\u{1f}\u{8b}"), "", ""),
        (stays(&format!("{many}content-length: 9\r\n"), "x"), "UPSTREAM_NO_ANSWER", "BODY_INCOMPLETE"),
        (stays("content-length: 4000000\r\n", &"x".repeat(4_000_000)), "UPSTREAM_ANSWER_TOO_LARGE", "BODY_TOO_LARGE"),
    ] {
        if word.is_empty() {
            // What only says that it is packed is the body.
            assert_eq!(answered(bytes).await.unwrap().body, "\u{1f}\u{8b}");
            continue;
        }
        let status = answered(bytes).await.unwrap_err();
        assert_eq!(reason(&status).1, word);
        let (kept_cause, http_status, answer) = kept(&status);
        assert_eq!((kept_cause.as_str(), http_status.as_str(), answer.status), (cause, "503", 503));
        assert_eq!(field(&answer, "retry-after"), Some("7"), "{word}");
        assert!(status.details().len() < 6 * 1024, "it fits in trailers");
        assert!(!status.message().contains("in time"), "{}", status.message());
    }
}

/// C-K1, row 16.
#[tokio::test]
async fn a_thousand_fields_and_64_kib_of_them_are_passed_on() {
    let many: String = (0..990).map(|number| format!("x-{number}: a\r\n")).collect();
    let large: String = (0..60).map(|number| format!("x-{number}: {}\r\n", "v".repeat(1024))).collect();
    for (fields, count) in [(many, 990), (large, 60)] {
        let answer = answered(ok(&fields, b"body")).await.unwrap();
        assert_eq!((answer.headers.len(), &answer.body[..]), (count, &b"body"[..]));
    }
}

/// C-K1, rows 17 and 21.
#[tokio::test]
async fn folded_spaced_and_latin_1_fields_are_read() {
    let head = b"HTTP/1.1 200 OK\r\nx-folded: one\r\n two\r\nx-spaced : a\r\n\
                 content-disposition: attachment; filename=M\xfcller.pdf\r\nContent-Length: 2\r\n\r\nok";
    let answer = answered(*head).await.unwrap();
    let folded: Vec<&str> = field(&answer, "x-folded").unwrap().split_whitespace().collect();
    assert_eq!(folded, ["one", "two"]);
    assert_eq!(field(&answer, "x-spaced"), Some("a"));
    assert_eq!(field(&answer, "content-disposition"), Some("attachment; filename=Müller.pdf"));
    assert_eq!(answer.body, "ok");
}

/// C-K1, row 29.
#[tokio::test]
async fn trailers_are_passed_on() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
                   4\r\nbody\r\n0\r\nx-checksum: 7\r\nset-cookie: a=b\r\n\r\n";
    let answer = answered(chunked).await.unwrap();
    let trailers: Vec<_> = answer.trailers.iter().map(|field| (field.name.as_str(), field.value.as_str())).collect();
    assert_eq!((&answer.body[..], trailers), (&b"body"[..], vec![("x-checksum", "7")]));
}

/// C-K2, rows 11 and 12.
#[tokio::test]
async fn the_length_is_said_where_there_is_no_body() {
    let upstream = Raw::saying("", "").await;
    let house = House::with(&api(&upstream.url(), "")).await;
    for (method, said) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false)] {
        house.call_whole(calling(method, "/")).await.unwrap();
        let seen = upstream.seen().pop().unwrap().to_ascii_lowercase();
        assert_eq!(seen.matches("content-length: 0\r\n").count(), usize::from(said), "{seen}");
    }
    for (method, status) in [("HEAD", 200), ("GET", 304)] {
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 1488324\r\ncontent-encoding: gzip\r\n\r\n");
        let upstream = Raw::answering(Reply::Bytes(head.into())).await;
        let house = House::with(&api(&upstream.url(), "")).await;
        let answer = house.call_whole(calling(method, "/")).await.unwrap();
        assert_eq!(field(&answer, "content-length"), Some("1488324"), "{method}");
        assert_eq!(field(&answer, "content-encoding"), Some("gzip"), "{method}");
    }
}

/// "What surprised a user" 6 and S11.
#[tokio::test]
async fn what_http_libraries_add_is_left_out_and_the_call_is_made() {
    let upstream = Raw::saying("", "").await;
    let house = House::with(&api(&upstream.url(), "")).await;
    let fields = [
        ("Host", "elsewhere.example"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Content-Length", "4"),
        ("Accept-Encoding", "gzip, br"),
        ("TE", "trailers"),
        ("Via", "1.1 proxy"),
        ("Range", "bytes=0-3"),
        ("If-Range", "\"etag\""),
        ("Accept-Charset", "utf-16"),
        ("A-IM", "vcdiff"),
        ("X-Request-Id", "7"),
    ];
    let headers = fields.map(|(name, value)| bearerd::proto::Header { name: name.into(), value: value.into() });
    let request = CallThroughRequest { headers: headers.into(), body: "four".into(), ..calling("POST", "/") };
    house.call_whole(request).await.unwrap();
    let seen = upstream.seen().concat().to_ascii_lowercase();
    for gone in ["elsewhere", "x-hop", "br\r\n", "te:", "via:", "range", "charset", "a-im"] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    for there in ["content-length: 4\r\n", "accept-encoding: identity\r\n", "x-request-id: 7\r\n"] {
        assert!(seen.contains(there), "{there}: {seen}");
    }
}

/// "What surprised a user" 6 and 7.
#[tokio::test]
async fn a_refusal_names_every_field_and_the_character() {
    let house = House::with(&api("https://api.example", "")).await;
    let headers = ["Authorization", "X-Forwarded-For"]
        .map(|name| bearerd::proto::Header { name: name.into(), value: "x".into() });
    let status =
        house.call_whole(CallThroughRequest { headers: headers.into(), ..calling("GET", "/") }).await.unwrap_err();
    assert!(status.message().contains("authorization, x-forwarded-for"), "{}", status.message());
    let status = house.call("demo", "/a b").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("must be written %20"), "{}", status.message());
}

/// S11: a packed file is content, and no way to carry the token out.
#[tokio::test]
async fn a_packed_file_is_passed_on_unless_it_holds_the_token() {
    use std::io::Write;

    use bearerd::sandbox::DEMO_API_KEY;
    use flate2::{Compression, write::GzEncoder};
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let file = gzip("a,b,c");
    let answer = answered(ok("content-type: application/gzip\r\n", &file)).await.unwrap();
    assert_eq!(answer.body, file);
    let echo = gzip(&format!("authorization: Bearer {DEMO_API_KEY}"));
    let answer = answered(ok("content-type: application/gzip\r\n", &echo)).await.unwrap();
    assert_eq!(answer.body, "[redacted]");
    let answer = answered(ok("content-type: text/plain\r\n", &echo)).await.unwrap();
    assert_eq!(answer.body, "authorization: Bearer [redacted]");
}

/// S11: more forms than any caller should be able to have the token come back in.
#[tokio::test]
async fn e011_no_type_and_no_character_set_hides_the_token() {
    use bearerd::sandbox::DEMO_API_KEY;
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let utf32 = |text: &str| text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<u8>>();
    let percent: String = DEMO_API_KEY.bytes().map(|byte| format!("%25{byte:02x}")).collect();
    let nested: String = DEMO_API_KEY.bytes().map(|byte| format!("\\\\u00{byte:02x}")).collect();
    let (first, second) = DEMO_API_KEY.split_at(7);
    for (kind, body) in [
        ("text/plain; charset=utf-16", utf16(&format!("token {DEMO_API_KEY}!"))),
        ("text/plain; charset=utf-32be", utf32(&format!("token {DEMO_API_KEY}!"))),
        ("application/octet-stream", utf16(DEMO_API_KEY)),
        ("image/png", DEMO_API_KEY.into()),
        ("application/x-www-form-urlencoded", percent.into()),
        ("application/json", nested.into()),
        ("text/plain", format!("{first}\r\n{second}").into()),
    ] {
        let answer = answered(ok(&format!("content-type: {kind}\r\n"), &body)).await.unwrap();
        let text: String = answer.body.iter().filter(|byte| **byte != 0).copied().map(char::from).collect();
        assert!(text.contains("[redacted]"), "{kind}: {text}");
        assert!(!text.contains(DEMO_API_KEY) && !text.contains(second), "{kind}: {text}");
    }
    let names = format!("x-{DEMO_API_KEY}: 1\r\n");
    let answer = answered(ok(&names, b"")).await.unwrap();
    assert!(field(&answer, "redacted").is_some(), "{:?}", answer.headers);
}
