//! What keeps a store from being opened, in words for its operator: a permanent mistake ends the process with the way to mend it,
//! and whatever may pass by itself does not.

use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{address::Endpoint, link::unavailable};
use crate::store::StoreError;

/// How long a server may take to show what it speaks.
const LISTEN: Duration = Duration::from_secs(1);

/// `PING` in RESP.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The first words of a TLS client (RFC 8446 §4.1.2) that offers one cipher suite and nothing else. Whatever speaks TLS answers
/// with a handshake record or an alert (§5.1).
const CLIENT_HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x2d, 0x01, 0x00, 0x00, 0x29, 0x03, 0x03, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0x00, 0x00, 0x02, 0xc0, 0x2f, 0x01, 0x00,
];

/// Why trying again is useless until the configuration or the server is changed; `None` if it may pass.
pub(super) fn permanent(error: &RedisError) -> Option<String> {
    let text = error.to_string();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let is = |kind: ErrorKind| error.kind() == kind;
    if is(ErrorKind::InvalidClientConfig) {
        return Some(error.detail().map_or(text.clone(), str::to_owned));
    }
    let unknown = has(&["unknown command", "unsupported", "not supported", "not allowed", "disabled command"]);
    let remedy = if is(ErrorKind::RESP3NotSupported) || has(&["NOPROTO"]) || unknown && has(&["HELLO", "hello"]) {
        "it does not speak RESP3: bearerd needs Redis 6 or later, with no proxy in between that speaks RESP2 only"
    } else if unknown {
        "bearerd needs this command: the server must allow those that deploy/README.md lists, EVAL and EVALSHA among them"
    } else if has(&["NOAUTH"]) {
        "it asks for a password: set store.password"
    } else if is(ErrorKind::AuthenticationFailed) || has(&["WRONGPASS"]) {
        "it refuses the user or the password: look at store.username and store.password"
    } else if error.code() == Some("NOPERM") {
        "the ACL user lacks a right: deploy/README.md lists those that bearerd needs"
    } else if has(&["invalid peer certificate"]) {
        "its certificate is not accepted: look at store.ca and at the host in store.url"
    } else if has(&["received fatal alert: CertificateRequired", "received fatal alert: certificate required"]) {
        "it asks clients for a certificate, which bearerd does not have: set tls-auth-clients no or optional there"
    } else if has(&["received fatal alert"]) {
        "it ends the TLS handshake: look at its TLS settings"
    } else {
        return None;
    };
    Some(format!("{remedy} ({text})"))
}

/// What a server speaks, where that is not what it was asked to: nothing is sent but a greeting.
pub(super) async fn wrong_protocol(endpoint: &Endpoint, encrypted: bool) -> Option<&'static str> {
    match encrypted {
        true => match answer(endpoint, PING).await? {
            b'+' | b'-' => Some("it speaks without TLS: write redis in place of rediss in store.url"),
            _ => None,
        },
        false => match answer(endpoint, CLIENT_HELLO).await? {
            0x15 | 0x16 => Some("it speaks TLS: write rediss in place of redis in store.url"),
            _ => None,
        },
    }
}

/// Whether a server answers `PING`, though nothing that speaks RESP3 gets an answer.
pub(super) async fn speaks_old_protocol(endpoint: &Endpoint) -> bool {
    matches!(answer(endpoint, PING).await, Some(b'+' | b'-'))
}

/// The first byte of the answer.
async fn answer(endpoint: &Endpoint, greeting: &[u8]) -> Option<u8> {
    let asked = async {
        let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.ok()?;
        stream.write_all(greeting).await.ok()?;
        stream.read_u8().await.ok()
    };
    timeout(LISTEN, asked).await.ok().flatten()
}

/// An error of Redis while the store is opened.
pub(super) fn opening(error: RedisError) -> StoreError {
    match permanent(&error) {
        Some(why) => StoreError::Open(why),
        None => unavailable(error),
    }
}
