//! Tokens for this replica alone, while the store is away (`store_outage = "serve"`).
//!
//! Only for grants for which asking twice is harmless: every replica asks for itself, and nothing is lost with what it
//! gets. One flight, growing waits and the damping of reports hold as ever, from what this replica remembers. A token that
//! was made so has the generation after the newest one that is known here. The store's are its time in µs, so that
//! whatever it gives out when it is back is newer.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{
    Core, Error, StoreOutage, Target, attempt, commit,
    decide::{self, Circumstances, Extent, Fate, ReportPlan},
    proof, refresh,
    report::{About, Judged, generation_of, newer_than},
};
use crate::{
    cache::Epoch,
    clock::Moment,
    failure::FailureCause,
    grant::answer::Granted,
    store::{Rest, Verdict},
    token::{Generation, Token, Wanted},
};

/// Whether a credential is served when this went wrong.
pub(super) fn is_bridged(target: &Target, error: &Error) -> bool {
    matches!(error, Error::StoreUnavailable(_)) && target.credential.store_outage == StoreOutage::Serve
}

/// Gets a token for this replica alone. `unavailable` is why the store was of no help.
pub(super) async fn obtain(
    core: &Arc<Core>,
    target: &Target,
    wanted: Wanted,
    unavailable: Error,
) -> Result<Arc<Token>, Error> {
    // Nobody here can tell whether there ever was such a generation, and the store might never reach the one after it.
    if wanted.refused > target.slot.newest_known() {
        return Err(unavailable);
    }
    if let Some(held) = target.slot.valid(&newer_than(wanted.refused), &core.now()) {
        refresh::old_enough(core, target, &held, &wanted, core.age(&held))?;
    }
    if let Some(resting) = core.known_rest(target).or_else(|| own_rest(core, target)) {
        return Err(resting);
    }
    let Ok(requests) = proof::requests(core, target, None) else {
        return Err(failed(core, target, FailureCause::ClientConfigurationRejected, attempt::BUILD_RETRY));
    };
    let send_by = core.now().after(core.timing.commit_budget);
    let (answer, sent) = proof::ask(core, target, None, requests, send_by).await;
    let around = Circumstances {
        grant: &target.credential.grant,
        recovering: false,
        extent: Extent::Default,
        failures: target.slot.alone().failures,
        deaths: 0,
        retry_dead: target.credential.profile.retry_dead,
        refusals: 0,
        jitter: core.jitter(),
    };
    match decide::fate(answer, &around) {
        Fate::Store(granted) => Ok(keep(core, target, granted, &sent)),
        Fate::Keep { kept: _, cause, wait } | Fate::Refuse { cause, wait } => Err(failed(core, target, cause, wait)),
        Fate::Note { cause, verdict, rest } => {
            if let Some(left) = rest {
                core.rest_here(target, &Rest { cause, left });
            }
            let (Verdict::BackOff { wait } | Verdict::OutcomeUnknown { wait }) = verdict else {
                return Err(Error::Failed { cause, retry_after: None });
            };
            Err(failed(core, target, cause, wait))
        }
    }
}

fn own_rest(core: &Core, target: &Target) -> Option<Error> {
    let (cause, until) = target.slot.alone().failure?;
    let left = until.remaining(&core.now());
    (!left.is_zero()).then_some(Error::Failed { cause, retry_after: Some(left) })
}

fn failed(core: &Core, target: &Target, cause: FailureCause, wait: Duration) -> Error {
    attempt::count(core, target, cause.word());
    target.slot.set_degraded(true);
    let mut alone = target.slot.alone();
    alone.failures = alone.failures.saturating_add(1);
    alone.failure = Some((cause, core.now().after(wait)));
    Error::Failed { cause, retry_after: Some(wait) }
}

fn keep(core: &Arc<Core>, target: &Target, granted: Granted, sent: &Moment) -> Arc<Token> {
    let slot = &target.slot;
    let generation = Generation::new(slot.newest_known().get().saturating_add(1));
    let token = Arc::new(commit::token(target, granted, sent, generation));
    {
        let mut alone = slot.alone();
        (alone.generation, alone.failure, alone.failures) = (generation, None, 0);
    }
    core.keep(target, &token, slot.epoch());
    // Whoever gets it is told that it is not as it should be.
    slot.set_degraded(true);
    attempt::count(core, target, "alone");
    core.count_lookup(target, "refresh");
    info!(credential = %target.credential.name, %generation, "the store is away; a token for this replica alone");
    token
}

impl Core {
    /// What follows from a report that the store can say nothing about, because it is away, or was when this replica made
    /// the token: it is read from this replica's memory.
    pub(super) fn judge_alone(&self, target: &Target, about: &About, held: Option<&Token>) -> Judged {
        let generation = match about {
            // None that is newer than what is known here is asked for without the store.
            About::Generation(generation) | About::Refused(generation) => *generation,
            About::AccessToken(value) => generation_of(value, [held, None, None]),
        };
        match held {
            Some(token) if token.generation > generation => Judged::Nothing("already_replaced"),
            Some(token) if token.generation == generation => {
                let strikes = target.slot.alone().strikes;
                match decide::damp(self.age(token), strikes, target.credential.min_age()) {
                    ReportPlan::HeldBack { wait } => Judged::HeldBack(wait),
                    ReportPlan::Reject { strikes } => {
                        target.slot.alone().strikes = strikes;
                        target.slot.raise_floor(generation);
                        Judged::Rejected(generation)
                    }
                    ReportPlan::AlreadyReplaced | ReportPlan::NeverIssued => Judged::Nothing("already_replaced"),
                }
            }
            // It was rejected a moment ago, and the flight for its successor is under way.
            None if generation <= target.slot.newest_known() => Judged::Rejected(generation),
            Some(_) | None => Judged::Nothing("never_issued"),
        }
    }

    /// How old a token is, by this process's clocks: its life less what is left of it.
    fn age(&self, token: &Token) -> Duration {
        let age = token.expiry.map(|expiry| expiry.lifetime.saturating_sub(expiry.deadline.remaining(&self.now())));
        age.unwrap_or_default()
    }

    /// Whether a token was made by this replica alone. When the store is back it knows nothing of it; then it is served
    /// until there is one that the store knows too, which is asked for in the background. The look into the store counts
    /// as one for this token, so that meanwhile not every caller looks.
    pub(super) fn hand_back(self: &Arc<Self>, target: &Target, token: &Arc<Token>, epoch: Epoch) -> bool {
        let is_own = target.slot.alone().generation == token.generation;
        if is_own {
            target.slot.put(token, epoch, &self.now());
            if self.refresh_ahead(target, token.generation, None) {
                warn!(credential = %target.credential.name, "the store is back; a token of this replica alone is replaced");
            }
        }
        is_own
    }
}
