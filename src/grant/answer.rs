//! Reading a token endpoint's answer.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::CONTENT_ENCODING};

use crate::{
    grant::is_bearer_text,
    name::Scopes,
    secret::{ExposeSecret, SecretString},
    token::TokenType,
};

use self::body::Members;

mod body;
mod refusal;

/// The largest answer that is read, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// What providers write for a Bearer token: the word of RFC 6750, Apigee's, and Slack's for its two kinds of owner.
const BEARER_WORDS: [&str; 4] = ["bearer", "bearertoken", "bot", "user"];

/// Reads an answer: its status, headers and body. `now` dates a `Retry-After` that is a date.
///
/// An error that the provider states counts at any status, a token at any 2xx.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Answer {
    // The oauth2 crate's own reader is strict where real providers are not: `expires_in` in quotes, `scope` as a list,
    // no `token_type`, a form instead of JSON, an error at status 200. Each would cost a refresh token that was spent.
    let members = body::read(headers, body).map_err(|why| if is_coded(headers) { Unusable::Coded } else { why });
    if let Some(error) = refusal::error(status, members.as_ref().ok()) {
        return Answer::Refused(Refusal { error, retry_after: refusal::retry_after(headers, now) });
    }
    if !(200..300).contains(&status) {
        return Answer::Unusable(Unusable::UnclearStatus);
    }
    members.and_then(granted).map_or_else(Answer::Unusable, Answer::Granted)
}

/// Whether the body is said to be compressed. Nobody asked for that, and nothing is unpacked: a few bytes could become more
/// than there is memory for.
fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// RFC 6749 §5.1. What is not known is ignored.
fn granted(mut members: Members) -> Result<Granted, Unusable> {
    let access_token = members.take_secret("access_token").filter(|token| is_bearer_text(token.expose_secret()));
    let access_token = access_token.ok_or(Unusable::NoAccessToken)?;
    // The RFC requires a type, but many providers leave it out, and then it is always Bearer.
    if members.text("token_type").is_some_and(|word| !BEARER_WORDS.contains(&word.to_ascii_lowercase().as_str())) {
        return Err(Unusable::UnknownType);
    }
    Ok(Granted {
        access_token,
        kind: TokenType::Bearer,
        expires_in: members.number("expires_in").and_then(|seconds| span(seconds, f64::from(u32::MAX))),
        refresh_token: members.take_secret("refresh_token"),
        scopes: members.scopes("scope"),
    })
}

/// A number of seconds as a span of at most `most` seconds. Zero, less and no number at all count as not said:
/// providers write 0 or -1 for "does not end", and nobody grants a token that has already ended.
fn span(seconds: f64, most: f64) -> Option<Duration> {
    let span = (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(most)))?;
    (!span.is_zero()).then_some(span)
}

/// What a token endpoint answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A token (RFC 6749 §5.1).
    Granted(Granted),
    /// A well-formed refusal (RFC 6749 §5.2, or a status that can mean nothing else).
    Refused(Refusal),
    /// Neither: nobody can say what the provider did.
    Unusable(Unusable),
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The access token, fit for a header.
    pub access_token: SecretString,
    /// How to present it.
    pub kind: TokenType,
    /// Its life, counted from when the request was sent; `None` if not said.
    pub expires_in: Option<Duration>,
    /// A new refresh token, which replaces the old one.
    pub refresh_token: Option<SecretString>,
    /// The granted scopes; `None` means those that were asked for.
    pub scopes: Option<Scopes>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub error: RefusalError,
    /// How long the provider wants us to wait (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
}

