//! Static secrets in the form of tokens. No provider gives a new one, so a rejected one is for people to replace.

use std::sync::Arc;

use super::{Error, Target};
use crate::{
    failure::FailureCause,
    grant::{StaticForm, static_secret},
    store::{Loaded, Material},
    token::{Token, Wanted},
};

/// The static secret of a grant as a token.
pub(super) fn token(target: &Target, form: &StaticForm, loaded: &Loaded, wanted: &Wanted) -> Result<Arc<Token>, Error> {
    let record = loaded.record.as_ref();
    let secret = match record.map(|record| &record.secrets.material) {
        Some(Material::Static(secret)) => secret,
        Some(Material::Nothing | Material::RefreshToken(_)) | None => return Err(Error::NoGrant),
    };
    let generation = loaded.revision();
    if generation <= wanted.refused {
        return Err(failed(who_must_act(target)));
    }
    let (value, kind) = static_secret::present(form, secret).map_err(|error| {
        tracing::warn!(credential = %target.credential.name, %error, "a static secret cannot be put on a request");
        failed(who_must_act(target))
    })?;
    let scopes = target.slot.key.scopes.clone();
    Ok(Arc::new(Token { value: value.into(), kind, generation, scopes, expiry: None }))
}

/// The operator put a configured secret there; an imported one belongs to its subject.
fn who_must_act(target: &Target) -> FailureCause {
    match target.credential.first_secret(&target.slot.key) {
        Some(_) => FailureCause::ClientConfigurationRejected,
        None => FailureCause::ReauthorizationRequired,
    }
}

fn failed(cause: FailureCause) -> Error {
    Error::Failed { cause, retry_after: None }
}
