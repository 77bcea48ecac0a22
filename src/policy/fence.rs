//! The paths that a row lets a call go to: prefixes that end between segments.

use std::fmt;

use crate::path;

/// The beginning of a path, up to the end of a segment. It covers itself and what lies below it: `/v1/contacts` covers
/// `/v1/contacts` and `/v1/contacts/7`, and not `/v1/contacts-old`. One that ends in `/` covers only what lies below.
///
/// Paths are compared as they are sent, without the query, character by character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(String);

/// What is wrong with a prefix; the text says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not begin at the root.
    #[error("begin it with \"/\": it is what follows base_url")]
    NotFromRoot,
    /// It holds what is part of no path.
    #[error("leave out the query, and percent-encode what is no visible ASCII character of a path")]
    NoPath,
    /// It looks like a pattern.
    #[error("write the beginning of the path: everything below it is covered, and '*' has no meaning here")]
    Star,
    /// A server may take it for another path.
    #[error("leave out empty and dot segments, and encoded separators")]
    Ambiguous,
}

impl PathPrefix {
    /// Checks a prefix.
    ///
    /// # Errors
    ///
    /// [`PathFault`], if no path can begin so.
    pub fn new(text: &str) -> Result<Self, PathFault> {
        if !text.starts_with('/') {
            return Err(PathFault::NotFromRoot);
        }
        if text.contains('*') {
            return Err(PathFault::Star);
        }
        if text.contains('?') || !path::is_encoded(text) {
            return Err(PathFault::NoPath);
        }
        path::check(text).map(|()| Self(text.to_owned())).map_err(|_| PathFault::Ambiguous)
    }

    /// Whether a path, without its query, is this one or lies below it. A path that a server may take for another one
    /// is covered by nothing.
    pub fn covers(&self, called: &str) -> bool {
        let below = called.strip_prefix(self.0.as_str());
        let on_a_border = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'));
        on_a_border && path::check(called).is_ok()
    }

    /// Whether any server may take a path for one that this prefix covers: without regard to case, to what is encoded, and to
    /// parameters of a segment. For rows that deny.
    pub fn may_cover(&self, called: &str) -> bool {
        let (prefix, path) = (path::decoded(&self.0), path::decoded(called));
        let below = path.strip_prefix(prefix.as_slice());
        let on_a_border = |rest: &[u8]| rest.first().is_none_or(|next| b"/;".contains(next)) || self.0.ends_with('/');
        below.is_some_and(on_a_border) || path::check(called).is_err()
    }

    /// The prefix as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_between_segments() {
        for (prefix, path, covered) in [
            ("/v1/contacts", "/v1/contacts", true),
            ("/v1/contacts", "/v1/contacts/", true),
            ("/v1/contacts", "/v1/contacts/7", true),
            ("/v1/contacts", "/v1/contacts/a%20b;c=d/e", true),
            ("/v1/contacts", "/v1/contacts-old", false),
            ("/v1/contacts", "/v1/contactsold/7", false),
            ("/v1/contacts", "/v1", false),
            ("/v1/contacts", "/V1/contacts", false),
            ("/v1/contacts", "/v1/contact%73", false),
            ("/v1/contacts", "/v1/contacts;x/7", false),
            ("/v1/contacts/", "/v1/contacts", false),
            ("/v1/contacts/", "/v1/contacts/7", true),
            ("/", "/", true),
            ("/", "/anything", true),
        ] {
            assert_eq!(PathPrefix::new(prefix).unwrap().covers(path), covered, "{prefix} {path}");
        }
    }

    #[test]
    fn what_a_server_may_read_otherwise_is_covered_by_nothing() {
        for tail in [
            "..",
            "../admin",
            "./x",
            "a/../../admin",
            "a//b",
            "%2e%2e/admin",
            ".%2E/admin",
            "%252e%252e/admin",
            "%25252e%25252e/admin",
            "%2525252525252e./x",
            "..;/admin",
            "..;a=b/admin",
            ".;/admin",
            "..%3b/admin",
            "..%2fadmin",
            "..%252fadmin",
            "..%5cadmin",
            "..\\admin",
            "a%00/b",
            "a%0d%0ab",
            "a%zz",
            "%c0%ae%c0%ae/admin",
        ] {
            assert!(!PathPrefix::new("/").unwrap().covers(&format!("/{tail}")), "{tail}");
            assert!(!PathPrefix::new("/open").unwrap().covers(&format!("/open/{tail}")), "{tail}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for (text, fault) in [
            ("v1", PathFault::NotFromRoot),
            ("", PathFault::NotFromRoot),
            ("https://api.example/v1", PathFault::NotFromRoot),
            ("/v1/*", PathFault::Star),
            ("/v1?x=1", PathFault::NoPath),
            ("/v1 ", PathFault::NoPath),
            ("/ä", PathFault::NoPath),
            ("/v1/../v2", PathFault::Ambiguous),
            ("//v1", PathFault::Ambiguous),
            ("/v1%2fx", PathFault::Ambiguous),
            ("/v1%zz", PathFault::Ambiguous),
            ("/v1%c0%afx", PathFault::Ambiguous),
        ] {
            assert_eq!(PathPrefix::new(text), Err(fault), "{text}");
        }
    }
}
