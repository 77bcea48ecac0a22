//! `GetToken`: from memory while the token lives, else through the one flight that everybody shares.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};

use super::{
    Broker, Core, Error, Target, refresh,
    report::{About, Replaced},
};
use crate::{
    clock::Moment,
    policy::Permit,
    token::{Generation, Life, Token, Wanted},
};

/// A token that is served, or shown where it stands in memory.
#[derive(Clone, Debug)]
pub struct Served<T = Arc<Token>> {
    /// The token.
    pub token: T,
    /// When it ends, where the provider or the configuration said so.
    pub expires_at: Option<SystemTime>,
    /// Whether refreshing fails at the moment.
    pub degraded: bool,
}

/// A result of somebody else's flight can be too old for a caller twice; a third time something is wrong.
const FLIGHTS: usize = 3;

/// How long the store may take for a look that is not needed, because a token is at hand.
const LOOK: Duration = Duration::from_millis(500);

/// After a look in vain the store is left alone for this long, so that not every caller waits for it.
const LEFT_ALONE: Duration = Duration::from_secs(1);

impl Broker {
    /// Shows a token that is as fresh as wanted in this replica's memory: nothing is waited for and nothing is to be said.
    /// `None`: [`Self::get_token`] knows what to do.
    pub fn at_hand<R>(&self, permit: &Permit, wanted: &Wanted, show: impl FnOnce(&Served<&Token>) -> R) -> Option<R> {
        let target = self.core.target(&self.roster, permit.token()).ok()?;
        // Read once: on this way the clocks are a good part of the work.
        let now = self.core.now();
        let seen = |token: &Token, degraded| {
            let covered = Error::unless_covered(permit.granted(), &token.scopes).is_ok();
            covered.then(|| (show(&Served::new(token, degraded)), token.life()))
        };
        let (shown, life) = target.slot.read(wanted, &now, seen)??;
        self.core.was_found(&target, life, &now);
        Some(shown)
    }

    /// Returns a valid token, as fresh as wanted.
    ///
    /// # Errors
    ///
    /// [`Error`], when there is none and none can be had.
    pub async fn get_token(&self, permit: Permit, wanted: Wanted) -> Result<Served, Error> {
        let target = self.target(&permit)?;
        let granted = permit.granted().clone();
        drop(permit);
        let deadline = Instant::now() + self.core.timing.max_wait;
        let token = self.core.wanted_token(&target, wanted, deadline).await?;
        Error::unless_covered(&granted, &token.scopes)?;
        Ok(Served::new(token, target.slot.is_degraded()))
    }
}

impl Core {
    /// A token as a caller wants it. To refuse the current generation, or a newer one, is to report it.
    async fn wanted_token(
        self: &Arc<Self>,
        target: &Target,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Arc<Token>, Error> {
        let refuses = wanted.refused > Generation::ZERO;
        if refuses && target.slot.fresh(&wanted, &self.now()).is_none() {
            // In a box, as the look below is: a future is as large as the largest that it waits for, and most of those that
            // exist at a time wait for a flight.
            match Box::pin(self.report(target, About::Refused(wanted.refused), deadline)).await? {
                Replaced::HeldBack(wait) => return Err(Error::RejectedRepeatedly { wait }),
                // Whether that token is what is wanted is seen below.
                Replaced::With(_, _) | Replaced::Unchanged(_) => {}
            }
        }
        self.token(target, wanted, deadline).await
    }

    /// A token as fresh as wanted.
    pub(super) async fn token(
        self: &Arc<Self>,
        target: &Target,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.at_hand(target, &wanted) {
            return Ok(token);
        }
        // A token that is only due for a look into the store must not wait for a refresh that somebody else began.
        if let Some(token) = target.slot.valid(&wanted, &self.now())
            && let Some(token) = Box::pin(self.look(target, &wanted, token)).await
        {
            self.consider_ahead(target, token.life(), &self.now());
            return Ok(token);
        }
        for _ in 0..FLIGHTS {
            let token = self.join(target, wanted, deadline).await?;
            if token.satisfies(&wanted, &self.now()) {
                return Ok(self.use_now(target, token));
            }
            refresh::outlives(&token, &wanted)?;
        }
        Err(Error::RefreshInProgress { left: Duration::ZERO })
    }

    fn at_hand(self: &Arc<Self>, target: &Target, wanted: &Wanted) -> Option<Arc<Token>> {
        let now = self.now();
        let token = target.slot.fresh(wanted, &now)?;
        self.was_found(target, token.life(), &now);
        Some(token)
    }

    /// What follows when a token was found in memory.
    fn was_found(self: &Arc<Self>, target: &Target, life: Life, now: &Moment) {
        target.credential.found.get_or_init(|| self.lookups(target, "memory")).inc();
        self.consider_ahead(target, life, now);
    }

    /// Looks into the store, with a token at hand that may have been replaced. While the store is away, that token is
    /// better than none: it is valid as far as this replica knows. `None`: the store holds no token that would do.
    async fn look(self: &Arc<Self>, target: &Target, wanted: &Wanted, at_hand: Arc<Token>) -> Option<Arc<Token>> {
        let away = self.away_until.lock().is_some_and(|until| Instant::now() < until);
        if !away {
            match timeout(LOOK, self.revalidate(target, &at_hand)).await {
                Ok(Ok((token, epoch))) => {
                    let token = token.filter(|token| token.satisfies(wanted, &self.now()));
                    if token.is_none() && !self.hand_back(target, &at_hand, epoch) {
                        return None;
                    }
                    self.count_lookup(target, if token.is_some() { "store" } else { "memory" });
                    return token.or(Some(at_hand));
                }
                Ok(Err(Error::StoreUnavailable(_))) | Err(_) => {
                    *self.away_until.lock() = Some(Instant::now() + LEFT_ALONE);
                }
                // What else is wrong is found again, and told, on the way of a refresh.
                Ok(Err(_)) => return None,
            }
        }
        target.slot.set_degraded(true);
        self.count_lookup(target, "memory");
        Some(at_hand)
    }

    fn use_now(self: &Arc<Self>, target: &Target, token: Arc<Token>) -> Arc<Token> {
        // So that it is refreshed ahead of its end.
        let now = self.now();
        target.slot.mark_used(&now);
        self.consider_ahead(target, token.life(), &now);
        token
    }
}

impl<T: Deref<Target = Token>> Served<T> {
    pub(super) fn new(token: T, degraded: bool) -> Self {
        let stated = token.expiry.filter(|expiry| expiry.stated);
        let expires_at = stated.map(|expiry| expiry.deadline.wall());
        Self { token, expires_at, degraded }
    }
}
