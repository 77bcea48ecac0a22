//! Assertions (RFC 7523 §3): registered public keys, and JWTs that are verified with them and accepted once.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, dangerous::insecure_decode_claims, decode};
use serde::Deserialize;

use crate::secret::SecretString;

/// An `exp` farther away is refused ("unreasonably far in the future", RFC 7523 §3 item 4): it catches milliseconds
/// that are taken for seconds, and it bounds how long an identifier must be remembered.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// Why a public key is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The algorithm uses a shared secret, which cannot be a public key.
    #[error("the algorithm has no public key")]
    Symmetric,
    /// The text is not the PEM of a public key that the algorithm can use.
    #[error("this is not a public key in PEM for the algorithm")]
    Unreadable,
}

/// A key pair for ES256 (RFC 7518 §3.4), made at run time so that no private key stands in any file.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The private key, PKCS #8 in PEM.
    pub private_pem: SecretString,
    /// The public key, SubjectPublicKeyInfo in PEM.
    pub public_pem: String,
}

impl KeyPair {
    /// Makes a new pair.
    ///
    /// # Errors
    /// Only if the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
        Ok(Self {
            private_pem: pem("PRIVATE KEY", pair.to_pkcs8v1()?.as_ref()).into(),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        })
    }
}

/// The registered keys and the assertions that were accepted with them.
#[derive(Default)]
pub(super) struct Keys {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
    /// When each accepted (`iss`, `jti`) may be forgotten, in seconds of the epoch.
    accepted: HashMap<(String, String), f64>,
}

/// What a good assertion says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    /// Who signed.
    pub iss: String,
    /// On whose behalf.
    pub sub: String,
    /// A NumericDate may have a fraction (RFC 7519 §2).
    exp: f64,
    jti: Option<String>,
}

impl Keys {
    /// Registers the public key of an issuer in place of the one before.
    pub fn register(&mut self, issuer: &str, pem: &str, algorithm: Algorithm) -> Result<(), KeyError> {
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => return Err(KeyError::Symmetric),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        self.keys.insert(issuer.to_owned(), (algorithm, key.map_err(|_| KeyError::Unreadable)?));
        Ok(())
    }

    /// Whether a key is registered for this issuer.
    pub fn knows(&self, issuer: &str) -> bool {
        self.keys.contains_key(issuer)
    }

    /// Verifies an assertion and remembers its `jti`. The error says what is wrong with it.
    pub fn accept(&mut self, jwt: &str, audiences: &[&str]) -> Result<Claims, &'static str> {
        #[derive(Deserialize)]
        struct Signer {
            iss: String,
        }
        // Read before the signature is verified, and used for nothing but to find the key that verifies it.
        let signer: Signer = insecure_decode_claims(jwt).map_err(|_| "the assertion is not a JWT with an iss")?;
        let (algorithm, key) = self.keys.get(&signer.iss).ok_or("no key is registered for the assertion's iss")?;
        let claims = decode::<Claims>(jwt, key, &validation(*algorithm, audiences))
            .map_err(|_| "the assertion's signature, algorithm, aud, exp, nbf, iss or sub is wrong")?
            .claims;
        self.accept_once(claims)
    }

    fn accept_once(&mut self, claims: Claims) -> Result<Claims, &'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if claims.exp > now + LONGEST_LIFE.as_secs_f64() {
            return Err("the assertion's exp is more than an hour away");
        }
        self.accepted.retain(|_, exp| now <= *exp + 1.0);
        if let Some(jti) = &claims.jti {
            let before = self.accepted.insert((claims.iss.clone(), jti.clone()), claims.exp);
            if before.is_some() {
                return Err("the assertion was used before");
            }
        }
        Ok(claims)
    }
}

fn validation(algorithm: Algorithm, audiences: &[&str]) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(audiences);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.validate_nbf = true;
    // Both sides read the same clock.
    validation.leeway = 0;
    validation
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::secret::ExposeSecret;

    fn sign(pair: &KeyPair, claims: &Value) -> String {
        let key = EncodingKey::from_ec_pem(pair.private_pem.expose_secret().as_bytes()).unwrap();
        encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = json!({ "iss": "i", "sub": "s", "aud": "here", "exp": get_current_timestamp() + 60 });
        claims[name] = value;
        claims
    }

    #[test]
    fn only_a_sound_assertion_is_accepted() {
        let (pair, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut keys = Keys::default();
        keys.register("i", &pair.public_pem, Algorithm::ES256).unwrap();
        let now = get_current_timestamp();
        let cases = [
            (with("aud", json!("here")), true),
            (with("aud", json!(["there", "here"])), true),
            (with("exp", json!(now as f64 + 30.5)), true),
            (with("aud", json!("there")), false),
            (with("aud", Value::Null), false),
            (with("exp", json!(now - 2)), false),
            (with("exp", json!(now * 1000)), false),
            (with("exp", Value::Null), false),
            (with("nbf", json!(now + 100)), false),
            (with("iss", json!("unknown")), false),
            (with("iss", Value::Null), false),
            (with("sub", Value::Null), false),
        ];
        for (claims, good) in cases {
            assert_eq!(keys.accept(&sign(&pair, &claims), &["here"]).is_ok(), good, "{claims}");
        }
        assert!(keys.accept(&sign(&other, &with("aud", json!("here"))), &["here"]).is_err());
        let shared = EncodingKey::from_secret(pair.public_pem.as_bytes());
        let confused = encode(&Header::new(Algorithm::HS256), &with("aud", json!("here")), &shared).unwrap();
        assert!(keys.accept(&confused, &["here"]).is_err());
        for garbage in ["", "..", "a.b.c", "e30.e30.e30", "\u{0}"] {
            assert!(keys.accept(garbage, &["here"]).is_err());
        }
    }

    #[test]
    fn an_assertion_with_an_identifier_is_accepted_once() {
        let (pair, mut keys) = (KeyPair::generate().unwrap(), Keys::default());
        keys.register("i", &pair.public_pem, Algorithm::ES256).unwrap();
        let named = sign(&pair, &with("jti", json!("1")));
        assert!(keys.accept(&named, &["here"]).is_ok());
        assert!(keys.accept(&named, &["here"]).is_err());
        assert!(keys.accept(&sign(&pair, &with("jti", json!("2"))), &["here"]).is_ok());
        let unnamed = sign(&pair, &with("jti", Value::Null));
        assert!(keys.accept(&unnamed, &["here"]).is_ok() && keys.accept(&unnamed, &["here"]).is_ok());
    }

    #[test]
    fn what_is_no_public_key_is_not_registered() {
        let (pair, mut keys) = (KeyPair::generate().unwrap(), Keys::default());
        assert_eq!(keys.register("i", &pair.public_pem, Algorithm::HS256), Err(KeyError::Symmetric));
        assert_eq!(keys.register("i", "no pem", Algorithm::ES256), Err(KeyError::Unreadable));
        assert_eq!(keys.register("i", &pair.public_pem, Algorithm::RS256), Err(KeyError::Unreadable));
        assert!(!keys.knows("i"));
    }
}
