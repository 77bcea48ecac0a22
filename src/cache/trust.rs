//! Whether what is in memory is believed without a look into the store.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Whether changes in the store are heard. What was put in during another epoch is looked up again before it is served.
pub(super) struct Trust {
    epoch: AtomicU64,
    hearing: AtomicBool,
    pub(super) max_age: Option<Duration>,
}

/// When a load began; a token from it is believed only if no event was missed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Trust {
    pub(super) fn new(max_age: Option<Duration>) -> Self {
        Self { epoch: AtomicU64::new(0), hearing: AtomicBool::new(true), max_age }
    }

    pub(super) fn turn(&self, hearing: bool) {
        self.hearing.store(hearing, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Whether changes are heard now.
    pub(super) fn is_hearing(&self) -> bool {
        self.hearing.load(Ordering::SeqCst)
    }
}

impl Epoch {
    /// The epoch of one slot: both numbers only grow, so two sums are equal only where neither has grown.
    pub(super) fn of_slot(self, doubts: u32) -> Self {
        Self(self.0 + u64::from(doubts))
    }
}
