//! Reading the JSON Web Tokens of a Kubernetes cluster: which header is acceptable, and which claims.
//!
//! The algorithm is the key's (RFC 8725 §3.1): a header can only agree with it. Nothing in a header leads to a key but its
//! `kid`, which is looked up among the issuer's own.

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, dangerous, errors::ErrorKind};
use serde::Deserialize;

use super::IdentityError;
use crate::caller::ServiceAccount;

/// How far this machine's clock and the issuer's may be apart, in seconds.
const LEEWAY: u64 = 10;

/// Whose tokens are taken, and for whom they must be meant.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The issuer identifier, `iss`.
    pub issuer: String,
    /// What must be among `aud`.
    pub audience: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Origin {
    iss: String,
    exp: u64,
}

/// The key identifier of a token whose header is acceptable.
pub(super) fn key_id(token: &str) -> Result<String, IdentityError> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| bad(error.kind()))?;
    if leads_elsewhere(&header) {
        return Err(IdentityError::BadToken("its header names a key or demands an extension".to_owned()));
    }
    header.kid.ok_or_else(|| IdentityError::BadToken("its header names no key identifier".to_owned()))
}

/// A header that brings or points to a key of its sender's choice, or demands what is not understood here
/// (RFC 7515 §4.1).
fn leads_elsewhere(header: &Header) -> bool {
    let key = header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some();
    key || header.crit.is_some() || header.enc.is_some() || header.zip.is_some()
}

/// The ServiceAccount of a token that this key has signed, for us, and that is within its time.
pub(super) fn verify(
    token: &str,
    expected: &Expected,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Result<ServiceAccount, IdentityError> {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY;
    let verified = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|error| bad(error.kind()))?;
    Ok(ServiceAccount::new(&verified.claims.sub)?)
}

/// A look at a token whose signature is for somebody else to verify: whether it is worth asking them.
pub(super) fn is_worth_asking(token: &str, expected: &Expected, now: u64) -> Result<(), IdentityError> {
    key_id(token)?;
    let origin = dangerous::insecure_decode_claims::<Origin>(token).map_err(|error| bad(error.kind()))?;
    if origin.iss != expected.issuer {
        return Err(bad(&ErrorKind::InvalidIssuer));
    }
    if origin.exp.saturating_add(LEEWAY) < now { Err(bad(&ErrorKind::ExpiredSignature)) } else { Ok(()) }
}

/// The kind alone: some errors of the library repeat what they could not read.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may find new faults")]
fn bad(kind: &ErrorKind) -> IdentityError {
    let what = match kind {
        ErrorKind::InvalidToken => "it is no JSON Web Token",
        ErrorKind::InvalidSignature => "its signature is not that of the key",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "its algorithm is not that of the key",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, iss, aud or sub",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        _ => "it cannot be read",
    };
    IdentityError::BadToken(what.to_owned())
}
