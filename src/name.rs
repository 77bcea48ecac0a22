//! The names that a request is made of, checked once where they enter: credentials, subjects, scopes, resources.
//!
//! A value of these types is always well formed, so no room below has to look again.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::near::NearText;

mod near;

/// What is wrong with a name. The text says what would be right and repeats nothing of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a credential name.
    #[error(
        "a credential's name has 1 to 63 characters: lower-case letters, digits, '-', '_' or '.', the first a letter or digit"
    )]
    Credential,
    /// Not a subject.
    #[error("a subject has at most 256 bytes and no control characters")]
    Subject,
    /// Not a scope.
    #[error("a scope has 1 to 256 printable ASCII characters without space, '\"' or '\\' (RFC 6749 §3.3)")]
    Scope,
    /// Not a resource indicator.
    #[error("a resource is an absolute URI of at most 2048 bytes without a fragment (RFC 8707 §2)")]
    Resource,
    /// More scopes or resources than anybody needs.
    #[error("at most 100 of these, of 8 KiB together, are taken at once")]
    TooMany,
}

/// The most scopes, or resources, of one request.
pub const MAX_ITEMS: usize = 100;

/// The most bytes of them together: they are kept in memory with each token.
pub const MAX_BYTES: usize = 8 * 1024;

/// The name of a credential in the configuration. Cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// Checks a name. Upper case is refused, so that two names never differ by case alone.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if first && rest && text.len() <= 63 { Ok(Self(text.into())) } else { Err(NameError::Credential) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// On whose behalf a token is used; empty for the service itself.
///
/// A subject can be a person's e-mail address, so `Debug` does not show it. Cloning it is cheap. The default is
/// the service itself.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Subject(NearText);

impl Subject {
    /// Checks a subject.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() > 256 || text.chars().any(char::is_control) {
            return Err(NameError::Subject);
        }
        Ok(Self(text.into()))
    }

    /// The subject as text, for a provider's request and nothing else.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this is the service itself.
    pub fn is_service(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_service() { "Subject(service)" } else { "Subject([redacted])" })
    }
}

/// A sorted set of scopes (RFC 6749 §3.3: order does not matter). Cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Scopes(Arc<[String]>);

impl Scopes {
    /// Checks, sorts and dedupes scopes.
    pub fn new<I: IntoIterator<Item: Into<String>>>(items: I) -> Result<Self, NameError> {
        sorted(items, is_scope, NameError::Scope).map(Self)
    }

    /// Reads what a provider granted. What is no scope is left out: an answer must not fail for it.
    pub fn granted<'a, I: IntoIterator<Item = &'a str>>(items: I) -> Self {
        let mut scopes: Vec<String> =
            items.into_iter().filter(|s| is_scope(s)).take(MAX_ITEMS).map(str::to_owned).collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes.into())
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the `scope` parameter.
    pub fn to_parameter(&self) -> String {
        self.0.join(" ")
    }
}

fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// A sorted set of resource indicators (RFC 8707). Cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Resources(Arc<[String]>);

impl Resources {
    /// Checks, sorts and dedupes resources.
    pub fn new<I: IntoIterator<Item: Into<String>>>(items: I) -> Result<Self, NameError> {
        sorted(items, is_resource, NameError::Resource).map(Self)
    }

    /// The resources in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_resource(text: &str) -> bool {
    text.len() <= 2048 && url::Url::parse(text).is_ok_and(|url| url.fragment().is_none())
}

fn sorted<I: IntoIterator<Item: Into<String>>>(
    items: I,
    good: fn(&str) -> bool,
    bad: NameError,
) -> Result<Arc<[String]>, NameError> {
    let mut list: Vec<String> = items.into_iter().map(Into::into).collect();
    if list.is_empty() {
        return Ok(Arc::default());
    }
    let bytes: usize = list.iter().map(String::len).sum();
    if list.len() > MAX_ITEMS || bytes > MAX_BYTES {
        return Err(NameError::TooMany);
    }
    if !list.iter().all(|item| good(item)) {
        return Err(bad);
    }
    list.sort_unstable();
    list.dedup();
    Ok(list.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_names_are_lower_case_and_bounded() {
        for good in ["a", "salesforce", "sap-s4.prod_1", "0x"] {
            assert!(CredentialName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(CredentialName::new(bad), Err(NameError::Credential), "{bad}");
        }
    }

    #[test]
    fn scopes_are_a_set() {
        let one = Scopes::new(["b", "a", "b"]).unwrap();
        assert_eq!(one, Scopes::new(["a", "b"]).unwrap());
        assert_eq!(one.to_parameter(), "a b");
        assert_eq!(Scopes::new(["a b"]), Err(NameError::Scope));
        assert_eq!(Scopes::new(["a\"b"]), Err(NameError::Scope));
    }

    #[test]
    fn resources_are_absolute_and_without_fragment() {
        assert!(Resources::new(["https://api.example/v1", "urn:test:api"]).is_ok());
        assert_eq!(Resources::new(["/v1"]), Err(NameError::Resource));
        assert_eq!(Resources::new(["https://a/#b"]), Err(NameError::Resource));
    }

    #[test]
    fn a_subject_of_any_length_is_kept_whole() {
        assert_eq!(Subject::new("").unwrap(), Subject::default());
        for length in [1, 36, 40, 41, 256] {
            let text = "s".repeat(length);
            let subject = Subject::new(&text).unwrap();
            assert_eq!(subject.as_str(), text);
            assert_eq!(subject, Subject::new(&text).unwrap());
            assert_ne!(subject, Subject::new(&"s".repeat(length - 1)).unwrap());
        }
        assert_eq!(Subject::new(&"s".repeat(257)), Err(NameError::Subject));
    }

    #[test]
    fn a_subject_is_not_shown() {
        let subject = Subject::new("jane@example.org").unwrap();
        assert!(!format!("{subject:?}").contains("jane"));
        assert_eq!(Subject::new("a\nb"), Err(NameError::Subject));
    }
}
