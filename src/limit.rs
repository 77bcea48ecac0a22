//! How much is taken on: of one caller, so that it leaves room for the others, and of all together.
//!
//! Whether there is room for one more is asked before anything else. What one caller sends is counted as soon as it is known
//! who that is: its proof was checked then, for which an issuer may have been asked, and neither policy nor store were.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quick_cache::sync::Cache;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::bodies::Total;
pub use self::{bodies::Bodies, damper::Damper};

mod bodies;
mod damper;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// How many requests a second one caller may send for long.
    pub requests_per_second: u32,
    /// How many it may send at once after a pause.
    pub burst: u32,
    /// How many requests of all callers may be under way.
    pub max_in_flight: usize,
    /// How many of them may be one caller's.
    pub max_in_flight_per_caller: usize,
    /// How many proofs that do not hold one address may show in a second for long, and ten times as many at once.
    pub failed_proofs_per_second: u32,
    /// How much the bodies of all calls under way may take, in bytes.
    pub max_call_body_bytes: usize,
    /// How much of it the bodies of one caller's calls may take.
    pub max_call_body_bytes_per_caller: usize,
}

/// One request too many; try again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one request too many")]
pub struct Excess(pub Duration);

/// Counts requests.
pub struct Limits {
    slots: Arc<Semaphore>,
    accounts: Accounts,
    bodies: Arc<Total>,
    failed_proofs: FailedProofs,
    start: Instant,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct Slot {
    _held: OwnedSemaphorePermit,
}

/// The same of one caller, where it counts as one of this caller's.
#[derive(Debug)]
pub struct Counted {
    account: Arc<Account>,
}

/// What is known of a caller.
#[derive(Debug, Default)]
struct Account {
    /// When it will have paid for what it sent, in nanoseconds.
    paid_at: AtomicU64,
    under_way: AtomicUsize,
    /// How many bytes the bodies of its calls hold.
    bodies: AtomicUsize,
}

/// Callers that are remembered. With more of them at once, some of those that were quiet start afresh.
const CALLERS: usize = 10_000;

/// What is told to those who come while everything is full: somebody is done in less.
pub const SHORT_WAIT: Duration = Duration::from_millis(250);

impl Limits {
    /// Limits from here on.
    pub fn new(config: &LimitConfig) -> Self {
        let slots = config.max_in_flight.min(Semaphore::MAX_PERMITS);
        let bodies = Arc::new(Total::new(config.max_call_body_bytes, config.max_call_body_bytes_per_caller));
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            accounts: Accounts::new(config),
            bodies,
            failed_proofs: FailedProofs::new(config.failed_proofs_per_second),
            start: Instant::now(),
        }
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
    /// [`Excess`], if it sends more than it may, or has as many under way as it may.
    pub fn count(&self, caller: &str) -> Result<Counted, Excess> {
        self.accounts.count(caller, self.start.elapsed())
    }

    /// Counts a proof from this address that does not hold.
    ///
    /// # Errors
    ///
    /// [`Excess`], if there are too many of them.
    pub fn proof_failed(&self, address: IpAddr) -> Result<(), Excess> {
        self.failed_proofs.count(address, self.start.elapsed())
    }

