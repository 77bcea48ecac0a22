//! One try at a refresh, under a lease: plan, write the intent, ask once, then commit or settle.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{
    Core, Error, Target,
    decide::{self, Circumstances, Fate, Plan},
    proof::{self, Requests},
    quarantine,
};
use crate::{
    clock::{Deadline, Moment},
    failpoint::{self, Step},
    failure::FailureCause,
    grant::{Grant, answer::Granted, lifetime},
    store::{
        AttemptId, Commit, Dispatch, Dispatched, GrantRecord, GrantSecrets, Material, Rest, Settle, StoreError,
        Verdict, Written, spool::Spool,
    },
    telemetry::CredentialLabels,
    token::{Generation, Token},
};

/// How long a commit waits before it is tried again.
const COMMIT_RETRY_FIRST: Duration = Duration::from_millis(50);
pub(super) const COMMIT_RETRY_LONGEST: Duration = Duration::from_secs(2);

/// A commit that takes longer goes into the spool before its outcome is known.
const SPOOL_AFTER: Duration = Duration::from_millis(100);

/// A lease that was taken, and what was found under it.
pub(super) struct Hold {
    /// Who holds it.
    pub(super) attempt: AttemptId,
    /// The grant as it is now.
    pub(super) record: Option<GrantRecord>,
    /// The generation that a commit makes.
    pub(super) next: Generation,
}

impl Hold {
    /// The revision that was found; zero if there was none.
    pub(super) fn revision(&self) -> Generation {
        self.record.as_ref().map_or(Generation::ZERO, |record| record.revision)
    }
}

/// Works under a lease. `None`: the record moved, and what is there now is to be looked at.
pub(super) async fn work(core: &Arc<Core>, target: &Target, hold: Hold) -> Result<Option<Arc<Token>>, Error> {
    // The record was read before, but the store may have gone back since then.
    let went_back = core.went_back(&target.slot.place.unit, hold.revision()).await;
    if !matches!(went_back, Ok(false)) {
        release(core, target, &hold).await;
        return went_back.map(|_| None).map_err(Error::from);
    }
    let credential = &target.credential;
    failpoint::reach(Step::Claimed).await;
    let (refresh_token, recovering) = match decide::plan(
        &credential.grant,
        &credential.binding(),
        hold.record.as_ref(),
        &core.recovery(credential),
    ) {
        Plan::Ask { refresh_token, recovering } => (refresh_token, recovering),
        Plan::GiveUp(cause) => {
            release(core, target, &hold).await;
            return Err(Error::Failed { cause, retry_after: None });
        }
        Plan::LeaveAlone => {
            release(core, target, &hold).await;
            let cause = FailureCause::RefreshOutcomeUnknown;
            return Err(Error::Failed { cause, retry_after: Some(LOOK_AGAIN) });
        }
    };
    // Built before the intent is written: a request that cannot be built was never sent.
    let requests = match proof::requests(core, target, refresh_token) {
        Ok(requests) => requests,
        Err(error) => {
            warn!(credential = %credential.name, %error, "no token request can be built");
            let wait = Verdict::BackOff { wait: BUILD_RETRY };
            return settle(core, target, &hold, FailureCause::ClientConfigurationRejected, wait).await;
        }
    };
    if core.tasks.is_closed() {
        // A refresh that begins while the process ends may not get to store its answer.
        release(core, target, &hold).await;
        return Err(Error::RefreshInProgress { left: LOOK_AGAIN });
    }
    let resting = core.rest(target).await;
    if !matches!(resting, Ok(None)) {
        release(core, target, &hold).await;
        return resting.and_then(|resting| resting.map_or(Ok(None), Err));
    }
    let send_by = core.now().after(core.timing.commit_budget);
    if credential.grant.repeating_is_harmless() {
        return ask(core, target, hold, requests, recovering, send_by).await;
    }
    // The lease of another flight of this process may have ended; its answer is waited for and not asked for again.
    let Some(_mark) = core.under_way.mark(&target.slot.place.unit) else {
        release(core, target, &hold).await;
        return Err(Error::RefreshInProgress { left: LOOK_AGAIN });
    };
    let allowed = dispatch(core, target, &hold).await;
    if !matches!(allowed, Ok(true)) {
        release(core, target, &hold).await;
        return allowed.map(|_| None);
    }
    if recovering {
        warn!(credential = %credential.name, "an earlier refresh went unanswered; its refresh token is tried again");
    }
    ask(core, target, hold, requests, recovering, send_by).await
}

/// What a caller is told to wait while somebody else's try is not settled.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a request that could not be built is not tried again.
pub(super) const BUILD_RETRY: Duration = Duration::from_secs(5);

