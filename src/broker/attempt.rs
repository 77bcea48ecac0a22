//! One try at a refresh, under a lease: plan, write the intent, ask once, then commit or settle.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    Core, Error, Target, commit,
    decide::{self, Circumstances, Extent, Fate, Plan},
    kept,
    proof::{self, Requests},
    quarantine,
    under_way::Mark,
};
use crate::{
    clock::Deadline,
    failpoint::{self, Step},
    failure::{FailureCause, ProviderReport},
    grant::{
        answer::{self, Answer},
        rotation::Need,
    },
    provider::{self, SendError},
    store::{
        AttemptId, Dispatch, Dispatched, GrantRecord, GrantState, Material, Refuse, Rest, Settle, StoreError,
        TokenRefusal, Verdict, Written,
    },
    telemetry::CredentialLabels,
    token::{Generation, Token},
};

/// A lease that was taken, and what was found under it.
pub(super) struct Hold {
    /// Who holds it.
    pub(super) attempt: AttemptId,
    /// The grant as it is now.
    pub(super) record: Option<GrantRecord>,
    /// The generation that a commit makes.
    pub(super) next: Generation,
    /// The last refusal of this token since it was last obtained.
    pub(super) refusal: Option<TokenRefusal>,
    /// What the token is wanted for.
    pub(super) need: Need,
    /// When it was taken.
    pub(super) since: Instant,
    /// Once the refresh token is about to be sent.
    pub(super) mark: Option<Mark>,
}

impl Hold {
    /// The revision that was found; zero if there was none.
    pub(super) fn revision(&self) -> Generation {
        self.record.as_ref().map_or(Generation::ZERO, |record| record.revision)
    }

    /// How many failures went before, of those that count for this try: after tries ahead of time, one that is needed begins
    /// with the shortest wait.
    fn failures(&self) -> u32 {
        let failure = self.record.as_ref().and_then(|record| record.failure);
        failure.filter(|failure| !failure.early || self.is_early()).map_or(0, |failure| failure.count)
    }

    /// The same of this token's refusals.
    fn refusals(&self) -> u32 {
        self.refusal.filter(|refusal| !refusal.early || self.is_early()).map_or(0, |refusal| refusal.count)
    }

    /// The cause for which the grant was declared dead.
    pub(super) fn death(&self) -> Option<FailureCause> {
        match self.record.as_ref()?.state {
            GrantState::Dead(cause) => Some(cause),
            GrantState::Active => None,
        }
    }

    /// Counts a grant that has died, once.
    fn died(&self, core: &Core, target: &Target, verdict: Verdict, cause: FailureCause) {
        if verdict.is_dead() && self.death().is_none() && !core.is_candidate(target) {
            let labels = CredentialLabels { credential: target.credential.name.clone(), result: cause.word() };
            core.telemetry.grants_died.get_or_create(&labels).inc();
        }
    }

