//! The way of a refresh up to the lease: load, look whether others were faster, claim, wait (protocol, "The way of a
//! refresh"). What is done under the lease is in `attempt.rs`.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, timeout},
};

use super::{
    Core, Error, Target,
    attempt::{self, Hold},
    candidate::{self, Before},
    decide::{self, Extent},
    load::Known,
    outage, quarantine,
    report::{never_issued, newer_than},
    seed, static_secret,
};
use crate::{
    failure::FailureCause,
    grant::{Coordination, Grant, profile::RetryDead, rotation::Need},
    store::{AttemptId, Change, Claim, Claimed, Event, GrantRecord, Purpose, UnitName},
    token::{Generation, Token, Wanted},
};

/// Whoever waits for another's work looks again at least this often, whatever is published.
const POLL_FIRST: Duration = Duration::from_millis(25);
pub(super) const POLL_LONGEST: Duration = Duration::from_millis(250);

/// Gets a token as fresh as wanted; while the store is away, for this replica alone where that is harmless and wished.
pub(super) async fn obtain(core: &Arc<Core>, target: &Target, wanted: Wanted) -> Result<Arc<Token>, Error> {
    let result = coordinated(core, target, wanted).await;
    match result {
        Err(error) if outage::is_bridged(target, &error) => outage::obtain(core, target, wanted, error).await,
        Ok(_) | Err(_) => result,
    }
}

/// Gets one from the store if another replica was there before, else from the provider.
async fn coordinated(core: &Arc<Core>, target: &Target, wanted: Wanted) -> Result<Arc<Token>, Error> {
    let Known { loaded, token, epoch } = core.load(target).await?;
    // Generations are not ahead of the store's clock: such a one was never issued, and asking the provider for one that
    // is newer still would go on for ever.
    if wanted.refused >= loaded.next {
        return Err(never_issued());
    }
    if let Some(token) = &token {
        if token.satisfies(&wanted, &core.now()) {
            core.count_lookup(target, "store");
            return Ok(Arc::clone(token));
        }
        outlives(token, &wanted)?;
        old_enough(core, target, token, &wanted, decide::age(token.generation, &loaded))?;
    }
    let stale = loaded.token.as_ref().map_or(Generation::ZERO, |token| token.generation);
    let loaded = seed::take_over(core, target, loaded).await?;
    if let Grant::Static { form, first: _ } = &target.credential.grant {
        let token = static_secret::token(target, form, &loaded, &wanted)?;
        core.keep(target, &token, epoch);
        core.count_lookup(target, "store");
        return Ok(token);
    }
    let extent = target.extent(loaded.record.as_ref());
    if extent == Extent::Excluded && target.credential.grant.coordination() == Coordination::PerGrant {
        return Err(Error::Failed { cause: FailureCause::InsufficientScope, retry_after: None });
    }
    if let Some(resting) = core.known_rest(target) {
        return Err(resting);
    }
    // A token at the floor or below is dead here, even if the store could not be told.
    let refused = wanted.refused.max(stale).max(target.slot.floor());
    refresh(core, target, &wanted, Try { refused, extent, dead: false }).await
}

/// Tries a dead grant once more, because an operator says so.
pub(super) async fn retry(core: &Arc<Core>, target: &Target, refused: Generation) -> Result<Arc<Token>, Error> {
    refresh(core, target, &Wanted::default(), Try { refused, extent: Extent::Default, dead: true }).await
}

/// What a refresh is tried for.
struct Try {
    /// A token that is newer makes it unnecessary.
    refused: Generation,
    /// What is asked for, beside what the grant was given.
    extent: Extent,
    /// Whether a dead grant is tried.
    dead: bool,
}

impl Try {
    /// Whether a grant that is dead is to be tried now: seldom, when a token of what it was given is needed.
    async fn may_revive(&self, core: &Core, target: &Target, record: &GrantRecord, needed: bool) -> bool {
        let is_given = matches!(self.extent, Extent::Default | Extent::Within);
        let rarely = target.credential.profile.retry_dead == RetryDead::Rarely;
        rarely && !self.dead && needed && is_given && decide::is_revival_due(record) && core.take_turn(target).await
    }
}

/// A provider whose tokens hardly ever live as long as a caller wants must not be asked again and again.
pub(super) fn outlives(token: &Token, wanted: &Wanted) -> Result<(), Error> {
    match token.expiry {
        Some(expiry) if wanted.min_remaining > expiry.lifetime * 9 / 10 => {
            let lives = expiry.lifetime.as_secs();
            let problem =
                format!("this provider's tokens live {lives} s; at most nine tenths of that can be asked for");
            Err(Error::invalid("min_remaining", problem))
        }
        Some(_) | None => Ok(()),
    }
}

