//! Refusals of single tokens, as the embedded store keeps them: in memory, like leases. After a restart each token is asked
//! for once more.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    failure::FailureCause,
    store::{
        Refuse, TokenRefusal,
        names::{Place, UnitName},
        record::{MAX_WAIT, REFUSAL_REMEMBERED},
    },
};

/// How many refusals are kept; those that would be forgotten first go.
const MOST: usize = 4_096;

/// What was refused, and until when claims that yield wait for others.
#[derive(Default)]
pub(super) struct Refusals {
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    tokens: HashMap<Place, Known>,
    give_way: HashMap<UnitName, Instant>,
}

#[derive(Clone, Copy)]
struct Known {
    cause: FailureCause,
    count: u32,
    until: Instant,
    early: bool,
}

impl Refusals {
    /// Notes a refusal after those that are known of the same token.
    pub(super) fn note(&self, refuse: &Refuse<'_>) {
        let now = Instant::now();
        let mut noted = self.noted.lock();
        noted.forget(now);
        let known = noted.tokens.get(refuse.place).copied();
        let (cause, until) = (refuse.cause, now + refuse.wait.min(MAX_WAIT));
        let early = refuse.early && known.is_none_or(|known| known.early);
        let count = known.filter(|known| known.early == early).map_or(0, |known| known.count).saturating_add(1);
        noted.tokens.insert(refuse.place.clone(), Known { cause, count, until, early });
        noted.give_way.insert(refuse.place.unit.clone(), now + refuse.give_way.min(MAX_WAIT));
    }

    /// The last refusal of a token.
    pub(super) fn of(&self, place: &Place) -> Option<TokenRefusal> {
        let Known { cause, count, until, early } = self.noted.lock().tokens.get(place).copied()?;
        let wait = until.saturating_duration_since(Instant::now());
        Some(TokenRefusal { cause, count, wait, early })
    }

    /// How long claims that yield still wait.
    pub(super) fn give_way(&self, unit: &UnitName) -> std::time::Duration {
        let until = self.noted.lock().give_way.get(unit).copied();
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// The token was obtained.
    pub(super) fn obtained(&self, place: &Place) {
        self.noted.lock().tokens.remove(place);
    }

    /// The grant was replaced.
    pub(super) fn replaced(&self, unit: &UnitName) {
        self.noted.lock().tokens.retain(|place, _| place.unit != *unit);
    }
}

impl Noted {
    fn forget(&mut self, now: Instant) {
        self.give_way.retain(|_, until| *until > now);
        if self.tokens.len() < MOST {
            return;
        }
        self.tokens.retain(|_, known| known.until + REFUSAL_REMEMBERED > now);
        let first = self.tokens.iter().min_by_key(|(_, known)| known.until).map(|(place, _)| place.clone());
        if let Some(first) = first.filter(|_| self.tokens.len() >= MOST) {
            self.tokens.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        store::{AttemptId, names::TokenName},
        token::Generation,
    };

    #[tokio::test(start_paused = true)]
    async fn only_so_many_refusals_are_kept() {
        let refusals = Refusals::default();
        let place =
            |number: usize| Place { unit: UnitName::from("crm/a"), token: TokenName::from(&*number.to_string()) };
        for number in 0..=MOST {
            let refuse = Refuse {
                place: &place(number),
                attempt: &AttemptId::random(),
                expected: Generation::ZERO,
                cause: FailureCause::InsufficientScope,
                wait: Duration::from_secs(60),
                early: false,
                give_way: Duration::ZERO,
            };
            refusals.note(&refuse);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(refusals.noted.lock().tokens.len(), MOST);
        assert!(refusals.of(&place(0)).is_none() && refusals.of(&place(1)).is_some());
    }
}
