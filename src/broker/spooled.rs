//! Answers that could not be stored when they came: a former process left them in the spool, or the record could not be read.
//! They are tried until the store takes them, for as long as this process lives; the next one finds them in the spool.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{Core, commit, quarantine, under_way::Mark};
use crate::store::{StoreError, Written, spool::Spooled};

/// How long a record that cannot be read is left alone: somebody has to mend it, and then callers wait for no longer than this.
const MENDED: Duration = Duration::from_secs(5);

/// Stores, in the background, whatever the spool holds.
pub(super) fn take_up(core: &Arc<Core>) {
    let Some(spool) = &core.spool else { return };
    for spooled in spool.pending() {
        let mark = core.under_way.mark(&spooled.commit().place.unit);
        tokio::spawn(store(Arc::downgrade(core), spooled, mark, commit::COMMIT_RETRY_FIRST));
    }
}

/// Goes on with an answer whose record could not be read. Nobody but the mark holds the grant meanwhile, and the record may be
/// back at any time, with the refresh token that this answer replaces.
pub(super) fn try_again_later(core: &Arc<Core>, spooled: Spooled, mark: Option<Mark>) {
    let core = Arc::downgrade(core);
    tokio::spawn(async move {
        sleep(MENDED).await;
        store(core, spooled, mark, commit::COMMIT_RETRY_FIRST).await;
    });
}

/// Tries until the answer is stored. No flight of this process sends the refresh token again that it replaces: until then the
/// grant is marked.
async fn store(core: Weak<Core>, spooled: Spooled, _mark: Option<Mark>, mut wait: Duration) {
    let mut told = false;
    while let Some(core) = core.upgrade() {
        let Err(error) = try_once(&core, &spooled).await else { return };
        if !std::mem::replace(&mut told, true) {
            warn!(unit = ?spooled.commit().place.unit, %error, "an answer that waits cannot be stored yet; trying again");
        }
        drop(core);
        match error {
            StoreError::Unavailable(_) => {
                sleep(wait).await;
                wait = (wait * 2).min(commit::COMMIT_RETRY_LONGEST);
            }
            StoreError::Unreadable(_) | StoreError::Open(_) => sleep(MENDED).await,
        }
    }
}

async fn try_once(core: &Core, spooled: &Spooled) -> Result<(), StoreError> {
    let commit = spooled.commit();
    let unit = &commit.place.unit;
    match quarantine::commit_or_keep(core, &commit).await? {
        Written::Done => info!(?unit, "an answer that waited was stored"),
        Written::Moved => warn!(?unit, "an answer that waited came too late; a newer one is there"),
    }
    if let Some(spool) = &core.spool {
        spool.forget(commit.attempt).await;
    }
    Ok(())
}
