//! Signed assertions: for the client (RFC 7523 §2.2) and as the grant itself (RFC 7523 §2.1).

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde::Serialize;

use crate::{
    grant::{BearerAssertion, ClientAssertion, Signer},
    name::Subject,
    secret::{ExposeSecret, SecretString},
};

/// The algorithms that assertions can be signed with: only those with a private key (RFC 7518 §3.1, RFC 8037 §3.1).
pub const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The algorithm is not one of [`ALGORITHMS`].
    #[error("assertions are signed with RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA")]
    Algorithm,
    /// The key cannot be used with the algorithm.
    #[error(
        "the key is not an unencrypted private key in PEM form (PKCS #8, \"BEGIN PRIVATE KEY\") that fits the algorithm; \
         RSA keys need at least 2048 bits"
    )]
    Key,
    /// The signature failed, or the machine gave no random numbers.
    #[error("the signature failed")]
    Signing,
}

/// Reads an algorithm's name, one of [`ALGORITHMS`]. `none` and the symmetric ones are not among them, because whoever
/// verifies such an assertion could also make one.
///
/// # Errors
///
/// [`SignerError::Algorithm`] for any other text.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, SignerError> {
    if !ALGORITHMS.contains(&name) {
        return Err(SignerError::Algorithm);
    }
    name.parse().map_err(|_| SignerError::Algorithm)
}

impl Signer {
    /// Takes a private key, and signs once with it: a key that does not fit is found here, not at the first request.
    ///
    /// # Errors
    ///
    /// [`SignerError::Algorithm`] for a symmetric algorithm, [`SignerError::Key`] for a key that does not fit.
    pub fn from_pem(pem: &SecretString, algorithm: Algorithm, key_id: Option<String>) -> Result<Self, SignerError> {
        let bytes = pem.expose_secret().as_bytes();
        let key = match algorithm.family() {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes),
            AlgorithmFamily::Hmac => return Err(SignerError::Algorithm),
        };
        let signer = Self { key: key.map_err(|_| SignerError::Key)?, algorithm, key_id };
        signer.sign("JWT", &()).map_err(|_| SignerError::Key)?;
        Ok(signer)
    }

    /// Signs claims under a header with this `typ`.
    fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<SecretString, SignerError> {
        let header = Header { typ: Some(typ.to_owned()), kid: self.key_id.clone(), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).map(Into::into).map_err(|_| SignerError::Signing)
    }
}

impl ClientAssertion {
    /// Signs a new assertion for this client. Its type says what it is for, so that it can be taken for no other JWT
    /// of the same key (RFC 8725 §3.11).
    ///
    /// # Errors
    ///
    /// [`SignerError::Signing`].
    pub fn sign(&self, client_id: &str, now: SystemTime) -> Result<SecretString, SignerError> {
        let claims = Claims::new(client_id, client_id, &self.audience, self.lifetime, now)?;
        self.signer.sign("client-authentication+jwt", &claims)
    }
}

impl BearerAssertion {
    /// Signs a new assertion on behalf of a subject; for the service itself, of the configured one or of the issuer.
    ///
    /// # Errors
    ///
    /// [`SignerError::Signing`].
    pub fn sign(&self, subject: &Subject, now: SystemTime) -> Result<SecretString, SignerError> {
        let configured = self.subject.as_deref().unwrap_or(&self.issuer);
        let subject = if subject.is_service() { configured } else { subject.as_str() };
        self.signer.sign("JWT", &Claims::new(&self.issuer, subject, &self.audience, self.lifetime, now)?)
    }
}

/// RFC 7523 §3. Times are seconds since 1970.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    /// One string, never a list: an assertion is for one provider.
    aud: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

/// How far an assertion is dated back: a provider whose clock is behind ours refuses one from its future. The end is not
/// moved away from it, because some providers bound how long an assertion may be valid.
const LEEWAY: Duration = Duration::from_secs(10);

impl<'a> Claims<'a> {
    fn new(iss: &'a str, sub: &'a str, aud: &'a str, lifetime: Duration, now: SystemTime) -> Result<Self, SignerError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let iat = now.saturating_sub(LEEWAY.min(lifetime / 6)).as_secs();
        Ok(Self { iss, sub, aud, jti: random_id()?, iat, exp: iat.saturating_add(lifetime.as_secs()) })
    }
}

