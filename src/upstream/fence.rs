//! What one credential lets callers have called, besides the `base_url` that no call leaves.

use http::{HeaderName, Method};

use super::target::{self, TargetError};
use crate::http::Reach;

/// The limits of a credential's calls. The default is what a credential has that says nothing.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Which addresses the name in `base_url` may lead to.
    pub reach: Reach,
    /// The methods that may be used; `None`: all that are requests to an API.
    pub methods: Option<Vec<Method>>,
    /// Header fields that callers may send besides those that pass everywhere.
    pub allow_request_headers: HeaderPatterns,
    /// Header fields that callers may not send, besides those that nobody may.
    pub deny_request_headers: HeaderPatterns,
    /// Header fields that callers do not get, besides those that nobody gets.
    pub deny_response_headers: HeaderPatterns,
    /// The largest body of a request, in bytes.
    pub max_request_bytes: usize,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            methods: None,
            allow_request_headers: HeaderPatterns::default(),
            deny_request_headers: HeaderPatterns::default(),
            deny_response_headers: HeaderPatterns::default(),
            max_request_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Fence {
    /// Reads a method and checks that it may be used.
    ///
    /// # Errors
    ///
    /// [`TargetError::Method`], or [`TargetError::MethodNotAllowed`] where it is only this credential's fence that
    /// forbids it.
    pub fn method(&self, text: &str) -> Result<Method, TargetError> {
        let method = target::method(text)?;
        let allowed = self.methods.as_ref().is_none_or(|methods| methods.contains(&method));
        if allowed { Ok(method) } else { Err(TargetError::MethodNotAllowed) }
    }

    /// Checks the size of a body.
    ///
    /// # Errors
    ///
    /// [`TargetError::BodyTooLarge`].
    pub fn body(&self, bytes: usize) -> Result<(), TargetError> {
        if bytes > self.max_request_bytes { Err(TargetError::BodyTooLarge(self.max_request_bytes)) } else { Ok(()) }
    }
}

/// Header fields by name, or by what names begin with (`x-internal-*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPatterns(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    Beginning(String),
}

/// A text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a header's name, or the beginning of names with one \"*\" at its end, for example \"x-internal-*\"")]
pub struct NoPattern;

impl HeaderPatterns {
    /// Reads patterns; letters of either case are the same.
    ///
    /// # Errors
    ///
    /// [`NoPattern`].
    pub fn new<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, NoPattern> {
        texts.into_iter().map(|text| pattern(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a field, its name in lower case, is one of these.
    pub fn contain(&self, field: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Name(name) => field == name,
            Pattern::Beginning(beginning) => field.starts_with(beginning),
        })
    }
}

fn pattern(text: &str) -> Result<Pattern, NoPattern> {
    let name = |text: &str| HeaderName::try_from(text).map(|name| name.as_str().to_owned()).map_err(|_| NoPattern);
    // The star is itself a character of names (RFC 9110 §5.6.2), though nobody uses it.
    match text.strip_suffix('*') {
        _ if text.trim_end_matches('*').contains('*') || text.ends_with("**") => Err(NoPattern),
        Some("") => Ok(Pattern::Beginning(String::new())),
        Some(beginning) => name(beginning).map(Pattern::Beginning),
        None => name(text).map(Pattern::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_beginnings() {
        let patterns = HeaderPatterns::new(["Set-Cookie2", "X-Internal-*"]).unwrap();
        for (field, inside) in [
            ("set-cookie2", true),
            ("set-cookie", false),
            ("x-internal-", true),
            ("x-internal-id", true),
            ("x-internal", false),
        ] {
            assert_eq!(patterns.contain(field), inside, "{field}");
        }
        assert!(HeaderPatterns::new(["*"]).unwrap().contain("anything"));
        for bad in ["", "a b", "*-id", "a*b", "a**", "**", "ä", "a:"] {
            assert_eq!(HeaderPatterns::new([bad]), Err(NoPattern), "{bad}");
        }
    }

    #[test]
    fn methods_and_sizes_are_limited() {
        let fence = Fence { methods: Some(vec![Method::GET, Method::POST]), max_request_bytes: 3, ..Fence::default() };
        assert_eq!(fence.method("GET"), Ok(Method::GET));
        assert_eq!(fence.method("DELETE"), Err(TargetError::MethodNotAllowed));
        assert_eq!(fence.method("get"), Err(TargetError::MethodNotAllowed));
        assert!(matches!(fence.method("CONNECT"), Err(TargetError::Method(_))));
        assert_eq!(Fence::default().method("DELETE"), Ok(Method::DELETE));
        assert_eq!((fence.body(3), fence.body(4)), (Ok(()), Err(TargetError::BodyTooLarge(3))));
    }
}
