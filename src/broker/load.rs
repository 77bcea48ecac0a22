//! Reading the store into the cache.

use std::sync::Arc;

use super::{Core, Error, Target};
use crate::{cache::Epoch, store::Loaded, token::Token};

/// What the store knows of a target.
pub(super) struct Known {
    /// As it was read.
    pub(super) loaded: Loaded,
    /// Its token, if it belongs to the credential as it is configured now, and is not known to be dead.
    pub(super) token: Option<Arc<Token>>,
    /// When the reading began.
    pub(super) epoch: Epoch,
}

impl Core {
    /// Reads what the store knows, and keeps its token in memory.
    pub(super) async fn load(&self, target: &Target) -> Result<Known, Error> {
        let known = self.read(target).await?;
        if let Some(token) = &known.token {
            self.keep(target, token, known.epoch);
            let failing = known.loaded.record.as_ref().is_some_and(|record| record.failure.is_some());
            target.slot.set_degraded(failing);
        }
        Ok(known)
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
    loaded.record.as_ref().is_some_and(|record| record.secrets.binding == target.credential.binding())
}
