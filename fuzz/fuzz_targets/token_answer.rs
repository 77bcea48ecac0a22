//! The answer of a token endpoint: a status, a `Content-Type`, a `Retry-After`, each on a line, and the body.
#![no_main]

use std::time::{Duration, SystemTime};

use bearerd::{
    grant::answer::{self, Answer, Body, Reading},
    secret::ExposeSecret,
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (status, content_type, retry_after, body) = (line(), line(), line(), line());
    let status = String::from_utf8_lossy(status).parse().unwrap_or(200);
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &[u8]| {
        HeaderValue::from_bytes(value).map(|value| headers.insert(name, value)).ok();
    };
    set(CONTENT_TYPE, content_type);
    set(RETRY_AFTER, retry_after);
    let body = Body::whole(body);
    match answer::read(
        &Reading::default(),
        status,
        &headers,
        body,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    ) {
        Answer::Granted(granted) => {
            assert!((200..300).contains(&status));
            let token = granted.access_token.expose_secret();
            assert!(!token.is_empty() && HeaderValue::from_str(token).is_ok() && !token.contains(' '));
            assert!(granted.expires_in.is_none_or(|span| !span.is_zero()));
            assert!(granted.refresh_token.is_none_or(|token| !token.expose_secret().is_empty()));
        }
        Answer::Refused(refusal) => assert!(refusal.retry_after.is_none_or(|wait| wait < Duration::MAX)),
        Answer::Unusable(unusable) => assert!(!unusable.why.to_string().is_empty()),
    }
});
