//! Reading a token endpoint's answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use url::Url;

use crate::{
    failure::ProviderReport,
    grant::{
        is_bearer_text,
        profile::{ProviderProfile, RefusalRules},
    },
    name::Scopes,
    secret::{ExposeSecret, SecretString, same},
    token::TokenType,
};

use self::body::{Members, Read};

mod body;
mod instant;
mod refusal;
mod report;

pub use self::report::place;

/// The largest answer that is read, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// What providers write for a Bearer token: the word of RFC 6750, Apigee's, and Slack's for its two kinds of owner.
const BEARER_WORDS: [&str; 4] = ["bearer", "bearertoken", "bot", "user"];

/// How the answer to one request is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What the provider's refusals mean.
    pub refusals: RefusalRules,
    /// Values of `token_type`, besides the usual ones, of tokens that are presented as Bearer; in lower case.
    pub token_types: Arc<[String]>,
    /// Host and path of the token endpoint.
    pub endpoint: String,
    /// Its URL, which the `Location` of a redirect is relative to.
    pub url: Option<Url>,
    /// The secrets of the request. The provider may repeat them, and they must not be shown.
    pub secrets: Vec<SecretString>,
}

impl Reading {
    /// How the answer of this endpoint is read.
    pub fn of(url: &Url, profile: &ProviderProfile, secrets: Vec<SecretString>) -> Self {
        Self {
            refusals: profile.refusals.clone(),
            token_types: Arc::clone(&profile.token_types),
            endpoint: place(url),
            url: Some(url.clone()),
            secrets,
        }
    }

    fn was_sent(&self, token: &SecretString) -> bool {
        self.secrets.iter().any(|secret| same(secret.expose_secret(), token.expose_secret()))
    }
}

/// The body of an answer, as far as it came.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// The bytes, without content codings; at most [`MAX_BODY`] count.
    pub bytes: &'a [u8],
    /// How much of the body they are.
    pub extent: Extent,
}

/// How much of a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The connection or the coding broke off, perhaps after the last byte.
    Broken,
    /// The beginning of one that is larger than [`MAX_BODY`].
    TooLarge,
    /// It has a content coding that bearerd cannot undo.
    Coded,
}

impl<'a> Body<'a> {
    /// A whole body.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, extent: Extent::Whole }
    }
}

/// Reads an answer: its status, headers and body. `now` dates a `Retry-After` that is a date.
///
/// A status of 500 or above proves nothing, whatever error the body names, unless a rule says so: gateways and frameworks
/// answer for a provider that acted. A token counts at any 2xx. A refresh token counts in every answer.
pub fn read(reading: &Reading, status: u16, headers: &HeaderMap, body: Body<'_>, now: SystemTime) -> Answer {
    // The oauth2 crate's own reader is strict where real providers are not: `expires_in` in quotes, `scope` as a list,
    // no `token_type`, a form instead of JSON, an error at status 200. Each would cost a refresh token that was spent.
    let Read { members, problem } = body::read(headers, body);
    let kept = kept(reading, status, &members);
    let report =
        |why: Option<Unusable>| report::report(reading, status, headers, &members, why.map(|why| why.to_string()));
    let readable = problem.is_none().then_some(&members);
    let error = refusal::error(reading, status, readable, body.bytes);
    // Only an error that the provider itself states proves more than a refresh token beside it.
    let stands = kept.is_none() || ((400..500).contains(&status) && members.error_text().is_some());
    if let Some(error) = error.filter(|_| stands) {
        let retry_after = refusal::retry_after(headers, &members, error, now);
        return Answer::Refused(Refusal { error, retry_after, report: report(None), kept });
    }
    let unclear = (!(200..300).contains(&status)).then_some(Unusable::UnclearStatus);
    if let Some(why) = unclear.or(problem).or_else(|| check(reading, &members).err()) {
        return Answer::Unusable(UnusableAnswer { why, report: report(Some(why)), kept });
    }
    granted(members, now)
}

/// The refresh token of an answer, unless it is the one that was sent.
fn kept(reading: &Reading, status: u16, members: &Members) -> Option<Kept> {
    let refresh_token = SecretString::from(members.text("refresh_token")?);
    let (scopes, certain) = (members.scopes("scope"), (200..300).contains(&status));
    (!reading.was_sent(&refresh_token)).then_some(Kept { refresh_token, scopes, certain })
}

/// Whether there is a token that can be used.
fn check(reading: &Reading, members: &Members) -> Result<(), Unusable> {
    if !members.text("access_token").is_some_and(is_bearer_text) {
        return Err(Unusable::NoAccessToken);
    }
    // The RFC requires a type, but many providers leave it out, and then it is always Bearer.
    let word = members.text("token_type").map(str::to_ascii_lowercase);
    let is_bearer = |word: String| BEARER_WORDS.contains(&word.as_str()) || reading.token_types.contains(&word);
    if word.is_none_or(is_bearer) { Ok(()) } else { Err(Unusable::UnknownType) }
}