/// 128 random bits, so that no provider ever sees an identifier twice (RFC 7519 §4.1.7).
fn random_id() -> Result<String, SignerError> {
    let mut bits = [0; 16];
    rand::fill(&mut bits).map_err(|_| SignerError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

/// Keys that exist for the length of one test, and a verifier that is not our own.
#[cfg(test)]
pub(super) mod testing {
    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
        rsa,
        signature::{EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _},
    };
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::Value;

    use super::*;

    pub(crate) fn pem(label: &str, der: &[u8]) -> SecretString {
        let base64 = STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into()
    }

    pub(crate) fn ed25519() -> (Signer, DecodingKey) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        let signer = Signer::from_pem(&private, Algorithm::EdDSA, Some("key-1".to_owned())).unwrap();
        (signer, DecodingKey::from_ed_der(pair.public_key().as_ref()))
    }

    pub(super) fn ec(curve: &'static EcdsaSigningAlgorithm) -> (SecretString, DecodingKey) {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let private = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        (private, DecodingKey::from_ec_der(pair.public_key().as_ref()))
    }

    pub(super) fn rsa() -> (SecretString, SecretString, DecodingKey) {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let public = pem("PUBLIC KEY", public.as_ref());
        let key = DecodingKey::from_rsa_pem(public.expose_secret().as_bytes()).unwrap();
        (pem("PRIVATE KEY", private.as_ref()), public, key)
    }

    /// Checks the signature and returns header and claims.
    pub(crate) fn verified(jwt: &str, key: &DecodingKey, algorithm: Algorithm) -> (Header, Value) {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let token = decode::<Value>(jwt, key, &validation).unwrap();
        (token.header, token.claims)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING};
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn without_jti(mut claims: Value) -> Value {
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(jti.as_str().unwrap()).unwrap().len(), 16);
        claims
    }

    #[test]
    fn every_algorithm_signs_what_its_public_key_verifies() {
        let (rsa, _, rsa_public) = testing::rsa();
        let (p256, p256_public) = testing::ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let (p384, p384_public) = testing::ec(&ECDSA_P384_SHA384_FIXED_SIGNING);
        for name in ALGORITHMS {
            let algorithm = parse_algorithm(name).unwrap();
            let (private, public) = match *name {
                "ES256" => (&p256, &p256_public),
                "ES384" => (&p384, &p384_public),
                "EdDSA" => continue,
                _ => (&rsa, &rsa_public),
            };
            let signer = Signer::from_pem(private, algorithm, None).unwrap();
            let jwt = signer.sign("JWT", &json!({"a": 1})).unwrap();
            let (header, claims) = testing::verified(jwt.expose_secret(), public, algorithm);
            assert_eq!((header.alg, header.kid, claims), (algorithm, None, json!({"a": 1})), "{name}");
        }
    }

    #[test]
    fn no_other_algorithm_is_known() {
        for name in ["none", "HS256", "HS384", "HS512", "ES512", "rs256", ""] {
            assert_eq!(parse_algorithm(name), Err(SignerError::Algorithm), "{name}");
        }
    }

    #[test]
    fn a_key_that_does_not_fit_is_found_at_once() {
        let (rsa, rsa_public, _) = testing::rsa();
        let (p256, _) = testing::ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let garbage = testing::pem("PRIVATE KEY", &[0x30, 0x03, 0x02, 0x01, 0x00]);
        for (pem, algorithm, error) in [
            (&rsa, Algorithm::HS256, SignerError::Algorithm),
            (&rsa, Algorithm::ES256, SignerError::Key),
            (&rsa, Algorithm::EdDSA, SignerError::Key),
            (&p256, Algorithm::RS256, SignerError::Key),
            (&p256, Algorithm::ES384, SignerError::Key),
            (&rsa_public, Algorithm::RS256, SignerError::Key),
            (&garbage, Algorithm::RS256, SignerError::Key),
            (&garbage, Algorithm::ES256, SignerError::Key),
            (&"no key".into(), Algorithm::EdDSA, SignerError::Key),
        ] {
            let refused = Signer::from_pem(pem, algorithm, None).unwrap_err();
            assert_eq!(refused, error, "{algorithm:?}");
        }
    }

    #[test]
    fn a_client_assertion_speaks_for_the_client_alone() {
        let (signer, key) = testing::ed25519();
        let assertion =
            ClientAssertion { signer, audience: "https://as.example".to_owned(), lifetime: Duration::from_secs(60) };
        let jwt = assertion.sign("client", at(1_000)).unwrap();
        let (header, claims) = testing::verified(jwt.expose_secret(), &key, Algorithm::EdDSA);
        assert_eq!(header.typ.as_deref(), Some("client-authentication+jwt"));
        assert_eq!(header.kid.as_deref(), Some("key-1"));
        assert_eq!(
            without_jti(claims),
            json!({"iss": "client", "sub": "client", "aud": "https://as.example", "iat": 990, "exp": 1_050})
        );
        assert_ne!(jwt.expose_secret(), assertion.sign("client", at(1_000)).unwrap().expose_secret());
    }

    #[test]
    fn a_bearer_assertion_names_the_nearest_subject() {
        let (signer, key) = testing::ed25519();
        for (caller, configured, sub) in
            [("jane", Some("robot"), "jane"), ("", Some("robot"), "robot"), ("", None, "issuer")]
        {
            let assertion = BearerAssertion {
                signer: signer.clone(),
                issuer: "issuer".to_owned(),
                audience: "aud".to_owned(),
                subject: configured.map(str::to_owned),
                lifetime: Duration::from_secs(300),
            };
            let jwt = assertion.sign(&Subject::new(caller).unwrap(), at(10)).unwrap();
            let (header, claims) = testing::verified(jwt.expose_secret(), &key, Algorithm::EdDSA);
            assert_eq!(header.typ.as_deref(), Some("JWT"));
            assert_eq!(without_jti(claims), json!({"iss": "issuer", "sub": sub, "aud": "aud", "iat": 0, "exp": 300}));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let (signer, _) = testing::ed25519();
        assert_eq!(format!("{signer:?}"), "Signer(EdDSA, key Some(\"key-1\"))");
    }
}
