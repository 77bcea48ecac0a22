//! `DescribeGrant`: the state of a grant, never a secret.

use std::time::SystemTime;

use super::{
    Broker, Error,
    candidate::{self, Sent},
    elsewhere::{self, Home},
    load::Known,
};
use crate::{
    failure::{FailureCause, ProviderReport},
    name::Scopes,
    policy::Permit,
    store::{GrantState, Material},
    token::Generation,
};

/// The state of a grant.
#[derive(Clone, Debug)]
pub struct Description {
    /// `None`: nothing is stored.
    pub state: Option<GrantState>,
    /// The revision.
    pub generation: Generation,
    /// When the current token ends.
    pub token_expires_at: Option<SystemTime>,
    /// The scopes that were granted.
    pub scopes: Scopes,
    /// The last failure since the last success.
    pub last_error: Option<FailureCause>,
    /// What the provider said of it.
    pub provider_report: Option<ProviderReport>,
    /// When the next refresh is allowed.
    pub next_attempt_at: Option<SystemTime>,
    /// A refresh was dispatched whose outcome is not known.
    pub outcome_unknown: bool,
    /// The grant was handed over and has not given a token yet.
    pub not_tried: bool,
    /// An imported refresh token waits beside the grant until the provider answers.
    pub import_pending: bool,
    /// Where the stored grant belongs, if the credential is configured for another token endpoint or client.
    pub elsewhere: Option<Home>,
}

impl Broker {
    /// Tells the state of a grant.
    ///
    /// # Errors
    ///
    /// [`Error`], when the credential does not exist or the store cannot be read.
    pub async fn describe_grant(&self, permit: Permit) -> Result<Description, Error> {
        let target = self.target_aside(&permit)?;
        let Known { loaded, token, epoch: _ } = self.core.read(&target).await?;
        let pending = candidate::pending(&self.core, &target).await?;
        let now = self.core.now();
        let stored = loaded.record.as_ref();
        let failure = stored.and_then(|record| record.failure).map(|failure| (failure.cause, failure.wait));
        let failure = failure.or(loaded.refusal.map(|refusal| (refusal.cause, refusal.wait)));
        let waits = failure.map(|(_, wait)| wait).filter(|wait| !wait.is_zero());
        let waits = waits.or(stored.and_then(|record| record.revival?.wait));
        Ok(Description {
            state: stored.filter(|record| !is_blank(&record.secrets.material, record.revision)).map(|r| r.state),
            generation: loaded.revision(),
            token_expires_at: token.and_then(|token| token.expiry).map(|expiry| expiry.deadline.wall()),
            scopes: stored.map(|record| record.secrets.scopes.clone()).unwrap_or_default(),
            last_error: failure.map(|(cause, _)| cause),
            provider_report: stored.and_then(|record| record.report.clone()),
            next_attempt_at: waits.map(|wait| now.after(wait).wall()),
            outcome_unknown: stored.is_some_and(|record| record.intent.is_some()) || pending == Some(Sent::Perhaps),
            not_tried: stored.is_some_and(|record| record.secrets.untried),
            import_pending: pending.is_some(),
            elsewhere: elsewhere::home(&target.credential, stored),
        })
    }
}

/// A record of which nothing is known but a failure.
fn is_blank(material: &Material, revision: Generation) -> bool {
    matches!(material, Material::Nothing) && revision == Generation::ZERO
}
