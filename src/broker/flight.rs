//! One piece of work for all callers of one token in this process.
//!
//! The work is a task of its own: no caller's cancellation, deadline or departure ends it. It takes its own entry out of
//! the map, by identity, before it tells its result, so a late caller can neither join a finished flight nor evict a
//! newer one.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{FutureExt, future::Shared};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::Instrument;

use super::{Core, Error, Target, refresh};
use crate::{
    cache::Edition,
    token::{Token, TokenKey, Wanted},
};

type Landed = Result<Arc<Token>, Error>;

/// The flights under way.
#[derive(Default)]
pub(super) struct Flights {
    next: AtomicU64,
    running: Mutex<HashMap<FlightKey, Running>>,
}

/// Callers share a flight only if their credential is the same, and not merely its name.
type FlightKey = (TokenKey, Edition);

struct Running {
    id: u64,
    landed: Shared<oneshot::Receiver<Landed>>,
}

impl Core {
    /// Joins the flight of a token, or starts one, and waits for its result.
    ///
    /// The flight may have been started for somebody who wanted less: whether the token is good enough is for the
    /// caller to look at.
    pub(super) async fn join(
        self: &Arc<Self>,
        target: &Target,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Arc<Token>, Error> {
        let landed = self.board(target, wanted);
        let in_progress = || Error::RefreshInProgress { left: self.timing.lease };
        match timeout_at(deadline, landed).await {
            Ok(Ok(result)) => result,
            // The flight's task ended without a word; the lease tells whoever asks next what is going on.
            Ok(Err(_)) | Err(_) => Err(in_progress()),
        }
    }

    fn board(self: &Arc<Self>, target: &Target, wanted: Wanted) -> Shared<oneshot::Receiver<Landed>> {
        let mut running = self.flights.running.lock();
        match running.entry(key(target)) {
            Entry::Occupied(flight) => flight.get().landed.clone(),
            Entry::Vacant(place) => {
                let id = self.flights.next.fetch_add(1, Ordering::Relaxed);
                let (land, landed) = oneshot::channel();
                let landed = landed.shared();
                place.insert(Running { id, landed: landed.clone() });
                self.tasks.spawn(fly(Arc::clone(self), target.clone(), wanted, id, land).in_current_span());
                landed
            }
        }
    }
}

async fn fly(core: Arc<Core>, target: Target, wanted: Wanted, id: u64, land: oneshot::Sender<Landed>) {
    // The entry goes even if the work should panic.
    let entry = EntryGuard { flights: &core.flights, key: key(&target), id };
    let result = refresh::obtain(&core, &target, wanted).await;
    drop(entry);
    // Nobody waiting any more is no fault.
    let _ = land.send(result);
}

fn key(target: &Target) -> FlightKey {
    (target.slot.key.clone(), target.slot.edition)
}

struct EntryGuard<'a> {
    flights: &'a Flights,
    key: FlightKey,
    id: u64,
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        let mut running = self.flights.running.lock();
        if running.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            running.remove(&self.key);
        }
    }
}
