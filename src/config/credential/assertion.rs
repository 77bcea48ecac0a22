//! Signed assertions: the key of one, and what a bearer assertion says.

use std::time::Duration;

use jsonwebtoken::Algorithm;

use crate::{
    config::{
        reader::Reader,
        value::{Wrong, some_time, string},
    },
    grant::{BearerAssertion, Endpoint, Signer},
    secret::ExposeSecret,
};

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads a private key; the names are those of the key, its algorithm and its identifier.
pub(super) fn signer(reader: &Reader<'_>, names: [&'static str; 3]) -> Option<Signer> {
    let [key, algorithm, key_id] = names;
    let pem = reader.required_text(key);
    let algorithm = reader.choose(algorithm, ALGORITHMS, Some("RS256"));
    let key_id = reader.optional(key_id, string);
    let (pem, algorithm) = (pem?, algorithm?);
    let signer = Signer::from_pem(&pem, algorithm, key_id);
    let wrong = |error: crate::grant::assertion::SignerError| {
        let value = reader.value(key)?;
        let right = instead_of_a_key(pem.expose_secret()).map_or_else(|| error.to_string(), str::to_owned);
        reader.wrong(key, Wrong::new(value, "refers to no key for this", right));
        None
    };
    signer.map_or_else(wrong, Some)
}

/// What to do about a text that is known to be something else than a private key.
fn instead_of_a_key(text: &str) -> Option<&'static str> {
    let label = text.trim_start().strip_prefix("-----BEGIN ").and_then(|rest| rest.split("-----").next());
    match label {
        Some("ENCRYPTED PRIVATE KEY") => Some("the key is encrypted: decrypt it with `openssl pkcs8 -in FILE`"),
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => Some("this is a public key: put the private one there"),
        Some("CERTIFICATE") => Some("this is a certificate: put its private key there"),
        None if text.trim_start().starts_with('{') => {
            Some("this is JSON: put the PEM there, which in a Google key file is the value of private_key")
        }
        Some(_) | None => None,
    }
}

/// Reads the assertion that is the grant itself (RFC 7523 §2.1).
pub(super) fn bearer(reader: &Reader<'_>, endpoint: Option<&Endpoint>) -> Option<BearerAssertion> {
    let signer = signer(reader, ["assertion_key", "assertion_algorithm", "assertion_key_id"]);
    let issuer = reader.optional("assertion_issuer", string);
    let audience = reader.optional("assertion_audience", string);
    let subject = reader.optional("assertion_subject", string);
    let lifetime = reader.optional("assertion_lifetime", some_time).unwrap_or(Duration::from_secs(180));
    Some(BearerAssertion {
        signer: signer?,
        issuer: issuer.or_else(|| endpoint.map(|endpoint| endpoint.client.id.clone()))?,
        audience: audience.or_else(|| endpoint.map(|endpoint| endpoint.token_url.to_string()))?,
        subject,
        lifetime,
    })
}
