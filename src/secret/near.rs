//! A secret that is read with every call, by whoever has just read what holds it.

use std::{fmt, sync::Arc};

use arrayvec::ArrayString;
use zeroize::Zeroizing;

use super::{ExposeSecret, SecretString};

/// As long as Salesforce's access tokens. Longer ones, mostly JWTs, cost more to copy than to find.
const SHORT: usize = 112;

/// A secret that can stand where its holder stands, if it is short: that spares a way to memory.
pub struct NearSecret {
    /// Where it is until it is brought near, and where a long one stays; copies share it.
    apart: Option<Arc<SecretString>>,
    near: Zeroizing<ArrayString<SHORT>>,
}

impl NearSecret {
    /// Brings a short secret to where this stands. Whoever moves it from there leaves a copy behind that nobody wipes, so this
    /// is for holders that stay where they are.
    pub fn bring_near(&mut self) {
        if let Some(secret) = self.apart.take_if(|secret| secret.expose_secret().len() <= SHORT) {
            self.near.push_str(secret.expose_secret());
        }
    }
}

impl ExposeSecret<str> for NearSecret {
    fn expose_secret(&self) -> &str {
        self.apart.as_ref().map_or(self.near.as_str(), |secret| secret.expose_secret())
    }
}

impl From<SecretString> for NearSecret {
    fn from(secret: SecretString) -> Self {
        Self { apart: Some(Arc::new(secret)), near: Zeroizing::default() }
    }
}

impl From<&str> for NearSecret {
    fn from(secret: &str) -> Self {
        SecretString::from(secret).into()
    }
}

/// The copy has yet to come to where it stays.
impl Clone for NearSecret {
    fn clone(&self) -> Self {
        let apart = self.apart.clone().unwrap_or_else(|| Arc::new(self.near.as_str().into()));
        Self { apart: Some(apart), near: Zeroizing::default() }
    }
}

impl fmt::Debug for NearSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NearSecret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_any_length_is_the_same_near_and_apart() {
        for length in [0, 1, SHORT, SHORT + 1, 4096] {
            let text = "s".repeat(length);
            let mut secret = NearSecret::from(&*text);
            assert_eq!(secret.expose_secret(), text);
            for _ in 0..2 {
                secret.bring_near();
                assert_eq!(secret.expose_secret(), text);
                assert_eq!(secret.apart.is_some(), length > SHORT);
            }
            assert_eq!(secret.clone().expose_secret(), text);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let mut secret = NearSecret::from("correct-horse");
        secret.bring_near();
        assert_eq!(format!("{secret:?}"), "NearSecret([redacted])");
    }
}
