//! Which token endpoints want to be left alone, as the embedded store keeps it: in memory, like leases. After a restart
//! each is asked once and says so again.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    failure::FailureCause,
    store::{Rest, names::EndpointName},
};

/// Who rests, and until when. There are as many as token endpoints are configured.
#[derive(Default)]
pub(super) struct Rests {
    noted: Mutex<HashMap<EndpointName, (FailureCause, Instant)>>,
    /// Until when the turn to try a dead grant is taken.
    turns: Mutex<HashMap<EndpointName, Instant>>,
}

impl Rests {
    /// Notes a rest, unless a longer one is noted.
    pub(super) fn note(&self, endpoint: &EndpointName, rest: &Rest) {
        let until = Instant::now() + rest.left;
        let mut noted = self.noted.lock();
        if noted.get(endpoint).is_none_or(|(_, longest)| *longest < until) {
            noted.insert(endpoint.clone(), (rest.cause, until));
        }
    }

    /// Takes the one turn of a span, if it is free.
    pub(super) fn take_turn(&self, endpoint: &EndpointName, span: Duration) -> bool {
        let now = Instant::now();
        let mut turns = self.turns.lock();
        let free = turns.get(endpoint).is_none_or(|until| *until <= now);
        if free {
            turns.insert(endpoint.clone(), now + span);
        }
        free
    }

    /// What is left of a rest.
    pub(super) fn of(&self, endpoint: &EndpointName) -> Option<Rest> {
        let (cause, until) = self.noted.lock().get(endpoint).copied()?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(Rest { cause, left })
    }
}
