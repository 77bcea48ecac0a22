//! Taking up answers that a former process could not store.

use std::sync::Arc;

use tracing::{info, warn};

use super::{Core, commit};
use crate::store::{Written, spool::Spooled};

/// Stores, in the background, whatever the spool holds.
pub(super) fn take_up(core: &Arc<Core>) {
    let Some(spool) = &core.spool else { return };
    for spooled in spool.pending() {
        core.tasks.spawn(store(Arc::clone(core), spooled));
    }
}

async fn store(core: Arc<Core>, spooled: Spooled) {
    let commit = spooled.commit();
    let unit = &commit.place.unit;
    // No flight of this process sends the refresh token again that this answer replaces.
    let _mark = core.under_way.mark(unit);
    match commit::commit_until_stored(&core, false, &commit).await {
        Ok(Written::Done) => info!(?unit, "an answer from before the restart was stored"),
        Ok(Written::Moved) => warn!(?unit, "an answer from before the restart came too late; a newer one is there"),
        // It stays in the spool: a key that is missing now may be there at the next start.
        Err(error) => return warn!(?unit, %error, "an answer from before the restart cannot be stored"),
    }
    if let Some(spool) = &core.spool {
        spool.forget(commit.attempt).await;
    }
}
