//! Patterns with one rule: a star is any run of characters.

use std::fmt;

/// A text in which `*` stands for any run of characters, also an empty one, and also one with `/` in it: there are no
/// segments for a star, neither in a SPIFFE ID nor in a resource. All else stands for itself, case included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for more than one text.
    pub fn has_star(&self) -> bool {
        self.0.contains('*')
    }

    /// Whether every text fits.
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.chars().all(|c| c == '*')
    }

    /// Whether the whole of a text fits.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut left) = text.strip_prefix(head) else { return false };
        let mut pieces = rest.split('*').peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return left.ends_with(piece);
            }
            // The first place where a piece fits is always good enough, because another star follows it.
            let Some(at) = left.find(piece) else { return false };
            left = left.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// A pattern of subjects, in which `{caller}` stands for the caller's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPattern(Pattern);

/// What stands for the caller's name.
const CALLER: &str = "{caller}";

impl SubjectPattern {
    /// A pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Pattern::new(text))
    }

    /// Whether the caller's name is part of it.
    pub fn names_the_caller(&self) -> bool {
        self.0.as_str().contains(CALLER)
    }

    /// Whether it covers a subject of this caller.
    pub fn covers(&self, subject: &str, caller: &str) -> bool {
        if !self.names_the_caller() {
            return self.0.matches(subject);
        }
        // No caller has a star in its name; one would cover other subjects.
        !caller.contains('*') && Pattern::new(self.0.as_str().replace(CALLER, caller)).matches(subject)
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_nothing_else_is_special() {
        for (pattern, text, fits) in [
            ("sap", "sap", true),
            ("sap", "sapx", false),
            ("sap-*", "sap-", true),
            ("sap-*", "sap", false),
            ("*", "", true),
            ("*-prod", "crm-prod", true),
            ("*-prod", "crm-prod-x", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("a.c", "abc", false),
            ("ä*", "äö", true),
            ("Sap", "sap", false),
            ("", "", true),
            ("", "x", false),
            ("spiffe://a/ns/b/sa/*", "spiffe://a/ns/b/sa/x", true),
            ("spiffe://a/ns/b/sa/*", "spiffe://a/ns/b/sa/x/y", true),
            ("spiffe://a/ns/b/sa/*", "spiffe://a/ns/b-evil/sa/x", false),
            ("spiffe://a/ns/b*", "spiffe://a/ns/b-evil/sa/x", true),
            ("spiffe://a/*", "spiffe://a.evil/x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }
    /// The obvious way, which is slow, says the same.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| slowly(rest, &text[at..])),
            Some((first, rest)) => text.split_first().is_some_and(|(head, tail)| head == first && slowly(rest, tail)),
        }
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_the_obvious_way_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            assert_eq!(Pattern::new(pattern.as_str()).matches(&text), slowly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
