//! Which header fields pass from a caller to an upstream, and back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fence::Fence;

/// Why header fields are refused. It names fields and never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// No name or value of HTTP (RFC 9110 §5).
    #[error("a name or value is not allowed in HTTP")]
    Malformed,
    /// Reserved for bearerd or for proxies.
    #[error(
        "callers may not set {0}: bearerd sets credentials, passes no cookies, and passes nothing that proxies say"
    )]
    Reserved(String),
    /// The credential's `deny_request_headers` have it.
    #[error("one is not allowed by this credential")]
    Denied,
    /// It is on no list of fields that may pass.
    #[error("`{0}` may not be sent here; the line allow_request_headers = [\"{0}\"] in the credential would allow it")]
    Unlisted(String),
    /// More than anybody needs.
    #[error("more than 100 fields, or more than 64 KiB")]
    TooMany,
}

/// Fields that a caller may not set: credentials, what routes the request, and what proxies are believed to say.
const RESERVED: [&str; 18] = [
    "authorization",
    "proxy-*",
    "cookie",
    "cookie2",
    "forwarded",
    "x-forwarded-*",
    "x-forwarded",
    "x-envoy-*",
    "x-original-*",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

/// Fields that bearerd leaves out: HTTP libraries add them, and they belong to the connection or describe the message
/// (RFC 9110 §7.6.1), which bearerd does itself. With "_" for "-" they are refused like [`RESERVED`] ones.
const LEFT_OUT: [&str; 17] = [
    "accept-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "host",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
    "via",
    // With these an answer would come in pieces or forms in which the token is not found.
    "range",
    "if-range",
    "accept-charset",
    "a-im",
];

/// Fields with which a request asks to be taken for one with another method.
const OTHER_METHOD: [&str; 8] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-http-verb",
    "x-verb",
    "x-method",
    "http-method-override",
    "x-override-method",
];

/// Fields that name another resource, or another user, than the one that was looked at. They pass only by name.
const ELSEWHERE: [&str; 11] = [
    "destination",
    "x-copy-from",
    "x-copy-from-account",
    "x-*-copy-source",
    "x-*-copy-source-*",
    "proxy",
    "remote-user",
    "x-remote-*",
    "impersonate-*",
    "x-impersonate-*",
    "x-rewrite-*",
];

/// Fields that pass where a row limits methods or paths: none of them changes what is called, or for whom.
const HARMLESS: [&str; 10] = [
    "accept",
    "accept-*",
    "content-type",
    "content-language",
    "if-*",
    "prefer",
    "idempotency-key",
    "user-agent",
    "traceparent",
    "tracestate",
];

/// Fields of an answer that belong to the connection (RFC 9110 §7.6.1), the length, which the body tells, and cookies:
/// no caller can send one, and a session that was opened with the token is as good as the token.
const NOT_RETURNED: [&str; 12] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "proxy-authenticate",
    "proxy-authentication-info",
    "set-cookie",
    "set-cookie2",
];

const MAX_FIELDS: usize = 100;
const MAX_BYTES: usize = 64 * 1024;

/// Checks the fields of a caller. The credential's own field is reserved too. With `limits_calls`, where a row has `methods`
/// or `paths`, only fields pass that are known to change neither, and those that the credential names.
///
/// # Errors
///
/// [`HeaderProblem`].
pub fn from_caller(
    fields: &[(String, String)],
    credential_field: &str,
    fence: &Fence,
    limits_calls: bool,
) -> Result<HeaderMap, HeaderProblem> {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > MAX_FIELDS || bytes > MAX_BYTES {
        return Err(HeaderProblem::TooMany);
    }
    let mut headers = HeaderMap::new();
    let mut reserved = Vec::new();
    let nominated = nominated(fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection")));
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderProblem::Malformed)?;
        let value = HeaderValue::from_str(value).map_err(|_| HeaderProblem::Malformed)?;
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        if is_reserved(name.as_str(), credential_field) {
            reserved.push(name.to_string());
            continue;
        }
        // After the reserved ones: to nominate a field is no way to have a forbidden one pass unseen.
        if nominated.iter().any(|nominated| nominated == name.as_str()) {
            continue;
        }
        check(name.as_str(), fence, limits_calls)?;
        headers.append(name, value);
    }
    if !reserved.is_empty() {
        return Err(HeaderProblem::Reserved(reserved.join(", ")));
    }
    // An echoed token is found in a plain body only.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(headers)
}

