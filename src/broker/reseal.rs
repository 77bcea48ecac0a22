//! `ResealRecords`: what each seal key sealed, and sealing it anew, so that an old key can go.

use super::{Broker, Error};
use crate::{
    policy::StorePermit,
    store::{Census, Step, census::UNKNOWN},
    telemetry::KeyOnly,
};

/// One step of a pass through everything that is stored.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Where the step before ended; `None`: at the beginning.
    pub from: Option<String>,
    /// What the steps before found.
    pub so_far: Census,
    /// Whether to seal anew; else it is only counted.
    pub reseal: bool,
}

/// The end of a step.
#[derive(Clone, Debug)]
pub struct Passed {
    /// What all steps found so far. Its keys are the configured ones, and perhaps the one for all others.
    pub census: Census,
    /// The ids of the configured keys, the sealing one first.
    pub keys: Vec<String>,
    /// Where the next step begins; `None`: everything was looked at.
    pub next: Option<String>,
}

impl Broker {
    /// Goes one step. The spool of this replica is part of the first one.
    ///
    /// # Errors
    ///
    /// [`Error`], when the store cannot be read or written.
    pub async fn reseal(&self, _permit: &StorePermit, pass: Pass) -> Result<Passed, Error> {
        let step = Step { from: pass.from.as_deref(), reseal: pass.reseal };
        let stepped = self.core.store.reseal(&step).await?;
        let mut census = pass.so_far;
        census.add(&stepped.census);
        if let Some(spool) = self.core.spool.as_ref().filter(|_| pass.from.is_none()) {
            census.add(&spool.reseal(pass.reseal).await);
        }
        let keys = self.core.store.seal_keys();
        // The keys can have changed since the pass began.
        census.rename(|id| if keys.iter().any(|key| key == id) { id } else { UNKNOWN });
        if stepped.next.is_none() {
            self.show(&census, &keys);
        }
        Ok(Passed { census, keys, next: stepped.next })
    }

    /// Keys that are not configured any more leave the metric.
    fn show(&self, census: &Census, keys: &[String]) {
        let gauge = &self.core.telemetry.sealed_records;
        gauge.clear();
        for key in keys.iter().map(String::as_str).chain([UNKNOWN]) {
            let records = census.sealed.get(key).copied().unwrap_or_default();
            let records = i64::try_from(records).unwrap_or(i64::MAX);
            gauge.get_or_create(&KeyOnly { key: key.to_owned() }).set(records);
        }
        let records: u64 = census.sealed.values().sum();
        let (resealed, unreadable) = (census.resealed, census.unreadable);
        tracing::info!(records, resealed, unreadable, "counted all sealed records");
    }
}
