//! One piece of work for all callers of one token in this process.
//!
//! The work is a task of its own: no caller's cancellation, deadline or departure ends it. It takes its own entry out of
//! the map, by identity, before it tells its result, so a late caller can neither join a finished flight nor evict a
//! newer one.

use std::{
    collections::HashMap,
    hash::Hash,
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

/// Pieces of work under way, each for all who want the same.
pub(super) struct Flights<K, T> {
    next: AtomicU64,
    running: Mutex<HashMap<K, Running<T>>>,
}

/// What a flight brings to everybody on board.
type Landing<T> = Shared<oneshot::Receiver<T>>;

struct Running<T> {
    id: u64,
    landing: Landing<T>,
}

/// Takes a flight's entry out when it is dropped.
pub(super) struct Entry<'a, K: Eq + Hash, T> {
    flights: &'a Flights<K, T>,
    key: K,
    id: u64,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { next: AtomicU64::default(), running: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Flights<K, T> {
    /// Joins a flight, or has one started, under a number of its own.
    pub(super) fn board(&self, key: &K, start: impl FnOnce(u64, oneshot::Sender<T>)) -> Landing<T> {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(key) {
            return flight.landing.clone();
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (land, landing) = oneshot::channel();
        let landing = landing.shared();
        running.insert(key.clone(), Running { id, landing: landing.clone() });
        start(id, land);
        landing
    }

    /// For the flight itself to hold.
    pub(super) fn entry(&self, key: K, id: u64) -> Entry<'_, K, T> {
        Entry { flights: self, key, id }
    }
}

impl<K: Eq + Hash, T> Drop for Entry<'_, K, T> {
    fn drop(&mut self) {
        let mut running = self.flights.running.lock();
        if running.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            running.remove(&self.key);
        }
    }
}

/// The flights of tokens.
pub(super) type Refreshes = Flights<FlightKey, Landed>;

type Landed = Result<Arc<Token>, Error>;

/// Callers share a flight only if their credential is the same, and not merely its name.
pub(super) type FlightKey = (TokenKey, Edition);

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

    fn board(self: &Arc<Self>, target: &Target, wanted: Wanted) -> Landing<Landed> {
        self.flights.board(&flight_key(target), |id, land| {
            self.tasks.spawn(fly(Arc::clone(self), target.clone(), wanted, id, land).in_current_span());
        })
    }
}

async fn fly(core: Arc<Core>, target: Target, wanted: Wanted, id: u64, land: oneshot::Sender<Landed>) {
    // The entry goes even if the work should panic.
    let entry = core.flights.entry(flight_key(&target), id);
    let result = refresh::obtain(&core, &target, wanted).await;
    drop(entry);
    // Nobody waiting any more is no fault.
    let _ = land.send(result);
}

/// What makes two callers want the same flight.
pub(super) fn flight_key(target: &Target) -> FlightKey {
    (target.slot.key.clone(), target.slot.edition)
}
