//! `ImportGrant`: a refresh token or a static secret is handed over for one subject.

use super::{Broker, Error, Target, candidate};
use crate::{
    grant::{Grant, StaticForm, static_secret},
    name::Scopes,
    policy::Permit,
    secret::{ExposeSecret, SecretString},
    store::{AttemptId, GrantRecord, GrantSecrets, Import, Material, Written},
    token::Generation,
};

/// A grant that is handed over.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The secret.
    pub material: Material,
    /// The scopes that were granted with it.
    pub scopes: Scopes,
    /// Whether a refresh token replaces what is stored only after it has given a token. No provider can be asked about a
    /// static secret.
    pub verify: bool,
}

/// Others may write at the same moment; that often in a row they do not.
const TRIES: usize = 8;

/// In bytes. A store reads records up to a limit only, so what it could not read back must not get in.
const MAX_SECRET: usize = 64 * 1024;

impl Broker {
    /// Stores a grant and returns its generation; a refresh token that is to be verified only if it gives a token.
    ///
    /// # Errors
    ///
    /// [`Error`], when the credential does not take such a secret, or the store does not.
    pub async fn import_grant(&self, permit: Permit, import: Imported) -> Result<Generation, Error> {
        let target = self.target_aside(&permit)?;
        check(&target.credential.grant, &import.material)?;
        match &import.material {
            Material::RefreshToken(token) if import.verify => {
                self.core.verify(target, token.clone(), import.scopes).await
            }
            Material::RefreshToken(token) => {
                candidate::refuse_presented(&self.core, &target, token).await?;
                candidate::withdraw(&self.core, &target).await?;
                self.store_untried(&target, &import).await
            }
            Material::Static(_) | Material::Nothing => self.store_untried(&target, &import).await,
        }
    }

    async fn store_untried(&self, target: &Target, import: &Imported) -> Result<Generation, Error> {
        for _ in 0..TRIES {
            let loaded = self.core.read(target).await?.loaded;
            let secrets = self.secrets(target, loaded.record.as_ref(), import);
            let write = Import {
                unit: &target.slot.place.unit,
                attempt: &AttemptId::random(),
                expected: loaded.revision(),
                next: loaded.next,
                secrets: &secrets,
            };
            if self.core.store.import(&write).await? == Written::Done {
                self.core.lately.imported(&write);
                tracing::info!(credential = %target.credential.name, generation = %loaded.next, "a grant was imported");
                return Ok(loaded.next);
            }
        }
        Err(Error::StoreUnavailable("the grant kept changing while it was imported".into()))
    }

    fn secrets(&self, target: &Target, record: Option<&GrantRecord>, import: &Imported) -> GrantSecrets {
        GrantSecrets {
            material: import.material.clone(),
            scopes: import.scopes.clone(),
            scopes_known: !import.scopes.is_empty(),
            subject: Some(target.slot.key.grant.subject.clone()),
            binding: target.credential.bindings().own().to_owned(),
            issuer: target.credential.bindings().issuer().map(str::to_owned),
            seeds: candidate::seeds(&self.core, target, record),
            presented: candidate::presented_so_far(self.core.store.names(), record),
            untried: matches!(import.material, Material::RefreshToken(_)),
        }
    }
}

fn check(grant: &Grant, material: &Material) -> Result<(), Error> {
    match (grant, material) {
        (Grant::RefreshToken { .. }, Material::RefreshToken(token)) => check_refresh_token(token),
        (Grant::Static { form, first: _ }, Material::Static(secret)) => check_static_secret(form, secret),
        (Grant::RefreshToken { .. }, Material::Static(_) | Material::Nothing) => {
            Err(Error::invalid("secret", "this credential takes a refresh_token"))
        }
        (Grant::Static { .. }, Material::RefreshToken(_) | Material::Nothing) => {
            Err(Error::invalid("secret", "this credential takes a static_secret"))
        }
        (Grant::ClientCredentials(_) | Grant::JwtBearer { .. }, _) => {
            Err(Error::invalid("credential", "this credential asks for tokens by itself; nothing is imported"))
        }
    }
}

fn check_static_secret(form: &StaticForm, secret: &SecretString) -> Result<(), Error> {
    if secret.expose_secret().len() > MAX_SECRET {
        return Err(Error::invalid("static_secret", "has at most 65536 bytes"));
    }
    let fits = static_secret::present(form, secret).map(drop);
    fits.map_err(|error| Error::invalid("static_secret", error.to_string()))
}

/// RFC 6749, appendix A.17: visible characters and spaces.
fn check_refresh_token(token: &SecretString) -> Result<(), Error> {
    let text = token.expose_secret();
    let good = !text.is_empty() && text.len() <= MAX_SECRET && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    if good { Ok(()) } else { Err(Error::invalid("refresh_token", "has 1 to 65536 printable ASCII characters")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::decide::samples::rotating;

    #[test]
    fn a_secret_is_taken_up_to_a_length() {
        let fixed = |form| Grant::Static { form, first: None };
        let header = http::HeaderName::from_static("x-api-key");
        for (grant, material) in [
            (rotating(), Material::RefreshToken as fn(SecretString) -> Material),
            (fixed(StaticForm::Bearer), Material::Static),
            (fixed(StaticForm::ApiKey { header }), Material::Static),
            (fixed(StaticForm::Basic { username: "demo".to_owned() }), Material::Static),
        ] {
            let taken = |length| check(&grant, &material("s".repeat(length).into())).is_ok();
            let lengths = [0, 1, MAX_SECRET, MAX_SECRET + 1];
            assert_eq!(lengths.map(taken), [false, true, true, false], "{grant:?}");
        }
    }
}