    /// What the bodies of a call of this caller will hold: nothing yet.
    pub fn bodies(&self, counted: &Counted) -> Bodies {
        Bodies::new(Arc::clone(&self.bodies), Arc::clone(&counted.account))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.account.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose address it is. A host has a whole /64 of IPv6 addresses to choose from (RFC 4291 §2.5.1).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

/// How often something may be done is told by the generic cell rate algorithm (ITU-T I.371): no more is kept for it than the time
/// at which its doer will have paid for what it did.
struct Rate {
    /// What one costs.
    interval: u64,
    /// What may be owed.
    credit: u64,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        Self { interval, credit: interval * u64::from(burst.max(1)) }
    }

    /// What is refused costs nothing, so a sender that waits as told is let in.
    fn pay(&self, paid_at: &AtomicU64, now: Duration) -> Result<(), Excess> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
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

/// All callers.
struct Accounts {
    rate: Rate,
    /// How many requests of a caller may be under way.
    places: usize,
    by_caller: Cache<String, Arc<Account>>,
}

impl Accounts {
    fn new(config: &LimitConfig) -> Self {
        let rate = Rate::new(config.requests_per_second, config.burst);
        Self { rate, places: config.max_in_flight_per_caller, by_caller: Cache::new(CALLERS) }
    }

    fn count(&self, caller: &str, now: Duration) -> Result<Counted, Excess> {
        let Ok(account) = self.by_caller.get_or_insert_with(caller, || Ok::<_, Infallible>(Arc::default()));
        let before = account.under_way.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { account };
        if before >= self.places {
            return Err(Excess(SHORT_WAIT));
        }
        self.rate.pay(&counted.account.paid_at, now)?;
        Ok(counted)
    }
}

/// Addresses that showed proofs that do not hold.
struct FailedProofs {
    rate: Rate,
    by_address: Cache<IpAddr, Arc<AtomicU64>>,
}

impl FailedProofs {
    fn new(per_second: u32) -> Self {
        Self { rate: Rate::new(per_second, per_second.saturating_mul(10)), by_address: Cache::new(CALLERS) }
    }

    fn count(&self, address: IpAddr, now: Duration) -> Result<(), Excess> {
        let address = network(address);
        let Ok(paid_at) = self.by_address.get_or_insert_with(&address, || Ok::<_, Infallible>(Arc::default()));
        self.rate.pay(&paid_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LimitConfig = LimitConfig {
        requests_per_second: 10,
        burst: 5,
        max_in_flight: 2,
        max_in_flight_per_caller: 1,
        failed_proofs_per_second: 10,
        max_call_body_bytes: 100,
        max_call_body_bytes_per_caller: 50,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Counts a request that is over at once.
    fn count(accounts: &Accounts, caller: &str, now: Duration) -> Result<(), Excess> {
        accounts.count(caller, now).map(drop)
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate() {
        let accounts = Accounts::new(&CONFIG);
        for _ in 0..5 {
            assert_eq!(count(&accounts, "a", at(1000)), Ok(()));
        }
        assert_eq!(count(&accounts, "a", at(1000)), Err(Excess(at(100))));
        assert_eq!(count(&accounts, "a", at(1060)), Err(Excess(at(40))));
        assert_eq!(count(&accounts, "a", at(1100)), Ok(()));
        assert_eq!(count(&accounts, "a", at(1100)), Err(Excess(at(100))));
        // Whoever waits as told is let in.
        assert_eq!(count(&accounts, "a", at(1200)), Ok(()));
        let later = (0..100).filter(|_| count(&accounts, "a", at(60_000)).is_ok()).count();
        assert_eq!(later, 5, "a pause earns a burst and no more");
    }

    #[test]
    fn over_time_it_is_the_rate() {
        let accounts = Accounts::new(&CONFIG);
        let passed = (0..10_000).filter(|millis| count(&accounts, "a", at(*millis)).is_ok()).count();
        assert!((100..=105).contains(&passed), "{passed} in 10 s");
    }

    #[test]
    fn callers_do_not_share_and_are_not_remembered_without_end() {
        let accounts = Accounts::new(&LimitConfig { burst: 1, ..CONFIG });
        for caller in 0..CALLERS * 2 {
            assert_eq!(count(&accounts, &caller.to_string(), at(0)), Ok(()));
        }
        assert!(count(&accounts, &(CALLERS * 2 - 1).to_string(), at(0)).is_err(), "the latest is remembered");
        assert!(accounts.by_caller.len() <= CALLERS);
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

    #[test]
    fn one_caller_has_only_its_share_under_way_and_what_is_refused_takes_none_of_it() {
        let accounts = Accounts::new(&LimitConfig { max_in_flight_per_caller: 2, ..CONFIG });
        let first = accounts.count("a", at(0)).unwrap();
        let _second = accounts.count("a", at(0)).unwrap();
        for _ in 0..10 {
            assert_eq!(accounts.count("a", at(0)).unwrap_err(), Excess(SHORT_WAIT));
        }
        assert!(accounts.count("b", at(0)).is_ok(), "another caller has a share of its own");
        drop(first);
        // Three of the burst of five are left: what was refused was not paid for.
        for _ in 0..3 {
            assert_eq!(count(&accounts, "a", at(0)), Ok(()));
        }
        assert_eq!(count(&accounts, "a", at(0)), Err(Excess(at(100))));
        assert_eq!(count(&accounts, "a", at(100)), Ok(()), "and what was not paid for left its place");
    }

    /// S7: 4,799 wrong guesses were answered in 1.3 s.
    #[test]
    fn an_address_may_fail_to_prove_who_it_is_so_often_and_no_more() {
        let failed = FailedProofs::new(10);
        let guess = |address: &str, now| failed.count(address.parse().unwrap(), now).is_ok();
        assert_eq!((0..4800).filter(|number| guess("192.0.2.1", at(number / 4))).count(), 111);
        assert!(guess("192.0.2.2", at(1200)), "each address has its own");
        assert!(guess("2001:db8::1", at(0)));
        assert_eq!((0..200u32).filter(|n| guess(&format!("2001:db8::{n:x}"), at(0))).count(), 99, "a host has a /64");
    }
}
