//! The registered clients (RFC 6749 §2) and how they prove themselves.

use super::{
    assertion::Keys,
    form::Credentials,
    refusal::{ErrorWord, Refusal},
};
use crate::secret;

/// A confidential client with a secret: `client_secret_basic` or `client_secret_post`.
pub const DEMO_CONFIDENTIAL: &str = "demo-confidential";
/// The secret of [`DEMO_CONFIDENTIAL`].
pub const DEMO_SECRET: &str = "demo-secret";
/// A confidential client whose identifier and secret come through `client_secret_basic` only if the sender form-encodes
/// them first (RFC 6749 §2.3.1).
pub const DEMO_AWKWARD: &str = "demo:awkward";
/// The secret of [`DEMO_AWKWARD`].
pub const DEMO_AWKWARD_SECRET: &str = "50%25+ \"se:cret\" &=/\\";
/// A public client: it has only its identifier, and may not use `client_credentials`.
pub const DEMO_PUBLIC: &str = "demo-public";
/// A confidential client with `private_key_jwt`; it may also issue assertions for the `jwt-bearer` grant. Its private
/// key is made anew for every sandbox, see [`Sandbox::demo_key`](super::Sandbox::demo_key).
pub const DEMO_JWT: &str = "demo-jwt";

/// A client that the token endpoint talks to.
#[derive(Debug)]
pub(super) struct Client {
    /// The identifier.
    pub id: String,
    /// Whether it proved itself.
    pub authenticated: bool,
}

/// Checks who asks; `None` if nobody is named.
pub(super) fn identify(
    credentials: Credentials,
    keys: &mut Keys,
    audiences: &[&str],
) -> Result<Option<Client>, Refusal> {
    match credentials {
        Credentials::Absent => Ok(None),
        Credentials::Named { id } if is_known(&id, keys) => Ok(Some(Client { id, authenticated: false })),
        Credentials::Named { .. } => Err(ErrorWord::InvalidClient.because("the client is unknown")),
        Credentials::Secret { id, secret } => {
            if secret_of(&id).is_some_and(|right| secret::same(right, &secret)) {
                return Ok(Some(Client { id, authenticated: true }));
            }
            Err(ErrorWord::InvalidClient.because("the client is unknown, has no secret, or the secret is wrong"))
        }
        Credentials::Assertion { id, jwt } => {
            let claims = keys.accept(&jwt, audiences).map_err(|why| ErrorWord::InvalidClient.because(why))?;
            if claims.iss != claims.sub || id.is_some_and(|id| id != claims.sub) {
                return Err(ErrorWord::InvalidClient.because("iss, sub and client_id differ (RFC 7523 section 3)"));
            }
            Ok(Some(Client { id: claims.sub, authenticated: true }))
        }
    }
}

impl Client {
    /// Refuses a confidential client that did not authenticate (RFC 6749 §3.2.1).
    pub fn checked(self) -> Result<Self, Refusal> {
        if self.authenticated || self.id == DEMO_PUBLIC {
            Ok(self)
        } else {
            Err(ErrorWord::InvalidClient.because("this client has to authenticate"))
        }
    }
}

fn is_known(id: &str, keys: &Keys) -> bool {
    id == DEMO_PUBLIC || secret_of(id).is_some() || keys.knows(id)
}

fn secret_of(id: &str) -> Option<&'static str> {
    match id {
        DEMO_CONFIDENTIAL => Some(DEMO_SECRET),
        DEMO_AWKWARD => Some(DEMO_AWKWARD_SECRET),
        _ => None,
    }
}