/// Writes the intent. From here on the refresh token counts as sent. Asked again by the same attempt it writes nothing, and
/// tells whether enough of the lease is left for one more request.
pub(super) async fn dispatch(core: &Core, target: &Target, hold: &Hold) -> Result<bool, Error> {
    let record = hold.record.as_ref();
    let dispatch = Dispatch {
        unit: &target.slot.place.unit,
        attempt: &hold.attempt,
        expected: hold.revision(),
        seen: record.and_then(|record| record.intent.as_ref()).map(|intent| &intent.attempt),
        need: core.timing.http_timeout + core.timing.commit_budget,
    };
    let give_up = Instant::now() + core.timing.commit_budget;
    loop {
        match core.store.dispatch(&dispatch).await {
            Ok(Dispatched::Go) => return Ok(true),
            Ok(Dispatched::LeaseLost | Dispatched::Moved) => return Ok(false),
            // The reply may be all that was lost. Asking again tells, and an intent that nobody sends is not left behind.
            Err(StoreError::Unavailable(_)) if Instant::now() < give_up => sleep(COMMIT_RETRY_FIRST).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn ask(
    core: &Arc<Core>,
    target: &Target,
    hold: Hold,
    requests: Requests,
    recovering: bool,
    send_by: Deadline,
) -> Result<Option<Arc<Token>>, Error> {
    failpoint::reach(Step::Dispatched).await;
    let (answer, sent) = proof::ask(core, target, Some(&hold), requests, send_by).await;
    failpoint::reach(Step::Answered).await;
    let around = Circumstances {
        grant: &target.credential.grant,
        recovering,
        failures: hold.record.as_ref().and_then(|record| record.failure).map_or(0, |failure| failure.count),
        jitter: core.jitter(),
    };
    match decide::fate(answer, &around) {
        Fate::Store(granted) => store(core, target, hold, granted, &sent).await,
        Fate::Note { cause, verdict, rest } => {
            if let Some(left) = rest {
                core.cool_down(target, Rest { cause, left }).await;
            }
            if verdict == Verdict::Dead {
                let left = quarantine::is_something_left(core, target, &hold).await;
                if !matches!(left, Ok(false)) {
                    release(core, target, &hold).await;
                    return left.map(|_| None);
                }
            }
            settle(core, target, &hold, cause, verdict).await
        }
    }
}

/// Stores what the provider gave. Nobody gets the token before the store has acknowledged it.
async fn store(
    core: &Arc<Core>,
    target: &Target,
    hold: Hold,
    granted: Granted,
    sent: &Moment,
) -> Result<Option<Arc<Token>>, Error> {
    let secrets = secrets(target, hold.record.as_ref(), &granted);
    let token = Arc::new(token(target, granted, sent, hold.next));
    let epoch = target.slot.epoch();
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
        release(core, target, &hold).await;
    }
    match written? {
        Written::Done => {
            failpoint::reach(Step::Committed).await;
            count(core, target, "ok");
            core.count_lookup(target, "refresh");
            info!(credential = %target.credential.name, generation = %token.generation, "token obtained");
            core.keep(target, &token, epoch);
            Ok(Some(token))
        }
        Written::Moved => {
            warn!(credential = %target.credential.name, "another revision was stored meanwhile; what is there is used");
            Ok(None)
        }
    }
}

/// What was granted, as a token of this generation.
pub(super) fn token(target: &Target, granted: Granted, sent: &Moment, generation: Generation) -> Token {
    Token {
        expiry: Some(lifetime::expiry(&granted, target.credential.default_lifetime, sent)),
        scopes: granted.scopes.unwrap_or_else(|| target.slot.key.scopes.clone()),
        value: granted.access_token,
        kind: granted.kind,
        generation,
    }
}

fn secrets(target: &Target, record: Option<&GrantRecord>, granted: &Granted) -> GrantSecrets {
    let old = record.map(|record| record.secrets.clone()).unwrap_or_default();
    let material = match (&granted.refresh_token, &target.credential.grant) {
        // Kept only where it is used: other grants should not get one (RFC 6749 §4.4.3), and simply ask again.
        (Some(new), Grant::RefreshToken { .. }) => Material::RefreshToken(new.clone()),
        // RFC 6749 §6: no new refresh token means that the old one stays.
        (None, Grant::RefreshToken { .. }) => old.material,
        (_, Grant::ClientCredentials(_) | Grant::JwtBearer { .. } | Grant::Static { .. }) => Material::Nothing,
    };
    // RFC 6749 §6: a narrower access token leaves the refresh token's scope as it was.
    let whole = target.slot.key.scopes == target.credential.scopes;
    let scopes = granted.scopes.clone().filter(|_| whole).unwrap_or(old.scopes);
    GrantSecrets { material, scopes, binding: target.credential.binding(), seeds: old.seeds }
}

/// Repeats a commit until the store has taken it. Where the answer may hold the only living refresh token there is no
/// limit to that, and it goes into the spool, in case this process ends before; a token that can simply be asked for again
/// is given up after the commit's budget.
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
            Err(error @ (StoreError::Unreadable(_) | StoreError::Open(_))) => return Err(error.into()),
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

/// Notes a failure. If the revision moved meanwhile, the failure was about a grant of yesterday.
async fn settle(
    core: &Core,
    target: &Target,
    hold: &Hold,
    cause: FailureCause,
    verdict: Verdict,
) -> Result<Option<Arc<Token>>, Error> {
    count(core, target, cause.word());
    target.slot.set_degraded(true);
    let settle =
        Settle { unit: &target.slot.place.unit, attempt: &hold.attempt, expected: hold.revision(), verdict, cause };
    match core.store.settle(&settle).await {
        Ok(Written::Moved) => return Ok(None),
        Ok(Written::Done) => {}
        // The end of a grant is believed only where the record still stands for which the provider said so.
        Err(error) if verdict == Verdict::Dead => return Err(error.into()),
        // The failure itself is what the caller has to know; without the note the next one asks sooner.
        Err(error) => warn!(credential = %target.credential.name, %error, "a failure could not be noted"),
    }
    let retry_after = match verdict {
        Verdict::BackOff { wait } | Verdict::OutcomeUnknown { wait } => Some(wait),
        Verdict::Dead => None,
    };
    Err(Error::Failed { cause, retry_after })
}

async fn release(core: &Core, target: &Target, hold: &Hold) {
    // A lease that cannot be given back ends by itself.
    if let Err(error) = core.store.release(&target.slot.place.unit, &hold.attempt).await {
        warn!(credential = %target.credential.name, %error, "a lease could not be given back");
    }
}

/// Counts what became of a refresh.
pub(super) fn count(core: &Core, target: &Target, result: &'static str) {
    let credential = target.credential.name.to_string();
    core.telemetry.refreshes.get_or_create(&CredentialLabels { credential, result }).inc();
}