/// RFC 6749 §5.1. What is not known is ignored.
fn granted(mut members: Members, now: SystemTime) -> Answer {
    let Some(access_token) = members.take_secret("access_token") else {
        return Answer::Unusable(Unusable::NoAccessToken.into());
    };
    Answer::Granted(Granted {
        access_token,
        kind: TokenType::Bearer,
        expires_in: life(&members, now),
        refresh_token: members.take_secret("refresh_token"),
        scopes: members.scopes("scope"),
    })
}

/// How long the provider says that the token lives, the shorter where it says it twice. `expires_at` is by its clock, which
/// may be ahead of ours or behind it.
fn life(members: &Members, now: SystemTime) -> Option<Duration> {
    let most = f64::from(u32::MAX);
    let said = members.number("expires_in").and_then(|seconds| span(seconds, most));
    let number = members.number("expires_at").or_else(|| members.number("expires_on"));
    let at = number.and_then(instant::of_number).or_else(|| instant::of_text(members.text("expires_at")?));
    let left = at.and_then(|at| span(at.duration_since(now).ok()?.as_secs_f64(), most));
    said.into_iter().chain(left).min()
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
    Unusable(UnusableAnswer),
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
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What was refused.
    pub error: RefusalError,
    /// How long the provider wants us to wait (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
    /// The provider's words.
    pub report: ProviderReport,
    /// A refresh token that came with the refusal all the same.
    pub kept: Option<Kept>,
}

impl From<RefusalError> for Refusal {
    fn from(error: RefusalError) -> Self {
        Self { error, retry_after: None, report: ProviderReport::default(), kept: None }
    }
}

/// A refresh token out of an answer that gives no access token. It may be the only living one.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The refresh token; never the one that was sent.
    pub refresh_token: SecretString,
    /// The granted scopes; `None` if not said.
    pub scopes: Option<Scopes>,
    /// The status says that the provider granted something, so the refresh token that was sent was used.
    pub certain: bool,
}

/// The meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalError {
    /// `invalid_grant`: this grant gives no tokens any more.
    InvalidGrant,
    /// `invalid_client`: the client did not prove itself, so nothing else of the request was looked at (RFC 6749 §3.2.1:
    /// the client is authenticated, then its request is acted upon). The refresh token in it was not used.
    ClientUnproven,
    /// `unauthorized_client`, `unsupported_grant_type`, `invalid_request`, and any other 4xx but 408: our configuration is
    /// at fault.
    Client,
    /// A redirect: the token endpoint is somewhere else, and nothing was done.
    Redirected,
    /// `invalid_scope`.
    Scope,
    /// `invalid_target` (RFC 8707 §2).
    Target,
    /// `consent_required`, `interaction_required`, `login_required` (OpenID Connect Core §3.1.2.6) and their like: the
    /// person who owns the grant has to do something before this token can be had.
    Consent,
    /// 429 with or without a word, or `slow_down`.
    RateLimited,
    /// `temporarily_unavailable`, `server_error`, 503, and refusals that are known to pass.
    Unavailable,
}

impl RefusalError {
    /// Whether the refusal concerns what was asked for: the scopes, the resources, or a consent for them. The grant may
    /// still give other tokens.
    pub fn concerns_request(self) -> bool {
        match self {
            Self::Scope | Self::Target | Self::Consent => true,
            Self::InvalidGrant
            | Self::ClientUnproven
            | Self::Client
            | Self::Redirected
            | Self::RateLimited
            | Self::Unavailable => false,
        }
    }
}

/// An answer that gives no access token and refuses nothing.
#[derive(Clone, Debug)]
pub struct UnusableAnswer {
    /// What is wrong with it.
    pub why: Unusable,
    /// The provider's words.
    pub report: ProviderReport,
    /// The refresh token in it.
    pub kept: Option<Kept>,
}

