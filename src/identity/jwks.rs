//! An issuer's public keys (JWKS, RFC 7517), by their identifiers.

use std::{collections::BTreeMap, fmt};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

/// The keys that may sign tokens. RS256 and ES256 are what Kubernetes signs with, and nothing else is taken.
#[derive(Clone)]
pub struct KeySet(BTreeMap<String, (Algorithm, DecodingKey)>);

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// The text is no key set.
    #[error("this is no JSON Web Key Set")]
    Malformed,
    /// It has no key that may sign tokens.
    #[error("the key set has no key for RS256 or ES256 with an identifier")]
    Empty,
    /// It cannot be fetched.
    #[error("the key set cannot be fetched: {0}")]
    Unreachable(String),
    /// It was asked for a moment ago, in vain.
    #[error("the key set was asked for a moment ago")]
    JustAsked,
}

impl KeySet {
    /// Reads a key set. Keys for other uses are left out, and so are those without an identifier.
    ///
    /// # Errors
    ///
    /// [`JwksError`] if no key is left.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| JwksError::Malformed)?;
        let keys: BTreeMap<_, _> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() { Err(JwksError::Empty) } else { Ok(Self(keys)) }
    }

    /// The key of this identifier and the one algorithm it is for.
    pub fn get(&self, id: &str) -> Option<(Algorithm, &DecodingKey)> {
        self.0.get(id).map(|(algorithm, key)| (*algorithm, key))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a kind of key that is not known yet is of no use here either")]
fn usable(jwk: &Jwk) -> Option<(String, (Algorithm, DecodingKey))> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        // Shared secrets among them: whoever can read this key set could sign with one.
        _ => return None,
    };
    let common = &jwk.common;
    let for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let fits = common.key_algorithm.is_none_or(|stated| stated == name);
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (for_signatures && fits).then_some(())?;
    Some((common.key_id.clone()?, (algorithm, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#""kty":"RSA","n":"AQAB","e":"AQAB""#;
    const EC: &str = r#""kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB""#;

    fn of(keys: &[String]) -> Result<KeySet, JwksError> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn keys_have_one_algorithm_each() {
        let set = of(&[format!(r#"{{{RSA},"kid":"r","alg":"RS256","use":"sig"}}"#), format!(r#"{{{EC},"kid":"e"}}"#)])
            .unwrap();
        assert_eq!(set.get("r").map(|(algorithm, _)| algorithm), Some(Algorithm::RS256));
        assert_eq!(set.get("e").map(|(algorithm, _)| algorithm), Some(Algorithm::ES256));
        assert!(set.get("x").is_none());
        assert_eq!(format!("{set:?}"), r#"{"e", "r"}"#);
    }

    #[test]
    fn what_must_not_verify_a_token_is_left_out() {
        for key in [
            format!(r#"{{{RSA}}}"#),
            format!(r#"{{{RSA},"kid":"a","use":"enc"}}"#),
            format!(r#"{{{RSA},"kid":"a","alg":"RS512"}}"#),
            format!(r#"{{{RSA},"kid":"a","alg":"HS256"}}"#),
            format!(r#"{{{EC},"kid":"a","alg":"RS256"}}"#),
            format!(r#"{{{},"kid":"a"}}"#, EC.replace("P-256", "P-384")),
            r#"{"kty":"oct","k":"c2VjcmV0","kid":"a"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AQAB","kid":"a"}"#.to_owned(),
            r#"{"kty":"new","kid":"a"}"#.to_owned(),
        ] {
            assert!(matches!(of(std::slice::from_ref(&key)), Err(JwksError::Empty)), "{key}");
            assert!(of(&[key, format!(r#"{{{EC},"kid":"good"}}"#)]).unwrap().get("a").is_none());
        }
        assert!(matches!(KeySet::parse(b"[]"), Err(JwksError::Malformed)));
        assert!(matches!(KeySet::parse(b"{\"keys\":[]}"), Err(JwksError::Empty)));
    }
}