/// A caller that wants more than is left of a token must not have each one replaced as soon as it was made.
pub(super) fn old_enough(
    core: &Core,
    target: &Target,
    token: &Token,
    wanted: &Wanted,
    age: Duration,
) -> Result<(), Error> {
    let min_age = target.credential.min_age();
    let still_good = newer_than(wanted.refused);
    if age >= min_age || wanted.min_remaining.is_zero() || !token.satisfies(&still_good, &core.now()) {
        return Ok(());
    }
    let (left, wait) =
        (token.remaining(&core.now()).unwrap_or_default().as_secs(), (min_age - age).as_secs_f64().ceil());
    let problem =
        format!("{left} s are left of this token, and it is not replaced before {wait} s: ask for less, or wait");
    Err(Error::invalid("min_remaining", problem))
}

async fn refresh(core: &Arc<Core>, target: &Target, wanted: &Wanted, mut this: Try) -> Result<Arc<Token>, Error> {
    let mut events = core.store.events();
    let give_up = Instant::now() + core.timing.max_wait;
    let mut poll = POLL_FIRST;
    let bindings = target.credential.bindings();
    loop {
        let attempt = AttemptId::random();
        let is_good = || target.slot.is_good(wanted.refused, &core.now());
        let purpose = Purpose { needed: !is_good(), yields: this.extent != Extent::Default, dead: this.dead };
        let (place, owner, refused) = (&target.slot.place, &attempt, this.refused);
        let claim = Claim { place, owner, lease: core.timing.lease, refused, purpose };
        match core.store.claim(&claim).await? {
            Claimed::Newer(newer) => {
                // Whether it may be served is for the load to say: a replica that has another configuration may have made
                // it, of another provider or client.
                let token = core.load(target).await?.token;
                if let Some(token) = token.filter(|token| token.generation > refused) {
                    core.count_lookup(target, "store");
                    return Ok(token);
                }
                if Instant::now() >= give_up {
                    return Err(Error::RefreshInProgress { left: Duration::ZERO });
                }
                this.refused = refused.max(newer.generation);
            }
            Claimed::Resting(record) => {
                let is_over = Instant::now() >= give_up;
                let need = if purpose.needed { Need::Now } else { Need::Ahead };
                match candidate::settle_first(core, target, Some(&record), need).await? {
                    Before::Changed if is_over => return Err(Error::resting(&record)),
                    Before::Changed => {}
                    Before::Nothing if is_over || quarantine::remedy(&record, &bindings).is_none() => {
                        if !this.may_revive(core, target, &record, purpose.needed).await {
                            return Err(Error::resting(&record));
                        }
                        this.dead = true;
                    }
                    // It died while a late answer was being kept.
                    Before::Nothing => quarantine::revive(core, &target.slot.place, &bindings).await?,
                }
            }
            Claimed::Refused(refusal) => return Err(Error::refused(&refusal)),
            Claimed::Busy(left) if Instant::now() >= give_up => return Err(Error::RefreshInProgress { left }),
            Claimed::Busy(_) => {
                let jittered = poll.mul_f64(f64::midpoint(core.jitter(), 1.0));
                wait_for_change(&mut events, &target.slot.place.unit, jittered).await;
            }
            Claimed::Held { record, next, refusal } => {
                // Looked at anew under each lease: another try may have gone unanswered since this one was allowed to begin.
                let ahead = is_good();
                let need = if ahead { Need::Ahead } else { Need::Now };
                let hold = Hold { attempt, record, next, refusal, need, since: Instant::now(), mark: None };
                match work(core, target, hold).await {
                    Ok(Some(token)) => return Ok(token),
                    Ok(None) => {}
                    // The token ended while an early try failed. It is needed now, and its wait is another one.
                    Err(Error::Failed { .. }) if need == Need::Ahead && !is_good() => {}
                    Err(error) => return Err(error),
                }
                if Instant::now() >= give_up {
                    return Err(Error::RefreshInProgress { left: Duration::ZERO });
                }
            }
        }
        poll = (poll * 2).min(POLL_LONGEST);
    }
}

/// Works under a lease, on an imported refresh token first where one waits to be tried.
async fn work(core: &Arc<Core>, target: &Target, hold: Hold) -> Result<Option<Arc<Token>>, Error> {
    match candidate::settle_first(core, target, hold.record.as_ref(), hold.need).await {
        Ok(Before::Nothing) => attempt::work(core, target, hold).await,
        settled => {
            attempt::release(core, target, &hold).await;
            settled.map(|_| None)
        }
    }
}

/// Waits until something changes for this grant; a published event is a hint, and time the safety net.
pub(super) async fn wait_for_change(events: &mut broadcast::Receiver<Event>, unit: &UnitName, longest: Duration) {
    let changed = async {
        loop {
            match events.recv().await {
                Ok(Event::Changed(Change { unit: changed, .. }) | Event::Unverified { unit: changed, token: _ })
                    if changed == *unit =>
                {
                    return;
                }
                Ok(Event::Changed(_) | Event::Unverified { .. } | Event::Gap | Event::Heard) => {}
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    // Either way the store is looked at again.
    let _ = timeout(longest, changed).await;
}
