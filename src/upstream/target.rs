//! Where a call through goes: the credential's `base_url` with the caller's path and query appended, and nothing else.
//!
//! The check is on the text before and on the parsed URL after: a path that a URL parser would rewrite (dot segments,
//! backslashes, a second slash that makes a host) is refused, not repaired. A path that only an upstream would rewrite,
//! because it decodes once more than others, is refused too: the prefix in `base_url` is a promise to the operator.

use std::borrow::Cow;

use http::Method;
use url::Url;

use crate::path;

/// Why a call is refused before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The credential has no `base_url`.
    #[error("the credential has no base_url, so no calls can be made with it")]
    NoBaseUrl,
    /// The path is not one.
    #[error("path: {0}")]
    Path(Cow<'static, str>),
    /// The target lies outside of the credential's `base_url`.
    #[error("the target lies outside of the credential's base_url")]
    Outside,
    /// The method is not one, or none that an API is asked with.
    #[error("method: {0}")]
    Method(&'static str),
    /// The credential's `methods` do not have it.
    #[error("method: not among the methods that this credential allows")]
    MethodNotAllowed,
    /// A header may not be sent.
    #[error("headers: {0}")]
    Header(super::HeaderProblem),
    /// The body is larger than the credential's `max_request_bytes`.
    #[error("body: larger than the {0} bytes that this credential allows")]
    BodyTooLarge(usize),
}

impl TargetError {
    /// The field of the request that is at fault.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::NoBaseUrl => "credential",
            Self::Path(_) | Self::Outside => "path",
            Self::Method(_) | Self::MethodNotAllowed => "method",
            Self::Header(_) => "headers",
            Self::BodyTooLarge(_) => "body",
        }
    }
}

/// The URL of a call.
///
/// # Errors
///
/// [`TargetError::Path`] and [`TargetError::Outside`].
pub fn url(base: &Url, path: &str) -> Result<Url, TargetError> {
    path::check(path).map_err(TargetError::Path)?;
    let whole = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let url = Url::parse(&whole).map_err(|_| TargetError::Path("not part of a URL".into()))?;
    let same = url.origin() == base.origin()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    let inside = url.path().starts_with(base.path().trim_end_matches('/'));
    // What the parser rewrote is not what the caller wrote.
    let untouched = url.as_str() == whole;
    if same && inside && untouched { Ok(url) } else { Err(TargetError::Outside) }
}

/// Methods that are no requests to an API, whatever the case of their letters: what makes a tunnel, what only repeats
/// the request with its token (RFC 9110 §9.3.6, §9.3.8, and Microsoft's word for it), and the beginning of another
/// protocol (RFC 9113 §3.4).
const NEVER: [&str; 4] = ["CONNECT", "TRACE", "TRACK", "PRI"];

/// Far longer than any registered method.
const LONGEST_METHOD: usize = 40;

/// The method of a call.
///
/// # Errors
///
/// [`TargetError::Method`].
pub fn method(text: &str) -> Result<Method, TargetError> {
    let no_method = || TargetError::Method("not an HTTP method (RFC 9110 §9.1)");
    if text.len() > LONGEST_METHOD {
        return Err(no_method());
    }
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| no_method())?;
    if NEVER.iter().any(|never| never.eq_ignore_ascii_case(text)) {
        return Err(TargetError::Method("CONNECT, TRACE, TRACK and PRI are not sent"));
    }
    Ok(method)
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
            (
                "/x?next=https%3A%2F%2Fevil.example%2F%00%0a",
                "https://api.example/v1/x?next=https%3A%2F%2Fevil.example%2F%00%0a",
            ),
            ("/?", "https://api.example/v1/?"),
            ("/http://evil.example".get(..6).unwrap(), "https://api.example/v1/http:"),
            ("/Products('7')?$top=1", "https://api.example/v1/Products('7')?$top=1"),
            ("/.well-known/x", "https://api.example/v1/.well-known/x"),
            ("/a...b/...", "https://api.example/v1/a...b/..."),
            ("/100%25/caf%C3%A9/caf%E9", "https://api.example/v1/100%25/caf%C3%A9/caf%E9"),
        ] {
            assert_eq!(url(&base(), path).unwrap().as_str(), whole);
        }
    }

    #[test]
    fn a_base_of_any_form_keeps_its_authority_and_its_path() {
        for (base, path, whole) in [
            ("https://api.example", "/@evil.example/", "https://api.example/@evil.example/"),
            ("https://api.example:8443/", "/:443/", "https://api.example:8443/:443/"),
            ("https://api.example/a/b//", "/c", "https://api.example/a/b/c"),
            ("http://[::1]:8080/", "/[::2]/", "http://[::1]:8080/[::2]/"),
            ("http://127.0.0.1/", "/x", "http://127.0.0.1/x"),
        ] {
            assert_eq!(url(&Url::parse(base).unwrap(), path).unwrap().as_str(), whole);
        }
    }

    #[test]
    fn e010_methods_are_tokens_and_requests() {
        for good in ["GET", "PATCH", "PROPFIND", "VERSION-CONTROL"] {
            assert_eq!(method(good).unwrap().as_str(), good);
        }
        let long = "A".repeat(41);
        for bad in [
            "",
            "GE T",
            "GET\r\n",
            "GET\0",
            "GÉT",
            "GET / HTTP/1.1",
            "CONNECT",
            "TRACE",
            "TRACK",
            "PRI",
            "connect",
            "Trace",
            &long,
        ] {
            assert!(matches!(method(bad), Err(TargetError::Method(_))), "{bad:?}");
        }
    }
}
