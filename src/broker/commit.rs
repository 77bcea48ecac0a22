//! Storing what a provider gave: nobody gets a token before the store has acknowledged it, and an answer that may hold the
//! only living refresh token is not given up.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{
    Core, Error, Target,
    attempt::{self, Hold},
    candidate,
    decide::Extent,
    quarantine, spooled,
};
use crate::{
    clock::Moment,
    failpoint::{self, Step},
    failure::FailureCause,
    grant::{Grant, answer::Granted, lifetime},
    name::Scopes,
    secret::SecretString,
    store::{
        Commit, GrantRecord, GrantSecrets, Material, Names, StoreError, Written,
        spool::{Spool, Spooled},
    },
    telemetry::CredentialOnly,
    token::{Generation, Token},
};

/// How long a commit waits before it is tried again.
pub(super) const COMMIT_RETRY_FIRST: Duration = Duration::from_millis(50);
pub(super) const COMMIT_RETRY_LONGEST: Duration = Duration::from_secs(2);

/// A commit that takes longer goes into the spool before its outcome is known.
const SPOOL_AFTER: Duration = Duration::from_millis(100);

/// Stores what the provider gave. Nobody gets the token before the store has acknowledged it.
pub(super) async fn store(
    core: &Arc<Core>,
    target: &Target,
    hold: Hold,
    granted: Granted,
    sent: &Moment,
) -> Result<Option<Arc<Token>>, Error> {
    let names = core.store.names();
    let (new, scopes) = (granted.refresh_token.as_ref(), granted.scopes.as_ref());
    let secrets = secrets(names, target, hold.record.as_ref(), new, scopes);
    let token = Arc::new(token(target, granted, sent, hold.next));
    let (epoch, death) = (target.slot.epoch(), hold.death());
    let commit = Commit {
        place: &target.slot.place,
        attempt: &hold.attempt,
        expected: hold.revision(),
        next: hold.next,
        secrets: &secrets,
        token: &token,
    };
    let harmless = target.credential.grant.repeating_is_harmless();
    let written = commit_until_stored(core, harmless, &commit).await;
    if written.is_err() {
        attempt::release(core, target, &hold).await;
        if !harmless {
            spooled::try_again_later(core, Spooled::from(&commit), hold.mark);
        }
    }
    match written? {
        Written::Done => {
            failpoint::reach(Step::Committed).await;
            attempt::count(core, target, "ok");
            core.count_lookup(target, "refresh");
            info!(credential = %target.credential.name, generation = %token.generation, "token obtained");
            tell_revival(core, target, death);
            core.keep(target, &token, epoch);
            Ok(Some(token))
        }
        Written::Moved => {
            warn!(credential = %target.credential.name, "another revision was stored meanwhile; what is there is used");
            Ok(None)
        }
    }
}

/// Tells of a grant that was declared dead and is not.
fn tell_revival(core: &Core, target: &Target, death: Option<FailureCause>) {
    let Some(cause) = death else { return };
    let credential = target.credential.name.clone();
    warn!(%credential, "grant gave a token again after it was declared dead: {}; it is active", cause.word());
    core.telemetry.grants_revived.get_or_create(&CredentialOnly { credential }).inc();
}

/// What was granted, as a token of this generation.
pub(super) fn token(target: &Target, granted: Granted, sent: &Moment, generation: Generation) -> Token {
    // Where a refresh may not name scopes, the token has those of the credential, whatever its caller named.
    let (key, credential) = (&target.slot.key, &target.credential);
    let says_scope = credential.profile.scope_on_refresh || !matches!(credential.grant, Grant::RefreshToken { .. });
    let asked = if says_scope { &key.scopes } else { &credential.scopes };
    Token {
        expiry: Some(lifetime::expiry(&granted, target.credential.lifetimes, sent)),
        // Mostly the provider repeats what was asked for, which is there already.
        scopes: granted.scopes.filter(|scopes| scopes != asked).unwrap_or_else(|| asked.clone()),
        value: granted.access_token.into(),
        kind: granted.kind,
        generation,
    }
}

