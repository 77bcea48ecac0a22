//! Reading the store into the cache.

use std::sync::Arc;

use super::{Core, Error, Target};
use crate::{cache::Epoch, clock::Moment, store::Loaded, token::Token};

impl Core {
    /// Reads what the store knows, and keeps its token in memory.
    pub(super) async fn load(&self, target: &Target) -> Result<(Loaded, Option<Arc<Token>>), Error> {
        let epoch = target.slot.epoch();
        let mut loaded = self.store.load(&target.slot.place).await?;
        let token = loaded.token.take().map(Arc::new);
        if let Some(token) = &token {
            self.keep(target, token, epoch);
            let failing = loaded.record.as_ref().is_some_and(|record| record.failure.is_some());
            target.slot.set_degraded(failing);
        }
        loaded.token = token.as_deref().cloned();
        Ok((loaded, token))
    }

    /// Keeps a token in memory and has it refreshed in time.
    pub(super) fn keep(&self, target: &Target, token: &Arc<Token>, epoch: Epoch) {
        if target.slot.put(token, epoch, &Moment::now()) {
            self.ahead.schedule(target, token);
        }
    }
}
