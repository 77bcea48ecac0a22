//! What a refusal means: from the provider's word for it, else from the status.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};
use oauth2::basic::BasicErrorResponseType as Word;
use serde::Deserialize as _;
use serde_json::Value;

use super::{RefusalError, body::Members, span};

/// The longest wait that a provider may ask for, in seconds: one bad header must not silence a credential for days.
const LONGEST_WAIT: f64 = 3600.0;

/// The error of an answer, if it is one.
pub(super) fn error(status: u16, members: Option<&Members>) -> Option<RefusalError> {
    // Too many requests is what it is, whatever word goes with it: asking again later costs nothing, and giving up a
    // grant costs a person's time.
    if status == 429 {
        return Some(RefusalError::RateLimited);
    }
    match members.and_then(word) {
        Some(word) => Some(of_word(&word, status)),
        None => of_status(status),
    }
}

/// RFC 9110 §10.2.3: seconds or a date, at most an hour.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?.as_secs_f64(),
    };
    span(seconds, LONGEST_WAIT)
}

/// The error word (RFC 6749 §5.2), which some providers follow with a colon and a sentence. A mere sentence, such as
/// the "Internal Server Error" of a web framework, is no word and says no more than the status does.
fn word(members: &Members) -> Option<Word> {
    let code = members.text("error")?.split(':').next()?.trim().to_ascii_lowercase();
    let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !is_code {
        return None;
    }
    Word::deserialize(Value::from(code)).ok()
}

fn of_word(word: &Word, status: u16) -> RefusalError {
    match word {
        Word::InvalidGrant => RefusalError::InvalidGrant,
        // From a gateway's error page it would prove nothing.
        Word::InvalidClient if status < 500 => RefusalError::ClientUnproven,
        Word::InvalidClient | Word::InvalidRequest | Word::UnauthorizedClient | Word::UnsupportedGrantType => {
            RefusalError::Client
        }
        Word::InvalidScope => RefusalError::Scope,
        Word::Extension(word) => of_extension(word, status),
    }
}

/// Words from outside RFC 6749 §5.2: RFC 8707, RFC 8628, the authorization endpoint's, and those of GitHub and Slack.
fn of_extension(word: &str, status: u16) -> RefusalError {
    match (word, status) {
        ("bad_refresh_token" | "invalid_refresh_token", _) => RefusalError::InvalidGrant,
        ("incorrect_client_credentials", _) => RefusalError::ClientUnproven,
        ("invalid_target", _) => RefusalError::Client,
        ("slow_down" | "ratelimited", _) => RefusalError::RateLimited,
        ("temporarily_unavailable" | "server_error", _) => RefusalError::Unavailable,
        (_, 408 | 500..=599) => RefusalError::Unavailable,
        (_, _) => RefusalError::Client,
    }
}

/// A status without a word. 408 is not among the refusals, because a gateway that gave up waiting for the provider
/// says it too; an empty 400 is no `invalid_grant`, because some servers answer every mistake so.
fn of_status(status: u16) -> Option<RefusalError> {
    match status {
        408 => None,
        400..=499 => Some(RefusalError::Client),
        503 => Some(RefusalError::Unavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::answer::{Answer, Refusal, Unusable, read};

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        read(status, &headers, body.as_bytes(), SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700))
    }

    fn refusal(status: u16, retry_after: Option<&str>, body: &str) -> Refusal {
        match answer(status, retry_after, body) {
            Answer::Refused(refusal) => refusal,
            other @ (Answer::Granted(_) | Answer::Unusable(_)) => panic!("{status} {body}: {other:?}"),
        }
    }

    #[test]
    fn a_word_decides_at_any_status() {
        use RefusalError::{Client, ClientUnproven, InvalidGrant, RateLimited, Scope, Unavailable};
        for (status, word, error) in [
            (400, "invalid_grant", InvalidGrant),
            (401, "invalid_grant", InvalidGrant),
            (403, "invalid_grant", InvalidGrant),
            (200, "invalid_grant", InvalidGrant),
            (500, "invalid_grant", InvalidGrant),
            (400, "Invalid_Grant", InvalidGrant),
            (400, "invalid_grant: Token is not valid", InvalidGrant),
            (200, "bad_refresh_token", InvalidGrant),
            (200, "invalid_refresh_token", InvalidGrant),
            (401, "invalid_client", ClientUnproven),
            (200, "invalid_client", ClientUnproven),
            (400, "unauthorized_client", Client),
            (400, "unsupported_grant_type", Client),
            (400, "invalid_request", Client),
            (400, "invalid_target", Client),
            (400, "invalid_scope", Scope),
            (400, "slow_down", RateLimited),
            (200, "ratelimited", RateLimited),
            (400, "temporarily_unavailable", Unavailable),
            (500, "server_error", Unavailable),
            (503, "invalid_client", Client),
            (400, "invalid_grants", Client),
            (200, "incorrect_client_credentials", ClientUnproven),
            (500, "internal_error", Unavailable),
            (429, "access_denied", RateLimited),
            (429, "invalid_grant", RateLimited),
        ] {
            let body = format!(r#"{{"error":"{word}","error_description":"invalid_scope"}}"#);
            assert_eq!(refusal(status, None, &body).error, error, "{status} {word}");
        }
    }

    #[test]
    fn without_a_word_the_status_decides() {
        use RefusalError::{Client, RateLimited, Unavailable};
        for (status, error) in
            [(400, Client), (401, Client), (403, Client), (404, Client), (429, RateLimited), (503, Unavailable)]
        {
            for body in
                ["", "<html>", "{}", r#"{"error":"Service Unavailable"}"#, r#"{"error":{"code":"invalid_grant"}}"#]
            {
                assert_eq!(refusal(status, None, body).error, error, "{status} {body}");
            }
        }
        for status in [302, 408, 500, 502, 504, 999] {
            for body in ["", "<html>", r#"{"error":"Internal Server Error"}"#] {
                let answer = answer(status, None, body);
                assert!(matches!(answer, Answer::Unusable(Unusable::UnclearStatus)), "{status} {body}: {answer:?}");
            }
        }
    }

    #[test]
    fn a_refusal_may_be_a_form_or_too_long() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let form = read(200, &headers, b"error=bad_refresh_token&error_uri=x", SystemTime::UNIX_EPOCH);
        assert!(matches!(form, Answer::Refused(Refusal { error: RefusalError::InvalidGrant, retry_after: None })));
        let long = "x".repeat(super::super::MAX_BODY + 1);
        assert_eq!(refusal(503, None, &long).error, RefusalError::Unavailable);
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_bounded() {
        let seconds = |s| Some(Duration::from_secs(s));
        for (written, wait) in [
            ("120", seconds(120)),
            (" 7 ", seconds(7)),
            ("3601", seconds(3600)),
            ("99999999999999999999999", seconds(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(77)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", seconds(3600)),
            ("Tue, 06 Nov 1984 08:49:37 GMT", None),
            ("0", None),
            ("-5", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(refusal(429, Some(written), "").retry_after, wait, "{written}");
        }
        assert_eq!(refusal(400, Some("5"), r#"{"error":"invalid_grant"}"#).retry_after, seconds(5));
        assert_eq!(refusal(429, None, "").retry_after, None);
    }
}
