//! Leases of the embedded store. They live in memory: when the one process ends, so does every lease.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::{AttemptId, names::UnitName};

/// Who works on which grant.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<UnitName, Lease>>,
}

struct Lease {
    owner: AttemptId,
    until: Instant,
}

impl Leases {
    /// Takes the lease, or tells how long another's still lasts. Taking one's own again prolongs it.
    pub(super) fn take(&self, unit: &UnitName, owner: &AttemptId, span: Duration) -> Result<(), Duration> {
        let now = Instant::now();
        let mut held = self.held.lock();
        if let Some(lease) = held.get(unit)
            && lease.until > now
            && lease.owner != *owner
        {
            return Err(lease.until - now);
        }
        held.insert(unit.clone(), Lease { owner: owner.clone(), until: now + span });
        Ok(())
    }

    /// Whether the lease is this owner's, and lasts at least that long.
    pub(super) fn holds(&self, unit: &UnitName, owner: &AttemptId, need: Duration) -> bool {
        let now = Instant::now();
        let held = self.held.lock();
        held.get(unit).is_some_and(|lease| lease.owner == *owner && lease.until > now && lease.until - now >= need)
    }

    /// Gives the lease back if it is this owner's.
    pub(super) fn release(&self, unit: &UnitName, owner: &AttemptId) {
        let mut held = self.held.lock();
        if held.get(unit).is_some_and(|lease| lease.owner == *owner) {
            held.remove(unit);
        }
    }
}
