//! Reading the store into the cache.

use std::sync::Arc;

use super::{Core, Error, Target};
use crate::{
    cache::Epoch,
    store::{Loaded, Look},
    token::Token,
};

/// What the store knows of a target.
pub(super) struct Known {
    /// As it was read.
    pub(super) loaded: Loaded,
    /// Its token, if it belongs to the credential as it is configured now, and is not known to be dead.
    pub(super) token: Option<Arc<Token>>,
    /// When the reading began.
    pub(super) epoch: Epoch,
}

impl Known {
    /// Whether a failure was noted since the last success.
    fn is_failing(&self) -> bool {
        self.loaded.refusal.is_some() || self.loaded.record.as_ref().is_some_and(|record| record.failure.is_some())
    }
}

impl Core {
    /// Reads what the store knows, and keeps its token in memory.
    pub(super) async fn load(&self, target: &Target) -> Result<Known, Error> {
        let known = self.read(target).await?;
        self.take_in(target, known.token.as_ref(), known.epoch, known.is_failing());
        Ok(known)
    }

    fn take_in(&self, target: &Target, token: Option<&Arc<Token>>, epoch: Epoch, failing: bool) {
        if let Some(token) = token {
            self.keep(target, token, epoch);
            target.slot.set_degraded(failing);
        }
    }

    /// Reads what the store knows.
    pub(super) async fn read(&self, target: &Target) -> Result<Known, Error> {
        let epoch = target.slot.epoch();
        let place = &target.slot.place;
        let mut loaded = self.store.load(place).await?;
        if self.went_back(&place.unit, loaded.revision()).await? {
            loaded = self.store.load(place).await?;
        }
        let token =
            loaded.token.clone().filter(|token| belongs(&loaded, target) && token.generation > target.slot.floor());
        Ok(Known { loaded, token: token.map(Arc::new), epoch })
    }

    /// Looks into the store with a token at hand, and has it believed for longer if it is the store's too. Else the store's
    /// token is read and kept, if there is one that would be served.
    pub(super) async fn revalidate(
        &self,
        target: &Target,
        at_hand: &Arc<Token>,
    ) -> Result<(Option<Arc<Token>>, Epoch), Error> {
        let epoch = target.slot.epoch();
        let place = &target.slot.place;
        match self.store.look(place, at_hand.generation).await? {
            // The grant is the one that this token came with, so it belongs to the credential still.
            Look::Unchanged { failing } if !self.went_back(&place.unit, at_hand.generation).await? => {
                let token = Some(at_hand).filter(|token| token.generation > target.slot.floor());
                self.take_in(target, token, epoch, failing);
                Ok((token.cloned(), epoch))
            }
            Look::Unchanged { failing: _ } | Look::Changed => {
                self.load(target).await.map(|known| (known.token, known.epoch))
            }
        }
    }

    /// Keeps a token in memory and has it refreshed in time.
    pub(super) fn keep(&self, target: &Target, token: &Arc<Token>, epoch: Epoch) {
        let now = self.now();
        if target.slot.put(token, epoch, &now) {
            self.schedule_ahead(target, token, &now);
        }
    }
}

/// A token of another provider or client goes nowhere: after a change of the configuration it would reach an upstream
/// that it was not issued for.
fn belongs(loaded: &Loaded, target: &Target) -> bool {
    loaded.record.as_ref().is_some_and(|record| record.secrets.belong_to(&target.credential.bindings()))
}
