//! How much is taken on: of one caller, so that it leaves room for the others, and of all together.
//!
//! Both answers are given before a request is looked at: no policy, no lock and no store has been touched then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// How many requests a second one caller may send for long.
    pub requests_per_second: u32,
    /// How many it may send at once after a pause.
    pub burst: u32,
    /// How many requests of all callers may be under way.
    pub max_in_flight: usize,
}

/// One request too many; try again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one request too many")]
pub struct Excess(pub Duration);

/// Counts requests.
pub struct Limits {
    slots: Arc<Semaphore>,
    rate: Rate,
    start: Instant,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct Slot {
    _held: OwnedSemaphorePermit,
}

/// Callers that are remembered. With more of them at once, the one that was quiet for longest starts afresh.
const CALLERS: u64 = 10_000;

/// What is told to those who come while everything is full: somebody is done in less.
pub const SHORT_WAIT: Duration = Duration::from_millis(250);

impl Limits {
    /// Limits from here on.
    pub fn new(config: &LimitConfig) -> Self {
        let slots = config.max_in_flight.min(Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(slots)), rate: Rate::new(config), start: Instant::now() }
    }

    /// Takes on a request, whoever sends it.
    ///
    /// # Errors
    ///
    /// [`Excess`], if as many as allowed are under way.
    pub fn enter(&self) -> Result<Slot, Excess> {
        let held = Arc::clone(&self.slots).try_acquire_owned();
        held.map(|held| Slot { _held: held }).map_err(|_| Excess(SHORT_WAIT))
    }

    /// Counts a request of this caller.
    ///
    /// # Errors
    ///
    /// [`Excess`], if it sends more than it may.
    pub fn count(&self, caller: &str) -> Result<(), Excess> {
        self.rate.count(caller, self.start.elapsed())
    }
}

/// The generic cell rate algorithm (ITU-T I.371): of a caller no more is kept than the time at which it will have paid
/// for what it sent.
struct Rate {
    /// What one request costs.
    interval: u64,
    /// What a caller may owe.
    credit: u64,
    paid_at: Cache<String, Arc<AtomicU64>>,
}

impl Rate {
    fn new(config: &LimitConfig) -> Self {
        let interval = 1_000_000_000 / u64::from(config.requests_per_second.max(1));
        let credit = interval * u64::from(config.burst.max(1));
        // Whoever owes nothing any more is as good as new, and forgotten.
        let settled = Duration::from_nanos(credit) + Duration::from_secs(1);
        let paid_at = Cache::builder()
            .max_capacity(CALLERS)
            // Least recently used, not least often: somebody new must be remembered, else nobody new is limited.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(settled)
            .build();
        Self { interval, credit, paid_at }
    }

    fn count(&self, caller: &str, now: Duration) -> Result<(), Excess> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let paid_at = self.paid_at.entry_by_ref(caller).or_default().into_value();
        let step = |paid_at: u64| {
            let next = paid_at.max(now).saturating_add(self.interval);
            (next - now <= self.credit).then_some(next)
        };
        paid_at
            .try_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .map(drop)
            .map_err(|paid_at| Excess(Duration::from_nanos(paid_at.saturating_add(self.interval) - now - self.credit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LimitConfig = LimitConfig { requests_per_second: 10, burst: 5, max_in_flight: 2 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate() {
        let rate = Rate::new(&CONFIG);
        for _ in 0..5 {
            assert_eq!(rate.count("a", at(1000)), Ok(()));
        }
        assert_eq!(rate.count("a", at(1000)), Err(Excess(at(100))));
        assert_eq!(rate.count("a", at(1060)), Err(Excess(at(40))));
        assert_eq!(rate.count("a", at(1100)), Ok(()));
        assert_eq!(rate.count("a", at(1100)), Err(Excess(at(100))));
        // What is refused costs nothing, so whoever waits as told is let in.
        assert_eq!(rate.count("a", at(1200)), Ok(()));
        let later = (0..100).filter(|_| rate.count("a", at(60_000)).is_ok()).count();
        assert_eq!(later, 5, "a pause earns a burst and no more");
    }

    #[test]
    fn over_time_it_is_the_rate() {
        let rate = Rate::new(&CONFIG);
        let passed = (0..10_000).filter(|millis| rate.count("a", at(*millis)).is_ok()).count();
        assert!((100..=105).contains(&passed), "{passed} in 10 s");
    }

    #[test]
    fn callers_do_not_share_and_are_not_remembered_without_end() {
        let rate = Rate::new(&LimitConfig { burst: 1, ..CONFIG });
        for caller in 0..CALLERS * 2 {
            assert_eq!(rate.count(&caller.to_string(), at(0)), Ok(()));
        }
        assert!(rate.count(&(CALLERS * 2 - 1).to_string(), at(0)).is_err(), "the latest is remembered");
        rate.paid_at.run_pending_tasks();
        assert!(rate.paid_at.entry_count() <= CALLERS);
    }

    #[test]
    fn a_request_leaves_its_place_when_it_is_over() {
        let limits = Limits::new(&CONFIG);
        let first = limits.enter().unwrap();
        let _second = limits.enter().unwrap();
        assert_eq!(limits.enter().unwrap_err(), Excess(SHORT_WAIT));
        drop(first);
        assert!(limits.enter().is_ok());
    }
}