    pub(super) fn is_early(&self) -> bool {
        self.need == Need::Ahead
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
        &credential.bindings(),
        hold.record.as_ref(),
        &core.recovery(credential),
        hold.need,
    ) {
        Plan::Ask { refresh_token, recovering } => (refresh_token, recovering),
        Plan::GiveUp(cause) => {
            core.tell_elsewhere(credential, hold.record.as_ref());
            release(core, target, &hold).await;
            let has_none = |record: &GrantRecord| matches!(record.secrets.material, Material::Nothing);
            let absent = hold.record.as_ref().is_none_or(has_none);
            return Err(if absent { Error::NoGrant } else { Error::Failed { cause, retry_after: None } });
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
            return settle(core, target, &hold, (FailureCause::ClientConfigurationRejected, None), wait).await;
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
    let Some(mark) = core.under_way.mark(&target.slot.place.unit) else {
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
    ask(core, target, Hold { mark: Some(mark), ..hold }, requests, recovering, send_by).await
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
            Err(StoreError::Unavailable(_)) if Instant::now() < give_up => sleep(commit::COMMIT_RETRY_FIRST).await,
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
    let report = report(target, &answer);
    let around = Circumstances {
        grant: &target.credential.grant,
        recovering,
        extent: target.extent(hold.record.as_ref()),
        failures: hold.failures(),
        deaths: hold.record.as_ref().and_then(|record| record.revival).map_or(0, |revival| revival.deaths),
        retry_dead: target.credential.profile.retry_dead,
        refusals: hold.refusals(),
        jitter: core.jitter(),
    };
    kept::beside_refusal(core, target, &hold, &answer).await;
    match decide::fate(answer, &around) {
        Fate::Keep { kept, cause, wait } => {
            kept::store(core, target, hold, &kept, (cause, wait, report.as_ref())).await
        }
        Fate::Store(granted) => commit::store(core, target, hold, granted, &sent).await,
        Fate::Refuse { cause, wait } => refuse(core, target, &hold, cause, wait).await,
        Fate::Note { cause, verdict, rest } => {
            if let Some(left) = rest {
                core.cool_down(target, Rest { cause, left }).await;
            }
            if verdict.is_dead() {
                let left = quarantine::is_something_left(core, target, &hold).await;
                if !matches!(left, Ok(false)) {
                    release(core, target, &hold).await;
                    return left.map(|_| None);
                }
            }
            settle(core, target, &hold, (cause, report.as_ref()), verdict).await
        }
    }
}

/// Others look for a lease that is free at least this often, with time to spare for their store.
const SHORTEST_WAY: Duration = Duration::from_millis(500);

/// Notes that this token was refused. Requests for other tokens than the credential's own wait for as long as this one took:
/// a caller that asks for made-up scopes without end leaves the lease to others half of the time.
async fn refuse(
    core: &Core,
    target: &Target,
    hold: &Hold,
    cause: FailureCause,
    wait: Duration,
) -> Result<Option<Arc<Token>>, Error> {
    count(core, target, cause.word());
    target.slot.set_degraded(true);
    let is_own = target.extent(hold.record.as_ref()) == Extent::Default;
    let refuse = Refuse {
        place: &target.slot.place,
        attempt: &hold.attempt,
        expected: hold.revision(),
        cause,
        wait,
        early: hold.is_early(),
        give_way: if is_own { Duration::ZERO } else { hold.since.elapsed().max(SHORTEST_WAY).min(core.timing.lease) },
    };
    match core.store.refuse(&refuse).await {
        Ok(Written::Moved) => return Ok(None),
        Ok(Written::Done) => {}
        Err(error) => warn!(credential = %target.credential.name, %error, "a refusal could not be noted"),
    }
    Err(Error::Failed { cause, retry_after: Some(wait) })
}

/// Notes a failure. If the revision moved meanwhile, the failure was about a grant of yesterday.
async fn settle(
    core: &Core,
    target: &Target,
    hold: &Hold,
    (cause, report): (FailureCause, Option<&ProviderReport>),
    verdict: Verdict,
) -> Result<Option<Arc<Token>>, Error> {
    count(core, target, cause.word());
    target.slot.set_degraded(true);
    let settle = Settle {
        unit: &target.slot.place.unit,
        attempt: &hold.attempt,
        expected: hold.revision(),
        verdict,
        cause,
        report,
        early: hold.is_early(),
    };
    match core.store.settle(&settle).await {
        Ok(Written::Moved) => return Ok(None),
        // A late answer may have been kept after the look before, and whoever kept it did not find the grant dead yet.
        Ok(Written::Done) if verdict.is_dead() && quarantine::is_something_left(core, target, hold).await? => {
            return Ok(None);
        }
        Ok(Written::Done) => hold.died(core, target, verdict, cause),
        // The end of a grant is believed only where the record still stands for which the provider said so.
        Err(error) if verdict.is_dead() => return Err(error.into()),
        // The failure itself is what the caller has to know; without the note the next one asks sooner.
        Err(error) => warn!(credential = %target.credential.name, %error, "a failure could not be noted"),
    }
    let retry_after = match verdict {
        Verdict::BackOff { wait } | Verdict::OutcomeUnknown { wait } => Some(wait),
        Verdict::Dead { again: _ } => None,
    };
    Err(Error::Failed { cause, retry_after })
}

/// What the provider said of a request that gave no token.
fn report(target: &Target, answer: &Result<Answer, SendError>) -> Option<ProviderReport> {
    let endpoint = target.credential.grant.endpoint()?;
    provider::report(answer, &answer::place(&endpoint.token_url))
}

/// Gives the lease back.
pub(super) async fn release(core: &Core, target: &Target, hold: &Hold) {
    // A lease that cannot be given back ends by itself.
    if let Err(error) = core.store.release(&target.slot.place.unit, &hold.attempt).await {
        warn!(credential = %target.credential.name, %error, "a lease could not be given back");
    }
}

/// Counts what became of a refresh.
pub(super) fn count(core: &Core, target: &Target, result: &'static str) {
    let credential = target.credential.name.clone();
    core.telemetry.refreshes.get_or_create(&CredentialLabels { credential, result }).inc();
}
