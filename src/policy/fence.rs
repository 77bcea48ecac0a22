//! The paths that a row lets a call go to: prefixes that end between segments.

use std::fmt;

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
        if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) || text.contains(NEVER_IN_A_PATH) {
            return Err(PathFault::NoPath);
        }
        if is_unambiguous(text) { Ok(Self(text.to_owned())) } else { Err(PathFault::Ambiguous) }
    }

    /// Whether a path, without its query, is this one or lies below it. A path that a server may take for another one
    /// is covered by nothing.
    pub fn covers(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.0.as_str());
        let on_a_border = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/'));
        on_a_border && is_unambiguous(path)
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

const NEVER_IN_A_PATH: [char; 11] = ['?', '#', '\\', '<', '>', '"', '`', '{', '}', '\'', ' '];

/// A path beyond this, in bytes, is not looked at: none is sent.
const LONGEST: usize = 8 * 1024;

/// How often a server and what stands before it may decode a path, at most, for it to be called unambiguous.
const DECODINGS: usize = 3;

/// Whether every server reads the same segments: also one that decodes percent signs, more than once, or that cuts
/// parameters (`;…`) off a segment before it looks for dots.
fn is_unambiguous(path: &str) -> bool {
    if path.len() > LONGEST {
        return false;
    }
    let separators = count_separators(path.as_bytes());
    let mut text = path.as_bytes().to_vec();
    for _ in 0..=DECODINGS {
        if count_separators(&text) != separators || is_ambiguous_as_it_stands(&text) {
            return false;
        }
        let decoded = decode(&text);
        if decoded == text {
            return true;
        }
        text = decoded;
    }
    false
}

fn count_separators(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

fn is_ambiguous_as_it_stands(path: &[u8]) -> bool {
    let is_odd = |byte: &u8| *byte == b'\\' || byte.is_ascii_control();
    let bare =
        |segment: &[u8]| segment.split(|byte| *byte == b';').next().is_some_and(|bare| matches!(bare, b"." | b".."));
    path.iter().any(is_odd) || path.windows(2).any(|pair| pair == b"//") || path.split(|byte| *byte == b'/').any(bare)
}

/// Decodes percent signs once (RFC 3986 §2.1); one that is followed by no two digits stays.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let byte = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
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
        ] {
            assert_eq!(PathPrefix::new(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn signs_that_encode_nothing_stay() {
        assert_eq!(decode(b"%41%zz%4"), b"A%zz%4");
    }
}