impl From<Unusable> for UnusableAnswer {
    fn from(why: Unusable) -> Self {
        Self { why, report: ProviderReport::default(), kept: None }
    }
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
    /// It has a content coding that is not known or damaged.
    #[error("the answer has a content coding that cannot be undone (RFC 9110 §8.4)")]
    Coded,
    /// The connection or the coding broke off in the middle of the answer.
    #[error("the answer did not arrive whole")]
    Broken,
    /// No usable `access_token`.
    #[error("the answer has no access_token that fits in a header (RFC 6750 §2.1)")]
    NoAccessToken,
    /// An unknown `token_type`.
    #[error(
        "the answer's token_type is not Bearer; `token_types` in the credential names others that are presented as Bearer"
    )]
    UnknownType,
    /// A status that says nothing about whether the request was acted upon (500, 502, 504 and the like).
    #[error("the status says nothing about the outcome")]
    UnclearStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        read(&Reading::default(), status, &HeaderMap::new(), Body::whole(body.as_bytes()), SystemTime::UNIX_EPOCH)
    }

    fn grant(body: &str) -> Granted {
        match answer(200, body) {
            Answer::Granted(granted) => granted,
            other @ (Answer::Refused(_) | Answer::Unusable(_)) => panic!("{body}: {other:?}"),
        }
    }

    fn unusable(status: u16, body: &str) -> Unusable {
        match answer(status, body) {
            Answer::Unusable(unusable) => unusable.why,
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

    /// P-K10, row 28.
    #[test]
    fn a_token_may_say_when_it_ends() {
        for (members, seconds) in [
            (r#""expires_at":600"#, Some(600)),
            (r#""expires_at":"600""#, Some(600)),
            (r#""expires_at":"1970-01-01T00:10:00Z""#, Some(600)),
            (r#""expires_at":"1970-01-01T00:10:00Z","expires_in":3600"#, Some(600)),
            (r#""expires_at":600,"expires_in":60"#, Some(60)),
            (r#""expires_on":"600""#, Some(600)),
            (r#""expires_at":0,"expires_in":60"#, Some(60)),
            (r#""expires_at":"never""#, None),
        ] {
            let life = grant(&format!(r#"{{"access_token":"a",{members}}}"#)).expires_in;
            assert_eq!(life.map(|life| life.as_secs()), seconds, "{members}");
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
        for status in [0, 100, 500, 502] {
            assert_eq!(unusable(status, body), Unusable::UnclearStatus, "{status}");
        }
        assert_eq!(unusable(200, ""), Unusable::Unreadable);
    }

    /// P-K6.
    #[test]
    fn a_refresh_token_is_kept_whatever_else_is_wrong_with_the_answer() {
        let kept = |status, body: &str, extent| {
            let (headers, bytes) = (HeaderMap::new(), body.as_bytes());
            let reading = Reading { secrets: vec!["sent".into()], ..Reading::default() };
            let kept = match read(&reading, status, &headers, Body { bytes, extent }, SystemTime::UNIX_EPOCH) {
                Answer::Granted(granted) => granted.refresh_token,
                Answer::Refused(refusal) => refusal.kept.map(|kept| kept.refresh_token),
                Answer::Unusable(unusable) => unusable.kept.map(|kept| kept.refresh_token),
            };
            kept.map(|token| token.expose_secret().to_owned())
        };
        let whole = r#"{"refresh_token":"rt","access_token":"a"}"#;
        let large = format!(r#"{{"access_token":"a","refresh_token":"rt","x":"{}"#, "x".repeat(MAX_BODY));
        for (status, body, extent) in [
            (200, r#"{"refresh_token":"rt","access_token":"a","token_type":"DPoP"}"#, Extent::Whole),
            (200, r#"{"refresh_token":"rt","id_token":"i"}"#, Extent::Whole),
            (200, r#"{"refresh_token":"rt","access_token":"a b"}"#, Extent::Whole),
            (200, r#"{"refresh_token":"rt","error":"partial"}"#, Extent::Whole),
            (200, whole, Extent::Broken),
            (200, r#"{"refresh_token":"rt","access_token":"a"#, Extent::Broken),
            (200, &large, Extent::TooLarge),
            (400, r#"{"refresh_token":"rt","error":"invalid_request"}"#, Extent::Whole),
            (302, whole, Extent::Whole),
            (400, whole, Extent::Whole),
            (429, whole, Extent::Whole),
            (500, whole, Extent::Whole),
            (503, whole, Extent::Whole),
            (100, whole, Extent::Whole),
        ] {
            assert_eq!(kept(status, body, extent).as_deref(), Some("rt"), "{status} {body:.60} {extent:?}");
        }
        // A part of a refresh token is none, and the one that was sent is nothing new.
        assert_eq!(kept(200, r#"{"access_token":"a","refresh_token":"rt"#, Extent::Broken), None);
        assert_eq!(kept(500, r#"{"refresh_token":"sent"}"#, Extent::Whole), None);
    }

    /// P-K6: the server closed the connection as its way of ending the body.
    #[test]
    fn a_whole_object_is_an_answer_however_its_connection_ended() {
        let body = Body { bytes: br#"{"access_token":"a","refresh_token":"rt"}"#, extent: Extent::Broken };
        let answer = read(&Reading::default(), 200, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH);
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
    }

    /// P-K6, row 22.
    #[test]
    fn a_token_type_that_the_credential_names_is_presented_as_bearer() {
        let reading = Reading { token_types: Arc::from(["jwt-bearer".to_owned()]), ..Reading::default() };
        let read = |word: &str| {
            let body = format!(r#"{{"access_token":"a","token_type":"{word}"}}"#);
            read(&reading, 200, &HeaderMap::new(), Body::whole(body.as_bytes()), SystemTime::UNIX_EPOCH)
        };
        assert!(matches!(read("JWT-Bearer"), Answer::Granted(_)));
        assert!(matches!(read("DPoP"), Answer::Unusable(_)));
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
            let reading = Reading::default();
            let read = |body: &[u8]| {
                for extent in [Extent::Whole, Extent::Broken, Extent::TooLarge, Extent::Coded] {
                    read(&reading, status, &headers, Body { bytes: body, extent }, SystemTime::UNIX_EPOCH);
                }
            };
            read(&body);
            for name in ["access_token", "error", "expires_in", "scope"] {
                let json = serde_json::json!({"access_token": "a", name: member}).to_string();
                read(json.as_bytes());
                read(format!("{name}={member}").as_bytes());
            }
        }
    }
}
