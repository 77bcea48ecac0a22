//! What a refusal means: from the provider's word for it, else from the status.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use oauth2::basic::BasicErrorResponseType as Word;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Reading, RefusalError, body::Members, span};

/// The longest wait that a provider may ask for, in seconds: one bad header must not silence a credential for days.
const LONGEST_WAIT: f64 = 3600.0;

/// How much of a body the rules look at, in bytes.
const RULES_READ: usize = 64 * 1024;

/// The error of an answer, if it is one.
pub(super) fn error(reading: &Reading, status: u16, members: Option<&Members>, body: &[u8]) -> Option<RefusalError> {
    // Too many requests is what it is, whatever word goes with it: asking again later costs nothing, and giving up a
    // grant costs a person's time.
    if status == 429 {
        return Some(RefusalError::RateLimited);
    }
    let word = members.and_then(word);
    let beginning = body.get(..RULES_READ).unwrap_or(body);
    if let Some(error) = reading.refusals.judge(status, word.as_deref(), beginning) {
        return Some(error);
    }
    match word {
        Some(word) if matches!(status, 200..=299 | 400..=499) => Some(of_word(&word, status)),
        Some(_) | None => of_status(status),
    }
}

/// RFC 9110 §10.2.3: seconds or a date, at most an hour. Others say it in milliseconds, in the body, or as the time at
/// which a limit ends; that time stands in good answers too, so it counts only where a limit was reached.
pub(super) fn retry_after(
    headers: &HeaderMap,
    members: &Members,
    error: RefusalError,
    now: SystemTime,
) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let after_ms = number("retry-after-ms").or_else(|| number("x-ms-retry-after-ms"));
    let after_ms = after_ms.or_else(|| members.number("retry_after_ms"));
    let reset = ["x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset"].iter().find_map(|name| number(name));
    let reset = reset.filter(|_| error == RefusalError::RateLimited).map(|at| match at {
        // In milliseconds or seconds since 1970; a small number is the wait itself.
        at if at > 1e12 => at / 1e3 - since_epoch,
        at if at > 1e9 => at - since_epoch,
        at => at,
    });
    let candidates = [
        after_ms.map(|ms| ms / 1e3),
        text("retry-after").and_then(|text| wait(text, now)),
        members.number("retry_after"),
        reset,
    ];
    candidates.into_iter().flatten().find_map(|seconds| span(seconds, LONGEST_WAIT))
}

fn wait(text: &str, now: SystemTime) -> Option<f64> {
    match text.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?.as_secs_f64()),
    }
}

/// The error word (RFC 6749 §5.2), which some providers follow with a colon and a sentence. A mere sentence, such as
/// the "Internal Server Error" of a web framework, is no word and says no more than the status does.
fn word(members: &Members) -> Option<String> {
    let code = members.text("error")?.split(':').next()?.trim().to_ascii_lowercase();
    let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    is_code.then_some(code)
}

fn of_word(word: &str, status: u16) -> RefusalError {
    match Word::deserialize(Value::from(word)) {
        Ok(Word::InvalidGrant) => RefusalError::InvalidGrant,
        Ok(Word::InvalidClient) => RefusalError::ClientUnproven,
        Ok(Word::InvalidRequest | Word::UnauthorizedClient | Word::UnsupportedGrantType) => RefusalError::Client,
        Ok(Word::InvalidScope) => RefusalError::Scope,
        Ok(Word::Extension(_)) | Err(_) => of_extension(word, status),
    }
}

/// Words from outside RFC 6749 §5.2: RFC 8707, RFC 8628, OpenID Connect, the authorization endpoint's, and those of GitHub
/// and Slack.
fn of_extension(word: &str, status: u16) -> RefusalError {
    match (word, status) {
        ("bad_refresh_token" | "invalid_refresh_token", _) => RefusalError::InvalidGrant,
        ("incorrect_client_credentials", _) => RefusalError::ClientUnproven,
        ("invalid_target", _) => RefusalError::Target,
        ("consent_required" | "interaction_required" | "login_required", _) => RefusalError::Consent,
        ("slow_down" | "ratelimited" | "rate_limited" | "rate_limit_exceeded" | "too_many_requests", _) => {
            RefusalError::RateLimited
        }
        ("temporarily_unavailable" | "server_error" | "service_unavailable" | "internal_error" | "timeout", _) => {
            RefusalError::Unavailable
        }
        (_, 408) => RefusalError::Unavailable,
        (_, _) => RefusalError::Client,
    }
}

