//! The rest of a whole provider: what one grant is told in a 429 holds for every grant of the same client, on every
//! replica.
//!
//! The store tells all replicas. What this process knows of it is kept here too, so that callers who wait do not ask the
//! store about it, and here the end of a rest is spread, so that not every grant comes back in the same moment.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::{Core, Error, Target};
use crate::{
    failure::FailureCause,
    store::{EndpointName, Rest, StoreError, UnitName, record::MAX_WAIT},
};

/// The rests that this process knows of; as many as token endpoints are configured.
#[derive(Default)]
pub(super) struct Rests {
    known: Mutex<HashMap<EndpointName, Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    cause: FailureCause,
    until: Instant,
    /// How much longer the last of all grants waits.
    tail: Duration,
}

/// How seldom dead grants of one client are tried.
const TURN: Duration = Duration::from_secs(60);

/// The longest time over which the end of a rest is spread.
const LONGEST_TAIL: Duration = Duration::from_secs(30);

impl Core {
    /// What is left for this grant of its provider's rest, as far as this process knows.
    pub(super) fn known_rest(&self, target: &Target) -> Option<Error> {
        let left = self.rests.left(&self.endpoint(target), &target.slot.place.unit)?;
        target.slot.set_degraded(true);
        Some(Error::Failed { cause: left.cause, retry_after: Some(left.left) })
    }

    /// The same, with a look into the store: for the moment before a request would be sent.
    pub(super) async fn rest(&self, target: &Target) -> Result<Option<Error>, Error> {
        if let Some(resting) = self.known_rest(target) {
            return Ok(Some(resting));
        }
        let endpoint = self.endpoint(target);
        match self.store.cooling(&endpoint).await {
            Ok(Some(rest)) => {
                self.rests.note(&endpoint, &rest);
                Ok(self.known_rest(target))
            }
            Ok(None) => Ok(None),
            // Nobody would mend it, and at worst the provider says once more what it said.
            Err(error @ StoreError::Unreadable(_)) => {
                warn!(credential = %target.credential.name, %error, "whether the provider wants a rest cannot be read");
                Ok(None)
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Open(_))) => Err(error.into()),
        }
    }

    /// Has every grant of this client rest.
    pub(super) async fn cool_down(&self, target: &Target, rest: Rest) {
        self.rest_here(target, &rest);
        if let Err(error) = self.store.cool_down(&self.endpoint(target), &rest).await {
            warn!(credential = %target.credential.name, %error, "other replicas could not be told of a provider's rest");
        }
    }

    /// Has every grant of this client rest on this replica.
    pub(super) fn rest_here(&self, target: &Target, rest: &Rest) {
        warn!(credential = %target.credential.name, wait = ?rest.left, "the provider wants a rest; all its grants wait");
        self.rests.note(&self.endpoint(target), &Rest { left: rest.left.min(MAX_WAIT), ..*rest });
    }

    /// Takes the one turn in a minute in which a dead grant of this client may be tried, on any replica. While the store does
    /// not tell, none is tried.
    pub(super) async fn take_turn(&self, target: &Target) -> bool {
        self.store.take_turn(&self.endpoint(target), TURN).await.unwrap_or(false)
    }

    fn endpoint(&self, target: &Target) -> EndpointName {
        self.store.names().endpoint(&target.credential.grant.requester())
    }
}

impl Rests {
    fn note(&self, endpoint: &EndpointName, rest: &Rest) {
        let until = Instant::now() + rest.left;
        let known = Known { cause: rest.cause, until, tail: (rest.left / 5).min(LONGEST_TAIL) };
        let mut all = self.known.lock();
        if all.get(endpoint).is_none_or(|longest| longest.until < until) {
            all.insert(endpoint.clone(), known);
        }
    }

    fn left(&self, endpoint: &EndpointName, unit: &UnitName) -> Option<Rest> {
        let Known { cause, until, tail } = self.known.lock().get(endpoint).copied()?;
        let left = (until + tail.mul_f64(share(unit))).saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(Rest { cause, left })
    }
}

/// A number from 0 to 1 that stays the same for a grant: one that was drawn anew each time would let the first caller
/// through who draws a small one.
fn share(unit: &UnitName) -> f64 {
    let mut hasher = DefaultHasher::new();
    unit.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() >> 48).unwrap_or(u16::MAX)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::names::Names;

    #[tokio::test(start_paused = true)]
    async fn grants_come_back_one_after_the_other() {
        let (rests, names) = (Rests::default(), Names::new(&[1; 32]));
        let (endpoint, other) = (names.endpoint("https://as.example/token a"), names.endpoint("elsewhere a"));
        let span = Duration::from_secs(100);
        rests.note(&endpoint, &Rest { cause: FailureCause::ProviderRateLimited, left: span });
        // A shorter one changes nothing.
        rests.note(&endpoint, &Rest { cause: FailureCause::ProviderUnavailable, left: span / 2 });
        let units: Vec<UnitName> = (0..50).map(|number| UnitName::from(&*format!("crm/{number}"))).collect();
        let resting = || units.iter().filter(|unit| rests.left(&endpoint, unit).is_some()).count();
        assert!(rests.left(&other, &units[0]).is_none());
        assert!(rests.left(&endpoint, &units[0]).is_some_and(|rest| rest.cause == FailureCause::ProviderRateLimited));
        tokio::time::advance(span - Duration::from_millis(1)).await;
        assert_eq!(resting(), units.len());
        tokio::time::advance(span / 10).await;
        assert!((10..=40).contains(&resting()), "{}", resting());
        tokio::time::advance(span / 10).await;
        assert_eq!(resting(), 0);
    }
}
