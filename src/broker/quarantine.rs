//! Answers that come after another revision was stored. The refresh token in one may be the only living one, so it is kept
//! beside the grant and tried once before the grant is given up.
//!
//! A commit ends the quarantine: the provider has just honoured the refresh token that the record holds, and a strict one
//! takes any other for stolen.

use tracing::{info, warn};

use super::{Core, Error, Target, attempt::Hold, decide};
use crate::{
    store::{
        AttemptId, Commit, GrantRecord, GrantSecrets, GrantState, Import, Loaded, Material, Quarantine, StoreError,
        UnitName, Written,
    },
    token::Generation,
};

/// Commits what the provider gave; if the revision moved meanwhile it is kept in quarantine. Can be repeated as a whole.
pub(super) async fn commit_or_keep(core: &Core, commit: &Commit<'_>) -> Result<Written, StoreError> {
    let may_be_the_last = matches!(commit.secrets.material, Material::RefreshToken(_));
    let mut written = core.store.commit(commit).await?;
    if written == Written::Moved && may_be_the_last {
        written = core.commit_over_older(commit).await?;
    }
    match written {
        Written::Done => core.lately.committed(commit),
        Written::Moved if may_be_the_last => keep(core, commit).await?,
        Written::Moved => {}
    }
    Ok(written)
}

async fn keep(core: &Core, commit: &Commit<'_>) -> Result<(), StoreError> {
    let unit = &commit.place.unit;
    let Commit { expected, next, secrets, .. } = *commit;
    if core.store.quarantine(&Quarantine { unit, expected, next, secrets }).await? == Written::Moved {
        info!(?unit, "an answer came too late for a grant that was replaced; it is dropped");
        return Ok(());
    }
    warn!(?unit, "an answer came after another one was stored; it is kept in case that one proves to be no good");
    let loaded = core.store.load(commit.place).await?;
    let dead = loaded.record.as_ref().filter(|record| matches!(record.state, GrantState::Dead(_)));
    if let Some((record, spare)) = dead.and_then(|record| Some((record, decide::spare(record, &secrets.binding)?))) {
        // It has proved so already. Under an attempt of its own: a commit that is repeated must not be taken for this.
        adopt(core, unit, &AttemptId::random(), record, spare, loaded.next).await?;
    }
    Ok(())
}

/// Looks into the record once more after an `invalid_grant`, under the same lease. True: it is about a refresh token of
/// yesterday, or there is another one to try.
pub(super) async fn is_something_left(core: &Core, target: &Target, hold: &Hold) -> Result<bool, Error> {
    let place = &target.slot.place;
    let loaded = core.store.load(place).await?;
    if loaded.revision() != hold.revision() {
        return Ok(true);
    }
    let Loaded { record: Some(record), next, token: _ } = &loaded else { return Ok(false) };
    let Some(spare) = decide::spare(record, &target.credential.binding()) else { return Ok(false) };
    adopt(core, &place.unit, &hold.attempt, record, spare, *next).await?;
    Ok(true)
}

async fn adopt(
    core: &Core,
    unit: &UnitName,
    attempt: &AttemptId,
    record: &GrantRecord,
    spare: &GrantSecrets,
    next: Generation,
) -> Result<(), StoreError> {
    // The seeds that were taken over stay those of the record: they only grow.
    let secrets = GrantSecrets { seeds: record.secrets.seeds.clone(), ..spare.clone() };
    let adopt = Import { unit, attempt, expected: record.revision, next, secrets: &secrets };
    if core.store.adopt(&adopt).await? == Written::Done {
        core.lately.imported(&adopt);
        warn!(?unit, "the provider refused the stored refresh token; one that came too late takes its place");
    }
    Ok(())
}
