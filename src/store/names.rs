//! Names of places in a store. They carry a keyed hash of the subject, so that neither a dump of the store nor its key
//! names tell on whose behalf bearerd works, and nobody without the key can test a guess.

use std::{fmt, sync::Arc};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use zeroize::Zeroizing;

use super::{
    StoreError,
    seal::{Ring, SealError, Sealed, Seat},
};
use crate::{
    name::{CredentialName, NearText, Subject},
    secret::{ExposeSecret, SecretString},
    token::{Generation, GrantKey, TokenKey},
};

/// Where a store keeps the key that names are made with.
pub(super) const KEY_SEAT: Seat<'_> = Seat { key: "root", field: "naming", revision: Generation::ZERO };

/// What one lease and one revision cover (protocol, "State"): the whole grant where a refresh token or a secret is
/// shared by all its tokens, a single token where repeating a request is harmless.
#[derive(Clone, Copy, Debug)]
pub enum Unit<'a> {
    /// All tokens of a grant.
    Grant(&'a GrantKey),
    /// All tokens of a grant, of which other parameters make others.
    Variant {
        /// The grant.
        grant: &'a GrantKey,
        /// A hash of the parameters.
        variant: &'a str,
    },
    /// An imported refresh token of a grant, until it has given a token.
    Candidate(&'a GrantKey),
    /// One token of one provider and client.
    Token {
        /// The token.
        key: &'a TokenKey,
        /// Its grant's binding. Replicas whose configurations name different providers, as during a roll-out, must not take
        /// each other's tokens, leases and back-offs for their own.
        binding: &'a str,
    },
}

/// The name of a unit: `credential/hash`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(NearText);

/// The name of a token within its unit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenName(NearText);

/// Where one token lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The unit that is coordinated.
    pub unit: UnitName,
    /// The token in it.
    pub token: TokenName,
}

/// The name of a token endpoint and a client there, for what all grants of the two have in common: a hash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointName(Arc<str>);

/// A keyed hash of a secret: equal for equal secrets, and useless to whoever reads the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

/// The maker of names. Its key is drawn at random when a store is first used and kept in it, sealed.
#[derive(Clone)]
pub struct Names {
    key: hmac::Key,
}

