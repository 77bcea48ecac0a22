//! Which header fields pass from a caller to an upstream, and back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Why a header field is refused. It names the field and never its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// No name or value of HTTP (RFC 9110 §5).
    #[error("headers: a name or value is not allowed in HTTP")]
    Malformed,
    /// Reserved for bearerd or the connection.
    #[error("headers: {0} is set by bearerd or belongs to the connection")]
    Reserved(&'static str),
    /// More than anybody needs.
    #[error("headers: more than 100 fields, or more than 64 KiB")]
    TooMany,
}

/// Fields that a caller may not set: credentials, what frames or routes the request, and what proxies believe.
const RESERVED: [&str; 24] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "x-real-ip",
    "via",
    "http2-settings",
    "accept-encoding",
];

/// Fields of an answer that belong to the connection (RFC 9110 §7.6.1), and the length, which the body tells.
const NOT_RETURNED: [&str; 10] = [
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
];

const MAX_FIELDS: usize = 100;
const MAX_BYTES: usize = 64 * 1024;

/// Checks the fields of a caller. The credential's own field is reserved too.
pub fn from_caller(fields: &[(String, String)], credential_field: &str) -> Result<HeaderMap, HeaderProblem> {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > MAX_FIELDS || bytes > MAX_BYTES {
        return Err(HeaderProblem::TooMany);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderProblem::Malformed)?;
        if let Some(reserved) = RESERVED.iter().find(|reserved| **reserved == name.as_str()) {
            return Err(HeaderProblem::Reserved(reserved));
        }
        if name.as_str().eq_ignore_ascii_case(credential_field) {
            return Err(HeaderProblem::Reserved("the credential's own header"));
        }
        headers.append(name, HeaderValue::from_str(value).map_err(|_| HeaderProblem::Malformed)?);
    }
    // An echoed token is found in a plain body only.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(headers)
}

/// The fields of an answer as a caller gets them.
pub fn to_caller(headers: &HeaderMap) -> Vec<(String, String)> {
    let fields = headers.iter().filter(|(name, _)| !NOT_RETURNED.contains(&name.as_str()));
    // Bytes beyond ASCII have no agreed meaning in a field (RFC 9110 §5.5) and protobuf strings are UTF-8.
    fields.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<HeaderMap, HeaderProblem> {
        from_caller(&[(name.to_owned(), value.to_owned())], "x-api-key")
    }

    #[test]
    fn plain_fields_pass() {
        assert_eq!(one("X-Request-Id", "7").unwrap().get("x-request-id").unwrap(), "7");
    }

    #[test]
    fn credentials_framing_and_routing_are_refused() {
        for name in RESERVED {
            assert!(matches!(one(&name.to_uppercase(), "x"), Err(HeaderProblem::Reserved(_))), "{name}");
        }
        assert!(matches!(one("X-API-Key", "x"), Err(HeaderProblem::Reserved(_))));
    }

    #[test]
    fn no_value_breaks_out_of_its_line() {
        for (name, value) in [("x", "a\r\nb: c"), ("x", "a\0"), ("x y", "a"), ("", "a"), (":path", "/")] {
            assert_eq!(one(name, value), Err(HeaderProblem::Malformed), "{name:?} {value:?}");
        }
        let many = vec![("x".to_owned(), String::new()); 101];
        assert_eq!(from_caller(&many, "x"), Err(HeaderProblem::TooMany));
    }
}