/// The names that `Connection` fields hold, which are about the connection too (RFC 9110 §7.6.1).
fn nominated<'a>(connection: impl Iterator<Item = &'a (String, String)>) -> Vec<String> {
    connection.flat_map(|(_, value)| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn is_reserved(name: &str, credential_field: &str) -> bool {
    // Where fields become variables (CGI, WSGI), "_" and "-" are one character.
    let read = name.replace('_', "-");
    RESERVED.iter().any(|reserved| fits(reserved, &read))
        || (name != read && LEFT_OUT.contains(&read.as_str()))
        || read.eq_ignore_ascii_case(&credential_field.replace('_', "-"))
}

fn check(name: &str, fence: &Fence, limits_calls: bool) -> Result<(), HeaderProblem> {
    let read = name.replace('_', "-");
    let other_method = (limits_calls || fence.methods.is_some()) && OTHER_METHOD.contains(&read.as_str());
    if other_method || fence.deny_request_headers.contain(name) || fence.deny_request_headers.contain(&read) {
        return Err(HeaderProblem::Denied);
    }
    let is_among = |list: &[&str]| list.iter().any(|pattern| fits(pattern, &read));
    let passes = !is_among(&ELSEWHERE) && (!limits_calls || is_among(&HARMLESS));
    if passes || fence.allow_request_headers.contain(name) {
        return Ok(());
    }
    Err(HeaderProblem::Unlisted(name.to_owned()))
}

/// A star is any run of characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(left) = name.strip_prefix(head) else { return false };
    match rest.strip_suffix('*') {
        Some(middle) => left.contains(middle),
        None => left.ends_with(rest),
    }
}

/// The fields of an answer as a caller gets them. Those that the connection nominates are its own (RFC 9110 §7.6.1).
pub fn to_caller(headers: &HeaderMap, fence: &Fence, keeps_length: bool) -> Vec<(String, String)> {
    let connection: Vec<_> =
        headers.get_all(header::CONNECTION).iter().map(|value| (String::new(), text(value))).collect();
    let nominated = nominated(connection.iter());
    let passes = |name: &str| {
        (!NOT_RETURNED.contains(&name) || (keeps_length && name == header::CONTENT_LENGTH.as_str()))
            && !nominated.iter().any(|nominated| nominated == name)
            && !fence.deny_response_headers.contain(name)
    };
    let fields = headers.iter().filter(|(name, _)| passes(name.as_str()));
    fields.map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// A field's value. Bytes that are not UTF-8 are ISO 8859-1, as they once were in HTTP (RFC 9110 §5.5).
pub(super) fn text(value: &HeaderValue) -> String {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::upstream::fence::HeaderPatterns;

    fn one(name: &str, value: &str, fence: &Fence) -> Result<HeaderMap, HeaderProblem> {
        from_caller(&[(name.to_owned(), value.to_owned())], "x-api-key", fence, false)
    }

    #[test]
    fn plain_fields_pass() {
        for name in ["X-Request-Id", "If-None-Match", "X-HTTP-Method-Override", "Idempotency-Key", "traceparent"] {
            assert_eq!(one(name, "7", &Fence::default()).unwrap().get(name).unwrap(), "7");
        }
    }

    #[test]
    fn e009_credentials_framing_and_routing_are_refused() {
        let wildcards = ["Proxy-Authorization", "Proxy_Connection", "X-Forwarded-For", "X-Forwarded-Client-Cert"];
        let disguises =
            ["AUTHORIZATION", "X_Forwarded_For", "Transfer_Encoding", "Content_Length", "X_API_KEY", "X-Original-URL"];
        let names = RESERVED.iter().filter(|name| !name.ends_with('*')).chain(&wildcards).chain(&disguises);
        for name in names.chain(&["X-API-Key"]) {
            assert!(matches!(one(name, "x", &Fence::default()), Err(HeaderProblem::Reserved(_))), "{name}");
        }
    }

    #[test]
    fn e009_no_value_breaks_out_of_its_line() {
        for (name, value) in [
            ("x", "a\r\nb: c"),
            ("x", "a\nb"),
            ("x", "a\0"),
            ("x", "a\u{7f}"),
            ("x y", "a"),
            ("", "a"),
            (":path", "/"),
            ("x:", "a"),
            ("x\r\n", "a"),
        ] {
            assert_eq!(one(name, value, &Fence::default()), Err(HeaderProblem::Malformed), "{name:?} {value:?}");
        }
        let many = vec![("x".to_owned(), String::new()); 101];
        assert_eq!(from_caller(&many, "x", &Fence::default(), false), Err(HeaderProblem::TooMany));
        let large = vec![("y".to_owned(), "a".repeat(64 * 1024))];
        assert_eq!(from_caller(&large, "x", &Fence::default(), false), Err(HeaderProblem::TooMany));
    }

    /// S12: fields that name another resource, user or method pass where the credential names them.
    #[test]
    fn e009_fields_that_lead_elsewhere_pass_only_by_name() {
        let names = [
            "Destination",
            "X-Copy-From",
            "x-amz-copy-source",
            "X_Goog_Copy_Source",
            "x-amz-copy-source-range",
            "x-ms-copy-source",
            "Proxy",
            "Remote-User",
            "X-Remote-User",
            "Impersonate-User",
            "impersonate_extra_scopes",
            "X-Rewrite-URI",
        ];
        for name in names {
            let problem = one(name, "x", &Fence::default()).unwrap_err();
            assert_eq!(problem, HeaderProblem::Unlisted(name.to_ascii_lowercase()), "{name}");
            let line = format!("allow_request_headers = [\"{}\"]", name.to_ascii_lowercase());
            assert!(problem.to_string().contains(&line), "{problem}");
            let allow_request_headers = HeaderPatterns::new([name]).unwrap();
            assert!(one(name, "x", &Fence { allow_request_headers, ..Fence::default() }).is_ok(), "{name}");
        }
        let everything = HeaderPatterns::new(["*"]).unwrap();
        let fence = Fence { allow_request_headers: everything, ..Fence::default() };
        assert!(matches!(one("Authorization", "x", &fence), Err(HeaderProblem::Reserved(_))));
    }

    /// S12: where a row limits what may be called, the fields that pass are a list.
    #[test]
    fn where_a_row_limits_calls_only_listed_fields_pass() {
        let fence = Fence { allow_request_headers: HeaderPatterns::new(["X-Org-*"]).unwrap(), ..Fence::default() };
        let limited = |name: &str| from_caller(&[(name.to_owned(), "x".to_owned())], "x-api-key", &fence, true);
        for good in [
            "Accept",
            "Accept-Language",
            "Content-Type",
            "Content-Language",
            "If-Match",
            "If-None-Match",
            "Prefer",
            "Idempotency-Key",
            "User-Agent",
            "traceparent",
            "tracestate",
            "X-Org-Id",
        ] {
            assert!(limited(good).is_ok(), "{good}");
        }
        for bad in ["X-Request-Id", "Slug", "Content-Location", "X-Tenant", "Accepted", "X-User", "Content-Disposition"]
        {
            assert_eq!(limited(bad), Err(HeaderProblem::Unlisted(bad.to_ascii_lowercase())), "{bad}");
        }
        for method in OTHER_METHOD {
            assert_eq!(limited(method), Err(HeaderProblem::Denied), "{method}");
        }
    }

    #[test]
    fn a_credential_denies_more() {
        let fence = Fence {
            methods: Some(vec![Method::GET]),
            deny_request_headers: HeaderPatterns::new(["X-Admin-*"]).unwrap(),
            ..Fence::default()
        };
        for name in ["X-Admin-Mode", "x_admin_mode", "X-HTTP-Method-Override", "X_HTTP_Method"] {
            assert_eq!(one(name, "x", &fence), Err(HeaderProblem::Denied), "{name}");
        }
        assert!(one("X-Administrator", "x", &fence).is_ok());
    }

    #[test]
    fn e010_what_the_connection_nominates_and_cookies_stay_here() {
        let mut answer = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("trailer", "x"),
            ("set-cookie", "session=1"),
            ("x-internal-id", "1"),
            ("content-type", "text/plain"),
        ] {
            answer.append(name, HeaderValue::from_static(value));
        }
        let fence = Fence { deny_response_headers: HeaderPatterns::new(["x-internal-*"]).unwrap(), ..Fence::default() };
        assert_eq!(to_caller(&answer, &fence, false), [("content-type".to_owned(), "text/plain".to_owned())]);
    }

    /// "What surprised a user" 6, and S11 for the last four.
    #[test]
    fn what_http_libraries_add_is_left_out_and_does_not_refuse_a_request() {
        let fields = LEFT_OUT.map(|name| (name.to_owned(), "close, X-Hop".to_owned()));
        let hop = [("X-Hop".to_owned(), "1".to_owned()), ("x-kept".to_owned(), "2".to_owned())];
        let sent = from_caller(&[&fields[..], &hop[..]].concat(), "x-api-key", &Fence::default(), false).unwrap();
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "x-kept"]);
        assert_eq!(sent.get("accept-encoding").unwrap(), "identity");
        // To nominate a credential is no way to hide it.
        let hidden = [("connection", "authorization"), ("authorization", "Bearer mine"), ("Cookie", "a=b")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = from_caller(&hidden, "x-api-key", &Fence::default(), false).unwrap_err();
        assert_eq!(error, HeaderProblem::Reserved("authorization, cookie".to_owned()));
    }

    /// C-K1, row 21, and C-K2, row 12.
    #[test]
    fn latin_1_stays_readable_and_a_length_stays_where_no_body_tells_it() {
        let mut answer = HeaderMap::new();
        answer.insert("content-disposition", HeaderValue::from_bytes(b"filename=M\xfcller.pdf").unwrap());
        answer.insert("x-utf8", HeaderValue::from_bytes("Müller".as_bytes()).unwrap());
        answer.insert("content-length", HeaderValue::from_static("1488324"));
        let values = |keeps| -> Vec<String> {
            to_caller(&answer, &Fence::default(), keeps).into_iter().map(|(_, value)| value).collect()
        };
        assert_eq!(values(true), ["filename=Müller.pdf", "Müller", "1488324"]);
        assert_eq!(values(false), ["filename=Müller.pdf", "Müller"]);
    }
}