/// A status without a word that counts. 408 is not among the refusals, because a gateway that gave up waiting for the
/// provider says it too; an empty 400 is no `invalid_grant`, because some servers answer every mistake so.
fn of_status(status: u16) -> Option<RefusalError> {
    match status {
        408 => None,
        300..=399 => Some(RefusalError::Redirected),
        400..=499 => Some(RefusalError::Client),
        503 => Some(RefusalError::Unavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::answer::{Answer, Body, Refusal, Unusable, UnusableAnswer, read};

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        read(&Reading::default(), status, &headers, Body::whole(body.as_bytes()), now)
    }

    fn refusal(status: u16, retry_after: Option<&str>, body: &str) -> Refusal {
        match answer(status, retry_after, body) {
            Answer::Refused(refusal) => refusal,
            other @ (Answer::Granted(_) | Answer::Unusable(_)) => panic!("{status} {body}: {other:?}"),
        }
    }

    #[test]
    fn a_word_decides_below_500() {
        use RefusalError::{Client, ClientUnproven, Consent, InvalidGrant, RateLimited, Scope, Target, Unavailable};
        for (status, word, error) in [
            (400, "invalid_grant", InvalidGrant),
            (401, "invalid_grant", InvalidGrant),
            (403, "invalid_grant", InvalidGrant),
            (200, "invalid_grant", InvalidGrant),
            (400, "Invalid_Grant", InvalidGrant),
            (400, "invalid_grant: Token is not valid", InvalidGrant),
            (200, "bad_refresh_token", InvalidGrant),
            (200, "invalid_refresh_token", InvalidGrant),
            (401, "invalid_client", ClientUnproven),
            (200, "invalid_client", ClientUnproven),
            (400, "unauthorized_client", Client),
            (400, "unsupported_grant_type", Client),
            (400, "invalid_request", Client),
            (400, "invalid_target", Target),
            (400, "invalid_scope", Scope),
            (400, "slow_down", RateLimited),
            (200, "ratelimited", RateLimited),
            (400, "temporarily_unavailable", Unavailable),
            (503, "invalid_client", Unavailable),
            (400, "consent_required", Consent),
            (400, "interaction_required", Consent),
            (400, "login_required", Consent),
            (400, "invalid_grants", Client),
            (200, "incorrect_client_credentials", ClientUnproven),
            (302, "invalid_grant", RefusalError::Redirected),
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
        let is_unclear =
            |answer: &Answer| matches!(answer, Answer::Unusable(UnusableAnswer { why: Unusable::UnclearStatus, .. }));
        for status in [408, 500, 502, 504, 999] {
            for body in ["", "<html>", r#"{"error":"Internal Server Error"}"#] {
                let answer = answer(status, None, body);
                assert!(is_unclear(&answer), "{status} {body}: {answer:?}");
            }
        }
        // P-K1, row 6: a provider that is ill says such things.
        for word in ["invalid_grant", "invalid_client", "invalid_scope", "server_error", "unauthorized_client"] {
            let answer = answer(500, None, &format!(r#"{{"error":"{word}"}}"#));
            assert!(is_unclear(&answer), "{word}: {answer:?}");
        }
    }

    #[test]
    fn a_refusal_may_be_a_form_or_too_long() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let body = Body::whole(b"error=bad_refresh_token&error_uri=x");
        let form = read(&Reading::default(), 200, &headers, body, SystemTime::UNIX_EPOCH);
        assert!(matches!(form, Answer::Refused(Refusal { error: RefusalError::InvalidGrant, retry_after: None, .. })));
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

    /// P-K4, row 21.
    #[test]
    fn a_wait_is_read_in_each_form_that_providers_use() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let wait = |status, name: &'static str, value: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            match read(&Reading::default(), status, &headers, Body::whole(body.as_bytes()), now) {
                Answer::Refused(refusal) => refusal.retry_after.map(|wait| wait.as_secs_f64()),
                other @ (Answer::Granted(_) | Answer::Unusable(_)) => panic!("{other:?}"),
            }
        };
        for (status, name, value, body, expected) in [
            (429, "retry-after-ms", "2500", "", Some(2.5)),
            (429, "x-ms-retry-after-ms", "1000", "", Some(1.0)),
            (429, "x-ratelimit-reset", "1700000030", "", Some(30.0)),
            (429, "x-ratelimit-reset", "1700000030000", "", Some(30.0)),
            (429, "x-ratelimit-reset", "45", "", Some(45.0)),
            (429, "x-ratelimit-reset", "1600000000", "", None),
            (429, "ratelimit-reset", "50", "", Some(50.0)),
            (429, "x", "y", r#"{"retry_after":7.5}"#, Some(7.5)),
            (429, "x", "y", r#"{"retry_after":"8"}"#, Some(8.0)),
            (503, "retry-after-ms", "2500", "", Some(2.5)),
            // It stands in every answer of such a provider.
            (503, "x-ratelimit-reset", "1700000030", "", None),
        ] {
            assert_eq!(wait(status, name, value, body), expected, "{status} {name}: {value} {body}");
        }
    }

    /// P-K1, P-K4, rows 1, 2, 3, 16 and 18.
    #[test]
    fn what_is_known_of_a_refusal_goes_before_its_word() {
        use RefusalError::{Client, Consent, InvalidGrant, RateLimited, Unavailable};
        for (body, error) in [
            (r#"{"error":"invalid_grant","error_description":"expired authorization code"}"#, Unavailable),
            (
                r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#,
                Unavailable,
            ),
            (r#"{"error":"unknown_error","error_description":"retry your request"}"#, Unavailable),
            (r#"{"error":"Access Denied","error_description":"You have made too many requests …"}"#, RateLimited),
            (r#"{"error":"invalid_grant","suberror":"consent_required","error_codes":[65001]}"#, Consent),
            (r#"{"error":"invalid_grant","suberror" : "basic_action"}"#, Consent),
            (r#"{"error":"invalid_grant","error_description":"AADSTS50076: MFA"}"#, Consent),
            (r#"{"error":"invalid_grant","suberror":"bad_token"}"#, InvalidGrant),
            (r#"{"error":"access_denied","error_description":"no"}"#, Client),
        ] {
            assert_eq!(refusal(400, None, body).error, error, "{body}");
        }
    }
}