/// The meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalError {
    /// `invalid_grant`: this grant gives no tokens any more.
    InvalidGrant,
    /// `invalid_client`: the client did not prove itself, so nothing else of the request was looked at (RFC 6749 §3.2.1:
    /// the client is authenticated, then its request is acted upon). The refresh token in it was not used.
    ClientUnproven,
    /// `unauthorized_client`, `unsupported_grant_type`, `invalid_request`, `invalid_target`, and any
    /// other 4xx but 408: our configuration is at fault.
    Client,
    /// `invalid_scope`.
    Scope,
    /// 429 with or without a word, or `slow_down`.
    RateLimited,
    /// `temporarily_unavailable`, `server_error`, 503 and other errors that a provider states.
    Unavailable,
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The answer is too large.
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
    /// Neither JSON nor a form.
    #[error("the answer is neither JSON nor a form (RFC 6749 §5.1)")]
    Unreadable,
    /// Compressed, which nobody asked for.
    #[error("the answer is compressed, which was not asked for (RFC 9110 §12.5.3)")]
    Coded,
    /// No usable `access_token`.
    #[error("the answer has no access_token that fits in a header (RFC 6750 §2.1)")]
    NoAccessToken,
    /// An unknown `token_type`.
    #[error("the answer's token_type is not Bearer (RFC 6749 §7.1: an unknown type must not be used)")]
    UnknownType,
    /// A status that says nothing about whether the request was acted upon (500, 502, 504 and the like).
    #[error("the status says nothing about the outcome")]
    UnclearStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        read(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH)
    }

    fn grant(body: &str) -> Granted {
        match answer(200, body) {
            Answer::Granted(granted) => granted,
            other @ (Answer::Refused(_) | Answer::Unusable(_)) => panic!("{body}: {other:?}"),
        }
    }

    fn unusable(status: u16, body: &str) -> Unusable {
        match answer(status, body) {
            Answer::Unusable(why) => why,
            other @ (Answer::Refused(_) | Answer::Granted(_)) => panic!("{status} {body}: {other:?}"),
        }
    }

    #[test]
    fn all_that_is_granted_is_read() {
        let granted = grant(
            r#"{"access_token":"2Yotn","token_type":"Bearer","expires_in":3600,"refresh_token":"tGzv3","scope":"b a"}"#,
        );
        assert_eq!(granted.access_token.expose_secret(), "2Yotn");
        assert_eq!(granted.kind, TokenType::Bearer);
        assert_eq!(granted.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(granted.refresh_token.unwrap().expose_secret(), "tGzv3");
        assert_eq!(granted.scopes, Some(Scopes::new(["a", "b"]).unwrap()));
    }

    #[test]
    fn what_is_not_said_stays_open() {
        let granted = grant(r#"{"access_token":"a"}"#);
        assert_eq!(granted.kind, TokenType::Bearer);
        assert!(granted.expires_in.is_none() && granted.refresh_token.is_none() && granted.scopes.is_none());
    }

    #[test]
    fn a_lifetime_is_read_however_it_is_written() {
        let most = Duration::from_secs(u32::MAX.into());
        let seconds = |s| Some(Duration::from_secs(s));
        for (written, read) in [
            ("3600", seconds(3600)),
            ("3600.0", seconds(3600)),
            ("1.5", Some(Duration::from_millis(1500))),
            ("\"3599\"", seconds(3599)),
            ("\" 3599 \"", seconds(3599)),
            ("1e300", Some(most)),
            ("99999999999999999999", Some(most)),
            ("\"inf\"", Some(most)),
            ("0", None),
            ("\"0\"", None),
            ("1e-300", None),
            ("-1", None),
            ("\"NaN\"", None),
            ("\"soon\"", None),
            ("\"\"", None),
            ("null", None),
            ("[3600]", None),
            ("true", None),
        ] {
            let body = format!(r#"{{"access_token":"a","expires_in":{written}}}"#);
            assert_eq!(grant(&body).expires_in, read, "{written}");
        }
    }

    #[test]
    fn only_bearer_tokens_are_used() {
        for word in [r#""bearer""#, r#""BEARER""#, r#""BearerToken""#, r#""bot""#, r#""user""#, r#""""#, "null"] {
            let granted = grant(&format!(r#"{{"access_token":"a","token_type":{word}}}"#));
            assert_eq!(granted.kind, TokenType::Bearer, "{word}");
        }
        for word in ["DPoP", "mac", "N_A", "pop"] {
            let body = format!(r#"{{"access_token":"a","token_type":"{word}"}}"#);
            assert_eq!(unusable(200, &body), Unusable::UnknownType, "{word}");
        }
    }

    #[test]
    fn a_token_that_would_break_a_header_is_not_used() {
        for token in [r#""""#, "null", "7", r#""a b""#, r#""a\r\nx: y""#, r#""\u0000""#, r#""é""#, r#"{"a":1}"#] {
            let body = format!(r#"{{"access_token":{token},"token_type":"Bearer"}}"#);
            assert_eq!(unusable(200, &body), Unusable::NoAccessToken, "{token}");
        }
        assert_eq!(grant(r#"{"access_token":"00D!AQ.x:y|z=="}"#).access_token.expose_secret(), "00D!AQ.x:y|z==");
        assert_eq!(unusable(200, "{}"), Unusable::NoAccessToken);
    }

    #[test]
    fn an_empty_refresh_token_is_none() {
        for (written, read) in [(r#""rt 1""#, Some("rt 1")), (r#""""#, None), ("null", None), ("7", None)] {
            let granted = grant(&format!(r#"{{"access_token":"a","refresh_token":{written}}}"#));
            assert_eq!(granted.refresh_token.as_ref().map(ExposeSecret::expose_secret), read, "{written}");
        }
    }

    #[test]
    fn an_error_that_says_nothing_does_not_cost_the_token() {
        for error in ["null", r#""""#, "false", "0"] {
            grant(&format!(r#"{{"access_token":"a","error":{error}}}"#));
        }
    }

    #[test]
    fn a_token_counts_at_success_only() {
        let body = r#"{"access_token":"a","token_type":"Bearer"}"#;
        assert!(matches!(answer(201, body), Answer::Granted(_)));
        for status in [0, 100, 302, 500, 502] {
            assert_eq!(unusable(status, body), Unusable::UnclearStatus, "{status}");
        }
        assert_eq!(unusable(200, ""), Unusable::Unreadable);
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:?}", answer(200, r#"{"access_token":"seen-at","refresh_token":"seen-rt"}"#));
        assert!(!shown.contains("seen"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(status: u16, body: Vec<u8>, member: String, form: bool) {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", if form { "text/plain" } else { "application/json" }.parse().unwrap());
            read(status, &headers, &body, SystemTime::UNIX_EPOCH);
            for name in ["access_token", "error", "expires_in", "scope"] {
                let json = serde_json::json!({"access_token": "a", name: member}).to_string();
                read(status, &headers, json.as_bytes(), SystemTime::UNIX_EPOCH);
                read(status, &headers, format!("{name}={member}").as_bytes(), SystemTime::UNIX_EPOCH);
            }
        }
    }
}
