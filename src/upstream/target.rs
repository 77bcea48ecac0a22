//! Where a call through goes: the credential's `base_url` with the caller's path and query appended, and nothing else.
//!
//! The check is on the text before and on the parsed URL after: a path that a URL parser would rewrite (dot segments,
//! backslashes, a second slash that makes a host) is refused, not repaired.

use http::Method;
use url::Url;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The credential has no `base_url`.
    #[error("the credential has no base_url, so no calls can be made with it")]
    NoBaseUrl,
    /// The path or method is not one.
    #[error("{0}")]
    Malformed(&'static str),
    /// The target lies outside of the credential's `base_url`.
    #[error("the target lies outside of the credential's base_url")]
    Outside,
    /// A header may not be sent.
    #[error("{0}")]
    Header(super::HeaderProblem),
}

const MAX_PATH: usize = 8 * 1024;

/// The URL of a call.
pub fn url(base: &Url, path: &str) -> Result<Url, TargetError> {
    check(path)?;
    let whole = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let url = Url::parse(&whole).map_err(|_| TargetError::Malformed("path: not part of a URL"))?;
    let same = url.origin() == base.origin()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    let inside = url.path().starts_with(base.path().trim_end_matches('/'));
    // What the parser rewrote is not what the caller wrote.
    let untouched = url.as_str() == whole;
    if same && inside && untouched { Ok(url) } else { Err(TargetError::Outside) }
}

fn check(path: &str) -> Result<(), TargetError> {
    let (plain, _query) = path.split_once('?').unwrap_or((path, ""));
    if !plain.starts_with('/') {
        return Err(TargetError::Malformed("path: has to begin with \"/\""));
    }
    if path.len() > MAX_PATH {
        return Err(TargetError::Malformed("path: longer than 8 KiB"));
    }
    if !path.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
        || path.contains(['\\', '#', '<', '>', '"', '`', '{', '}', '\''])
    {
        return Err(TargetError::Malformed("path: has a character that must be percent-encoded"));
    }
    if plain.contains("//") || plain.split('/').any(is_dots) || hides_a_separator(plain) {
        return Err(TargetError::Malformed("path: has an empty or dot segment, or an encoded separator"));
    }
    Ok(())
}

fn is_dots(segment: &str) -> bool {
    let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
    decoded == "." || decoded == ".."
}

/// `%2f`, `%5c` and `%00` may be decoded behind us, where nobody checks any more.
fn hides_a_separator(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    ["%2f", "%5c", "%00"].iter().any(|code| lower.contains(code))
}

/// The method of a call. `CONNECT` and `TRACE` are no requests to an API.
pub fn method(text: &str) -> Result<Method, TargetError> {
    let method =
        Method::from_bytes(text.as_bytes()).map_err(|_| TargetError::Malformed("method: not an HTTP method"))?;
    match method {
        Method::CONNECT | Method::TRACE => Err(TargetError::Malformed("method: CONNECT and TRACE are not sent")),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://api.example/v1/").unwrap()
    }

    #[test]
    fn paths_are_appended_to_the_base() {
        for (path, whole) in [
            ("/", "https://api.example/v1/"),
            ("/users?limit=5&q=a%20b", "https://api.example/v1/users?limit=5&q=a%20b"),
            ("/a%20b", "https://api.example/v1/a%20b"),
            ("/a:b@c/d;e=f", "https://api.example/v1/a:b@c/d;e=f"),
            ("/x?next=//evil/../y", "https://api.example/v1/x?next=//evil/../y"),
        ] {
            assert_eq!(url(&base(), path).unwrap().as_str(), whole);
        }
    }

    #[test]
    fn tricks_are_refused() {
        for path in [
            "",
            "users",
            "//evil.com",
            "/\\evil.com",
            "\\\\evil.com",
            " /x",
            "https://evil.com/",
            "@evil.com/",
            ":443@evil.com",
            ".evil.com/",
            "/../admin",
            "/a/../../admin",
            "/%2e%2e/admin",
            "/.%2E/admin",
            "/..%2fadmin",
            "/a%5c..%5cb",
            "/a%00",
            "/a#b",
            "/a b",
            "/a\r\nHost: evil",
            "/ä",
            "/a//b",
            "/./a",
        ] {
            assert!(url(&base(), path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn methods_are_tokens_and_requests() {
        assert_eq!(method("PATCH").unwrap(), Method::PATCH);
        for bad in ["", "GE T", "CONNECT", "TRACE", "GET\r\n"] {
            assert!(method(bad).is_err(), "{bad:?}");
        }
    }
}
