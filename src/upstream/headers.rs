//! Which header fields pass from a caller to an upstream, and back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fence::Fence;

/// Why a header field is refused. It names the field and never its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// No name or value of HTTP (RFC 9110 §5).
    #[error("a name or value is not allowed in HTTP")]
    Malformed,
    /// Reserved for bearerd or the connection.
    #[error("{0} is set by bearerd, or belongs to the connection or to proxies")]
    Reserved(&'static str),
    /// The credential's `deny_request_headers` have it.
    #[error("one is not allowed by this credential")]
    Denied,
    /// More than anybody needs.
    #[error("more than 100 fields, or more than 64 KiB")]
    TooMany,
}

/// Fields that a caller may not set: credentials, what frames or routes the request, and what proxies believe.
const RESERVED: [&str; 30] = [
    "authorization",
    "proxy-*",
    "cookie",
    "cookie2",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
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
    "via",
    "http2-settings",
    "accept-encoding",
];

/// Fields with which a request asks to be taken for one with another method.
const OTHER_METHOD: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

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

/// Checks the fields of a caller. The credential's own field is reserved too. With `limits_methods`, no field may ask for
/// another method than the one that was looked at.
///
/// # Errors
///
/// [`HeaderProblem`].
pub fn from_caller(
    fields: &[(String, String)],
    credential_field: &str,
    fence: &Fence,
    limits_methods: bool,
) -> Result<HeaderMap, HeaderProblem> {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > MAX_FIELDS || bytes > MAX_BYTES {
        return Err(HeaderProblem::TooMany);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderProblem::Malformed)?;
        check(name.as_str(), credential_field, fence, limits_methods)?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| HeaderProblem::Malformed)?);
    }
    // An echoed token is found in a plain body only.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(headers)
}

fn check(name: &str, credential_field: &str, fence: &Fence, limits_methods: bool) -> Result<(), HeaderProblem> {
    // Where fields become variables (CGI, WSGI), "_" and "-" are one character.
    let read = name.replace('_', "-");
    if let Some(reserved) = RESERVED.iter().find(|reserved| fits(reserved, &read)) {
        return Err(HeaderProblem::Reserved(reserved));
    }
    if read.eq_ignore_ascii_case(&credential_field.replace('_', "-")) {
        return Err(HeaderProblem::Reserved("the credential's own header"));
    }
    let other_method = limits_methods && OTHER_METHOD.contains(&read.as_str());
    if other_method || fence.deny_request_headers.contain(name) || fence.deny_request_headers.contain(&read) {
        return Err(HeaderProblem::Denied);
    }
    Ok(())
}

fn fits(reserved: &str, name: &str) -> bool {
    reserved.strip_suffix('*').map_or(reserved == name, |beginning| name.starts_with(beginning))
}

/// The fields of an answer as a caller gets them. Those that the connection nominates are its own (RFC 9110 §7.6.1).
pub fn to_caller(headers: &HeaderMap, fence: &Fence) -> Vec<(String, String)> {
    let nominated: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let passes = |name: &str| {
        !NOT_RETURNED.contains(&name)
            && !nominated.iter().any(|nominated| nominated == name)
            && !fence.deny_response_headers.contain(name)
    };
    let fields = headers.iter().filter(|(name, _)| passes(name.as_str()));
    fields.map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// A field's value. Bytes beyond ASCII have no agreed meaning in it (RFC 9110 §5.5), and protobuf strings are UTF-8.
pub(super) fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::upstream::fence::HeaderPatterns;

    fn one(name: &str, value: &str, fence: &Fence) -> Result<HeaderMap, HeaderProblem> {
        from_caller(&[(name.to_owned(), value.to_owned())], "x-api-key", fence, fence.methods.is_some())
    }

    #[test]
    fn plain_fields_pass() {
        for name in
            ["X-Request-Id", "If-None-Match", "Range", "X-HTTP-Method-Override", "Idempotency-Key", "traceparent"]
        {
            assert_eq!(one(name, "7", &Fence::default()).unwrap().get(name).unwrap(), "7");
        }
    }

    #[test]
    fn e009_credentials_framing_and_routing_are_refused() {
        let wildcards = ["Proxy-Authorization", "Proxy-Connection", "X-Forwarded-For", "X-Forwarded-Client-Cert"];
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
        assert_eq!(to_caller(&answer, &fence), [("content-type".to_owned(), "text/plain".to_owned())]);
    }
}
