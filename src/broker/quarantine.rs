//! Answers that come after another revision was stored. The refresh token in one may be the only living one, so it is kept
//! beside the grant and tried once before the grant is given up.
//!
//! A commit ends the quarantine: the provider has just honoured the refresh token that the record holds, and a strict one
//! takes any other for stolen.

use tracing::{info, warn};

use super::{Core, Error, Target, attempt::Hold, candidate, decide};
use crate::{
    grant::Bindings,
    store::{
        AttemptId, Commit, GrantRecord, GrantSecrets, GrantState, Import, Loaded, Material, Place, Quarantine,
        StoreError, UnitName, Written,
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
    let Commit { attempt, expected, next, secrets, .. } = *commit;
    if core.store.quarantine(&Quarantine { unit, attempt, expected, next, secrets }).await? == Written::Moved {
        info!(?unit, "an answer came too late: its grant was replaced, or it was stored before; it is dropped");
        return Ok(());
    }
    warn!(?unit, "an answer came after another one was stored; it is kept in case that one proves to be no good");
    revive(core, commit.place, &Bindings::from(&*secrets.binding)).await
}

/// Gives a grant that died what is kept for it. An answer can be kept in the very moment in which the grant dies, and
/// whoever should have looked then may have ended.
pub(super) async fn revive(core: &Core, place: &Place, bindings: &Bindings) -> Result<(), StoreError> {
    let loaded = core.store.load(place).await?;
    let found = loaded.record.as_ref().and_then(|record| Some((record, remedy(record, bindings)?)));
    let Some((record, spare)) = found else { return Ok(()) };
    // Under an attempt of its own: a commit that is repeated must not be taken for this.
    adopt(core, &place.unit, &AttemptId::random(), record, spare, loaded.next).await
}

/// What is kept for a grant, if it is dead.
pub(super) fn remedy<'a>(record: &'a GrantRecord, bindings: &Bindings) -> Option<&'a GrantSecrets> {
    match record.state {
        GrantState::Dead(_) => decide::spare(record, bindings),
        GrantState::Active => None,
    }
}

/// Looks into the record once more after an `invalid_grant`, under the same lease. True: it is about a refresh token of
/// yesterday, or there is another one to try.
pub(super) async fn is_something_left(core: &Core, target: &Target, hold: &Hold) -> Result<bool, Error> {
    let place = &target.slot.place;
    let loaded = core.store.load(place).await?;
    if loaded.revision() != hold.revision() {
        return Ok(true);
    }
    let Loaded { record: Some(record), next, token: _, refusal: _ } = &loaded else { return Ok(false) };
    let Some(spare) = decide::spare(record, &target.credential.bindings()) else { return Ok(false) };
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
    // What was taken over and presented stays that of the record: it only grows.
    let presented = candidate::presented(core.store.names(), &record.secrets);
    let secrets = GrantSecrets { seeds: record.secrets.seeds.clone(), presented, ..spare.clone() };
    let adopt = Import { unit, attempt, expected: record.revision, next, secrets: &secrets };
    if core.store.adopt(&adopt).await? == Written::Done {
        core.lately.imported(&adopt);
        warn!(?unit, "the provider refused the stored refresh token; one that came too late takes its place");
    }
    Ok(())
}
