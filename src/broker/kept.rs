//! Refresh tokens out of answers that give no access token, or that refuse. The provider has issued them, and a strict one
//! takes the former refresh token for stolen from then on; so they are stored, whatever else is wrong with their answer.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Core, Error, Target,
    attempt::{self, Hold},
    commit,
};
use crate::{
    failure::{FailureCause, ProviderReport},
    grant::answer::{Answer, Kept},
    provider::SendError,
    store::{AttemptId, Import, Material, Quarantine, Settle, StoreError, Verdict, Written},
    token::Token,
};

/// Stores a refresh token in place of the one that was sent, and notes why there is no access token. Where the provider's
/// answer does not prove that it acted, the one that was sent is kept in quarantine: it is tried if the new one proves to be
/// no good.
pub(super) async fn store(
    core: &Arc<Core>,
    target: &Target,
    hold: Hold,
    kept: &Kept,
    (cause, wait, report): (FailureCause, Duration, Option<&ProviderReport>),
) -> Result<Option<Arc<Token>>, Error> {
    attempt::count(core, target, cause.word());
    target.slot.set_degraded(true);
    let (unit, attempt) = (&target.slot.place.unit, &hold.attempt);
    let secrets = commit::secrets(
        core.store.names(),
        target,
        hold.record.as_ref(),
        Some(&kept.refresh_token),
        kept.scopes.as_ref(),
    );
    let adopt = Import { unit, attempt, expected: hold.revision(), next: hold.next, secrets: &secrets };
    if let Err(error) = adopt_until_stored(core, &adopt).await {
        attempt::release(core, target, &hold).await;
        return Err(error.into());
    }
    let credential = &target.credential.name;
    info!(%credential, generation = %hold.next, "refresh token stored; its answer gave no access token");
    if let Some(former) = hold.record.as_ref().filter(|_| !kept.certain) {
        let secrets = &former.secrets;
        let attempt = &AttemptId::random();
        let spare = Quarantine { unit, attempt, expected: hold.next, next: hold.next, secrets };
        if let Err(error) = core.store.quarantine(&spare).await {
            warn!(%credential, %error, "the former refresh token could not be kept beside the new one");
        }
    }
    let verdict = Verdict::BackOff { wait };
    let settle = Settle { unit, attempt, expected: hold.next, verdict, cause, report, early: hold.is_early() };
    if let Err(error) = core.store.settle(&settle).await {
        warn!(%credential, %error, "a failure could not be noted; the next caller asks sooner");
    }
    Err(Error::Failed { cause, retry_after: Some(wait) })
}

/// Repeats the write until the store has taken it, or a newer revision is there: then the refresh token is kept beside that.
async fn adopt_until_stored(core: &Core, adopt: &Import<'_>) -> Result<(), StoreError> {
    let mut wait = commit::COMMIT_RETRY_FIRST;
    loop {
        match adopt_or_keep(core, adopt).await {
            Err(StoreError::Unavailable(cause)) => {
                warn!(unit = ?adopt.unit, %cause, "storing a refresh token failed; trying again");
            }
            done @ (Ok(()) | Err(StoreError::Unreadable(_) | StoreError::Open(_))) => return done,
        }
        sleep(wait).await;
        wait = (wait * 2).min(commit::COMMIT_RETRY_LONGEST);
    }
}

async fn adopt_or_keep(core: &Core, adopt: &Import<'_>) -> Result<(), StoreError> {
    match core.store.adopt(adopt).await? {
        Written::Done => core.lately.imported(adopt),
        Written::Moved => keep(core, adopt).await?,
    }
    Ok(())
}

async fn keep(core: &Core, adopt: &Import<'_>) -> Result<(), StoreError> {
    let Import { unit, attempt, expected, next, secrets } = *adopt;
    core.store.quarantine(&Quarantine { unit, attempt, expected, next, secrets }).await.map(drop)
}

/// Keeps the refresh token of a refusal beside the grant: the provider states that it did not act, so the record's own goes
/// before it.
pub(super) async fn beside_refusal(core: &Core, target: &Target, hold: &Hold, answer: &Result<Answer, SendError>) {
    let Ok(Answer::Refused(refusal)) = answer else { return };
    let Some(kept) = &refusal.kept else { return };
    let secrets = commit::secrets(
        core.store.names(),
        target,
        hold.record.as_ref(),
        Some(&kept.refresh_token),
        kept.scopes.as_ref(),
    );
    if matches!(secrets.material, Material::Nothing) {
        return;
    }
    let (unit, attempt) = (&target.slot.place.unit, &hold.attempt);
    let beside = Import { unit, attempt, expected: hold.revision(), next: hold.next, secrets: &secrets };
    match keep(core, &beside).await {
        Ok(()) => warn!(credential = %target.credential.name, "a refusal came with a refresh token; quarantining it"),
        Err(error) => warn!(credential = %target.credential.name, %error, "quarantining a refresh token failed"),
    }
}