impl Names {
    /// Names by this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Draws a key for a new store and seals it.
    pub fn draw_sealed_key(ring: &Ring) -> Result<Vec<u8>, StoreError> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(&mut *key).map_err(|_| StoreError::Open("the system gives no randomness".into()))?;
        ring.seal(&KEY_SEAT, &*key).map(|sealed| sealed.0).map_err(|error| StoreError::Open(error.to_string()))
    }

    /// Names by a store's sealed key. Opening it also shows, before anything is served, whether the configured seal
    /// keys are this store's.
    pub fn open(ring: &Ring, sealed: &[u8]) -> Result<Self, StoreError> {
        let refused = |error: SealError| StoreError::Open(format!("this store's first record cannot be read: {error}"));
        let key = ring.open(&KEY_SEAT, &Sealed(sealed.to_vec())).map_err(refused)?;
        key.as_slice().try_into().map(Self::new).map_err(|_| refused(SealError::Damaged))
    }

    /// The name of a unit.
    pub fn unit(&self, unit: Unit<'_>) -> UnitName {
        let (credential, hash) = match unit {
            Unit::Grant(GrantKey { credential, subject })
            | Unit::Variant { grant: GrantKey { credential, subject }, variant: _ } => {
                (credential, self.subject(credential, subject))
            }
            Unit::Candidate(GrantKey { credential, subject }) => {
                let parts = [b"candidate", credential.as_str().as_bytes(), subject.as_str().as_bytes()];
                (credential, self.hash(&parts))
            }
            Unit::Token { key, binding } => {
                (&key.grant.credential, self.token_hash(&[b"unit", binding.as_bytes()], key))
            }
        };
        UnitName([credential.as_str(), "/", &hash].concat().as_str().into())
    }

    /// What stands for a subject, in the name of a grant and in the audit log: a keyed hash, another one for each credential.
    pub fn subject(&self, credential: &CredentialName, subject: &Subject) -> String {
        self.hash(&[b"grant", credential.as_str().as_bytes(), subject.as_str().as_bytes()])
    }

    /// The place of a token.
    pub fn place(&self, unit: Unit<'_>, key: &TokenKey) -> Place {
        let token = match unit {
            Unit::Grant(_) | Unit::Candidate(_) => self.token_hash(&[b"token"], key),
            Unit::Variant { grant: _, variant } => self.token_hash(&[b"token of", variant.as_bytes()], key),
            Unit::Token { key: _, binding } => self.token_hash(&[b"bound token", binding.as_bytes()], key),
        };
        Place { unit: self.unit(unit), token: TokenName(token.as_str().into()) }
    }

    /// The name of a token endpoint and client, given as a grant's binding.
    pub fn endpoint(&self, binding: &str) -> EndpointName {
        EndpointName(self.hash(&[b"endpoint", binding.as_bytes()]).into())
    }

    /// Whether these are made with the same key.
    pub fn are_the_same(&self, other: &Names) -> bool {
        self.hash(&[b"probe"]) == other.hash(&[b"probe"])
    }

    /// The fingerprint of a secret.
    pub fn fingerprint(&self, secret: &SecretString) -> Fingerprint {
        Fingerprint(self.hash(&[b"fingerprint", secret.expose_secret().as_bytes()]))
    }

    /// The code that authenticates a message on a store's channel: only replicas of this store can make it.
    pub fn message_code(&self, channel: &str, text: &str) -> String {
        self.hash(&[b"message", channel.as_bytes(), text.as_bytes()])
    }

    fn token_hash(&self, head: &[&[u8]], key: &TokenKey) -> String {
        // Destructured without `..`: a new field that changes the token cannot be forgotten here.
        let TokenKey { grant: GrantKey { credential, subject }, scopes, resources } = key;
        let mut parts = head.to_vec();
        parts.extend([credential.as_str().as_bytes(), subject.as_str().as_bytes(), b"scopes"]);
        parts.extend(scopes.iter().map(str::as_bytes));
        parts.push(b"resources");
        parts.extend(resources.iter().map(str::as_bytes));
        self.hash(&parts)
    }

    /// Each part goes in with its length before it, so that no two lists of parts read alike.
    fn hash(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        // 128 bits are kept: enough that two of them never meet, and short as a key name.
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

impl UnitName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&str> for UnitName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TokenName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&str> for TokenName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EndpointName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fingerprint {
    /// As it stands in a sealed record.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Fingerprint {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{CredentialName, Resources, Scopes, Subject};

    fn key(subject: &str, scopes: &[&str], resources: &[&str]) -> TokenKey {
        TokenKey {
            grant: GrantKey {
                credential: CredentialName::new("crm").unwrap(),
                subject: Subject::new(subject).unwrap(),
            },
            scopes: Scopes::new(scopes.iter().copied()).unwrap(),
            resources: Resources::new(resources.iter().copied()).unwrap(),
        }
    }

    #[test]
    fn everything_that_changes_the_token_changes_its_name() {
        let names = Names::new(&[7; 32]);
        let keys = [
            key("", &[], &[]),
            key("a", &[], &[]),
            key("", &["a"], &[]),
            key("", &["a", "b"], &[]),
            key("", &["resources"], &[]),
            key("", &[], &["urn:a"]),
            key("", &["urn:a"], &[]),
        ];
        let mut seen = std::collections::HashSet::new();
        for key in &keys {
            assert!(seen.insert(names.place(Unit::Grant(&key.grant), key).token), "{key:?}");
            for variant in ["a", "b"] {
                let place = names.place(Unit::Variant { grant: &key.grant, variant }, key);
                assert_eq!(place.unit, names.unit(Unit::Grant(&key.grant)), "it is the same grant");
                assert!(seen.insert(place.token), "{key:?} {variant}");
            }
            for binding in ["https://as.example/token a", "https://as.example/token b"] {
                let Place { unit, token } = names.place(Unit::Token { key, binding }, key);
                assert!(seen.insert(TokenName(unit.0)) && seen.insert(token), "{key:?} {binding}");
            }
        }
    }

    /// Versions that run beside each other on one store look for a grant, and for its tokens, in the same place.
    #[test]
    fn a_grant_and_its_tokens_have_the_names_that_the_first_version_gave_them() {
        let key = key("jane", &["read"], &["urn:a"]);
        let Place { unit, token } = Names::new(&[7; 32]).place(Unit::Grant(&key.grant), &key);
        assert_eq!((unit.as_str(), token.as_str()), ("crm/RN8Ruf20cGmnwo0cJTwoNQ", "KjW9QszWKH-M8Es-C0L2tQ"));
    }

    #[test]
    fn names_need_the_key_and_hide_the_subject() {
        let token = key("jane@example.org", &[], &[]);
        let one = Names::new(&[1; 32]).unit(Unit::Grant(&token.grant));
        let other = Names::new(&[2; 32]).unit(Unit::Grant(&token.grant));
        assert_ne!(one, other);
        assert!(Names::new(&[1; 32]).are_the_same(&Names::new(&[1; 32])));
        assert!(!Names::new(&[1; 32]).are_the_same(&Names::new(&[2; 32])));
        assert!(one.as_str().starts_with("crm/") && !one.as_str().contains("jane"));

        // The audit log and the store have one name for a subject, so that a line of the one leads to a record of the other.
        let GrantKey { credential, subject } = &token.grant;
        assert_eq!(one.as_str(), format!("crm/{}", Names::new(&[1; 32]).subject(credential, subject)));
    }
}
