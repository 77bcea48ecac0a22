//! A token, the key it is kept under, and its generation.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    clock::{Deadline, Moment},
    name::{CredentialName, Resources, Scopes, Subject},
    secret::NearSecret,
};

/// A number that only grows, one grant at a time: the revision of the grant record that made a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// Older than every generation.
    pub const ZERO: Self = Self(0);

    /// The largest that a store keeps: Lua counts in doubles, which are exact up to here.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// A generation of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The generation after this one: the store's time in µs, or the next number where that is larger. It never
    /// restarts, even when a record was lost (protocol, "State").
    #[must_use]
    pub fn next(self, store_time_us: u64) -> Self {
        Self(store_time_us.max(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A grant: a credential and on whose behalf it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantKey {
    /// The credential.
    pub credential: CredentialName,
    /// On whose behalf.
    pub subject: Subject,
}

/// What tells one token from another. Everything in a request that changes the token is in here (RFC 8707 §2.2: a
/// token for one resource must never be served for another).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The grant it comes from.
    pub grant: GrantKey,
    /// The scopes that are asked for, the credential's defaults already put in.
    pub scopes: Scopes,
    /// The resources that are asked for, likewise.
    pub resources: Resources,
}

/// How a token is put on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenType {
    /// RFC 6750: `Authorization: Bearer …`.
    Bearer,
    /// RFC 7617: `Authorization: Basic …`; the value is the encoded pair.
    Basic,
    /// A header of any name.
    ApiKey {
        /// The header's name, in lower case.
        header: String,
    },
}

impl TokenType {
    /// The word that callers see (RFC 6749 §7.1).
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
            Self::ApiKey { header: _ } => "ApiKey",
        }
    }
}

/// When a token ends.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// From here on the token is not served.
    pub deadline: Deadline,
    /// The whole life, from which the margin for refreshing ahead is derived.
    pub lifetime: Duration,
    /// Whether the provider or the configuration said so; else it is our own careful guess.
    pub stated: bool,
}

/// One access token, or a static secret in the same form.
///
/// In this order a short one takes three lines of a processor's cache, and whether it may be served stands in the first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Token {
    /// The revision that made it.
    pub generation: Generation,
    /// When it ends; `None` for static secrets.
    pub expiry: Option<Expiry>,
    /// How it goes on a request.
    pub kind: TokenType,
    /// The scopes that were granted.
    pub scopes: Scopes,
    /// The secret itself.
    pub value: NearSecret,
}

/// When a token came and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// The revision that made it.
    pub generation: Generation,
    /// When it ends; `None` for static secrets.
    pub expiry: Option<Expiry>,
}

impl Token {
    /// When it came and when it ends.
    pub fn life(&self) -> Life {
        Life { generation: self.generation, expiry: self.expiry }
    }

    /// What is left of the token; `None` if it never ends.
    pub fn remaining(&self, now: &Moment) -> Option<Duration> {
        self.expiry.map(|expiry| expiry.deadline.remaining(now))
    }

    /// The header that carries the token, its name in lower case, and what stands in its value before the secret:
    /// `Authorization` with the scheme in front (RFC 6750 §2.1, RFC 7617 §2), or the header of an API key.
    pub fn header(&self) -> (&str, &'static str) {
        match &self.kind {
            TokenType::Bearer => ("authorization", "Bearer "),
            TokenType::Basic => ("authorization", "Basic "),
            TokenType::ApiKey { header } => (header, ""),
        }
    }

    /// Whether the token may be served to somebody who wants this.
    pub fn satisfies(&self, wanted: &Wanted, now: &Moment) -> bool {
        self.generation > wanted.refused
            && match self.remaining(now) {
                None => true,
                Some(left) => !left.is_zero() && left >= wanted.min_remaining,
            }
    }
}

/// What a caller asks of a token's freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The token must be newer than this.
    pub refused: Generation,
    /// At least this much must be left of it.
    pub min_remaining: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    #[test]
    fn generations_never_restart() {
        assert_eq!(Generation::ZERO.next(1_000), Generation::new(1_000));
        assert_eq!(Generation::new(5_000).next(1_000), Generation::new(5_001));
    }

    #[test]
    fn a_token_says_how_it_goes_on_a_request() {
        let api_key = TokenType::ApiKey { header: "x-api-key".to_owned() };
        for (kind, value, name, header) in [
            (TokenType::Bearer, "abc.def", "authorization", "Bearer abc.def"),
            (TokenType::Basic, "dTpw", "authorization", "Basic dTpw"),
            (api_key, "k 1", "x-api-key", "k 1"),
        ] {
            let token = Token {
                value: value.into(),
                kind,
                generation: Generation::ZERO,
                scopes: Scopes::default(),
                expiry: None,
            };
            let (got_name, scheme) = token.header();
            assert_eq!((got_name, &*[scheme, token.value.expose_secret()].concat()), (name, header));
        }
    }

    #[test]
    fn freshness_is_generation_and_time() {
        let now = Moment::now();
        let lifetime = Duration::from_secs(60);
        let token = Token {
            value: "secret-value".into(),
            kind: TokenType::Bearer,
            generation: Generation::new(7),
            scopes: Scopes::default(),
            expiry: Some(Expiry { deadline: now.after(lifetime), lifetime, stated: true }),
        };
        let wanted = |refused, seconds| Wanted {
            refused: Generation::new(refused),
            min_remaining: Duration::from_secs(seconds),
        };
        assert!(token.satisfies(&wanted(6, 0), &now));
        assert!(!token.satisfies(&wanted(7, 0), &now));
        assert!(!token.satisfies(&wanted(0, 61), &now));
        assert!(!format!("{token:?}").contains("secret-value"));
    }
}
