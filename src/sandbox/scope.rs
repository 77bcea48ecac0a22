//! Scopes: what there is, and who gets which (RFC 6749 §3.3).

use super::refusal::{ErrorWord, Refusal};
use crate::name::Scopes;

/// What a person consents to when a grant is made.
pub(super) const CONSENTED: [&str; 2] = ["read", "write"];

/// What a client or an assertion's issuer may ask for, and what it gets when it asks for nothing in particular.
const OWN: [&str; 3] = ["read", "write", "admin"];
const OWN_DEFAULT: [&str; 1] = ["read"];

/// The scopes for a request that no person's consent limits.
pub(super) fn own(requested: Option<&str>) -> Result<Scopes, Refusal> {
    within(requested, &Scopes::granted(OWN), &Scopes::granted(OWN_DEFAULT))
}

/// The scopes that are granted to someone who asks for `requested` and may have `allowed` (RFC 6749 §3.3).
pub(super) fn within(requested: Option<&str>, allowed: &Scopes, default: &Scopes) -> Result<Scopes, Refusal> {
    let Some(requested) = requested else { return Ok(default.clone()) };
    let malformed = ErrorWord::InvalidScope.because("the scope is malformed (RFC 6749 section 3.3)");
    let requested = Scopes::new(requested.split(' ')).map_err(|_| malformed)?;
    if requested.iter().all(|one| allowed.iter().any(|other| one == other)) {
        Ok(requested)
    } else {
        Err(ErrorWord::InvalidScope.because("a scope is unknown, or exceeds what was granted"))
    }
}