/// What the grant is from now on, with a new refresh token and scopes where the provider named them.
pub(super) fn secrets(
    names: &Names,
    target: &Target,
    record: Option<&GrantRecord>,
    refresh_token: Option<&SecretString>,
    scopes: Option<&Scopes>,
) -> GrantSecrets {
    let old = record.map(|record| record.secrets.clone()).unwrap_or_default();
    let presented = candidate::presented(names, &old);
    let material = match (refresh_token, &target.credential.grant) {
        // Kept only where it is used: other grants should not get one (RFC 6749 §4.4.3), and simply ask again.
        (Some(new), Grant::RefreshToken { .. }) => Material::RefreshToken(new.clone()),
        // RFC 6749 §6: no new refresh token means that the old one stays.
        (None, Grant::RefreshToken { .. }) => old.material,
        (_, Grant::ClientCredentials(_) | Grant::JwtBearer { .. } | Grant::Static { .. }) => Material::Nothing,
    };
    let subject = Some(target.slot.key.grant.subject.clone());
    // RFC 6749 §6: a narrower access token leaves the refresh token's scope as it was. The request for the credential's own
    // token names no scope, so the answer names all of them.
    let whole = target.extent(record) == Extent::Default;
    let (scopes, scopes_known) = match scopes.cloned().filter(|_| whole) {
        Some(scopes) => (scopes, true),
        None => (old.scopes, old.scopes_known),
    };
    let bindings = target.credential.bindings();
    let (binding, issuer) = (bindings.own().to_owned(), bindings.issuer().map(str::to_owned));
    GrantSecrets {
        material,
        scopes,
        scopes_known,
        subject,
        binding,
        issuer,
        seeds: old.seeds,
        presented,
        untried: false,
    }
}

/// Repeats a commit until the store has taken it. Where the answer may hold the only living refresh token there is no
/// limit to that but a record that cannot be read, and it goes into the spool, in case this process ends before it is
/// stored; a token that can simply be asked for again is given up after the commit's budget.
pub(super) async fn commit_until_stored(core: &Core, harmless: bool, commit: &Commit<'_>) -> Result<Written, Error> {
    let budget = Instant::now() + core.timing.commit_budget;
    let spool = core.spool.as_ref().filter(|_| !harmless);
    let mut wait = COMMIT_RETRY_FIRST;
    let mut kept = false;
    loop {
        match commit_or_spool(core, commit, spool, &mut kept).await {
            Ok(written) => {
                if let Some(spool) = spool.filter(|_| kept) {
                    spool.forget(commit.attempt).await;
                }
                return Ok(written);
            }
            Err(StoreError::Unavailable(cause)) => {
                if harmless && Instant::now() >= budget {
                    return Err(Error::StoreUnavailable(cause.into()));
                }
                warn!(unit = ?commit.place.unit, %cause, "a token cannot be stored yet; trying again");
            }
            // Trying again mends no record, and the caller need not wait until somebody does.
            Err(error @ (StoreError::Unreadable(_) | StoreError::Open(_))) => {
                keep(commit, spool, &mut kept).await;
                return Err(error.into());
            }
        }
        keep(commit, spool, &mut kept).await;
        sleep(wait).await;
        wait = (wait * 2).min(COMMIT_RETRY_LONGEST);
    }
}

/// Tries to store an answer once. A store that hangs takes seconds to be given up, and until then the answer would be in
/// this process alone.
async fn commit_or_spool(
    core: &Core,
    commit: &Commit<'_>,
    spool: Option<&Spool>,
    kept: &mut bool,
) -> Result<Written, StoreError> {
    let mut committing = Box::pin(quarantine::commit_or_keep(core, commit));
    if let Ok(outcome) = timeout(SPOOL_AFTER, &mut committing).await {
        return outcome;
    }
    keep(commit, spool, kept).await;
    committing.await
}

async fn keep(commit: &Commit<'_>, spool: Option<&Spool>, kept: &mut bool) {
    if let Some(spool) = spool.filter(|_| !*kept) {
        *kept = spool.keep(commit).await.inspect_err(|error| warn!(%error, "an answer is in memory only")).is_ok();
        failpoint::reach(Step::Spooled).await;
    }
}
