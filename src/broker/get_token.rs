//! `GetToken`: from memory while the token lives, else through the one flight that everybody shares.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Broker, Core, Error, Target};
use crate::{
    clock::Moment,
    name::{Resources, Scopes},
    policy::Permit,
    token::{Token, Wanted},
};

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Scopes; empty: the credential's own.
    pub scopes: Scopes,
    /// Resources; empty: the credential's own.
    pub resources: Resources,
    /// How fresh the token must be.
    pub wanted: Wanted,
}

/// A token that is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// The token.
    pub token: Arc<Token>,
    /// When it ends, where the provider or the configuration said so.
    pub expires_at: Option<SystemTime>,
    /// Whether refreshing fails at the moment.
    pub degraded: bool,
}

/// A result of somebody else's flight can be too old for a caller twice; a third time something is wrong.
const FLIGHTS: usize = 3;

impl Broker {
    /// Returns a valid token.
    ///
    /// # Errors
    ///
    /// [`Error`], when there is none and none can be had.
    pub async fn get_token(&self, permit: &Permit, ask: Ask) -> Result<Served, Error> {
        let target = self.core.target(permit.grant(), ask.scopes, ask.resources)?;
        let token = self.core.token(&target, ask.wanted).await?;
        Ok(Served::new(&target, token))
    }
}

impl Core {
    /// A token as fresh as wanted.
    pub(super) async fn token(self: &Arc<Self>, target: &Target, wanted: Wanted) -> Result<Arc<Token>, Error> {
        if let Some(token) = target.slot.fresh(&wanted, &Moment::now()) {
            self.count_lookup(target, "memory");
            self.consider_ahead(target, &token);
            return Ok(token);
        }
        for _ in 0..FLIGHTS {
            match self.join(target, wanted).await {
                Ok(token) if token.satisfies(&wanted, &Moment::now()) => return Ok(self.use_now(target, token)),
                Ok(_) => {}
                Err(error) => return self.make_do(target, &wanted, error),
            }
        }
        Err(Error::RefreshInProgress { left: Duration::ZERO })
    }

    fn use_now(self: &Arc<Self>, target: &Target, token: Arc<Token>) -> Arc<Token> {
        // Marks the slot as used, so that the token is refreshed ahead of its end.
        let _ = target.slot.valid(&Wanted::default(), &Moment::now());
        self.consider_ahead(target, &token);
        token
    }

    /// While the store is away, a token that is valid as far as this replica knows is better than none.
    fn make_do(&self, target: &Target, wanted: &Wanted, error: Error) -> Result<Arc<Token>, Error> {
        match error {
            Error::StoreUnavailable(_) => {
                let token = target.slot.valid(wanted, &Moment::now()).ok_or(error)?;
                target.slot.set_degraded(true);
                Ok(token)
            }
            Error::CredentialNotFound
            | Error::InvalidRequest { .. }
            | Error::Target(_)
            | Error::Failed { .. }
            | Error::RefreshInProgress { .. }
            | Error::RecordUnreadable(_)
            | Error::Upstream(_) => Err(error),
        }
    }
}

impl Served {
    pub(super) fn new(target: &Target, token: Arc<Token>) -> Self {
        let stated = token.expiry.filter(|expiry| expiry.stated);
        let expires_at = stated.map(|expiry| expiry.deadline.wall());
        Self { expires_at, degraded: target.slot.is_degraded(), token }
    }
}
