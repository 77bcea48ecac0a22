//! How much memory the bodies of calls under way may take, of one caller and of all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Account, Excess, SHORT_WAIT};

/// What the bodies of a call may have for nothing, in bytes: a caller with small bodies is not refused because of others with
/// large ones. The number of calls is limited anyway.
const SMALL: usize = 4 * 1024;

/// What all callers hold.
#[derive(Debug)]
pub(super) struct Total {
    held: AtomicUsize,
    most: usize,
    most_per_caller: usize,
}

/// What the bodies of one call hold until this is dropped.
#[derive(Debug)]
pub struct Bodies {
    total: Arc<Total>,
    account: Arc<Account>,
    held: AtomicUsize,
}

impl Total {
    pub fn new(most: usize, most_per_caller: usize) -> Self {
        Self { held: AtomicUsize::new(0), most, most_per_caller }
    }
}

impl Bodies {
    pub(super) fn new(total: Arc<Total>, account: Arc<Account>) -> Self {
        Self { total, account, held: AtomicUsize::new(0) }
    }

    /// Counts so many bytes more.
    ///
    /// # Errors
    ///
    /// [`Excess`], if this caller, or all together, would hold more than they may.
    pub fn hold(&self, bytes: usize) -> Result<(), Excess> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let added = charged(before.saturating_add(bytes)) - charged(before);
        let taken = self.take(added);
        if taken.is_err() {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn take(&self, bytes: usize) -> Result<(), Excess> {
        take(&self.account.bodies, bytes, self.total.most_per_caller)?;
        let taken = take(&self.total.held, bytes, self.total.most);
        if taken.is_err() {
            self.account.bodies.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.account.bodies.fetch_sub(bytes, Ordering::Relaxed);
        self.total.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        self.give_back(charged(self.held.load(Ordering::Relaxed)));
    }
}

fn charged(bytes: usize) -> usize {
    bytes.saturating_sub(SMALL)
}

fn take(from: &AtomicUsize, bytes: usize, most: usize) -> Result<(), Excess> {
    let step = |held: usize| held.checked_add(bytes).filter(|sum| bytes == 0 || *sum <= most);
    from.try_update(Ordering::Relaxed, Ordering::Relaxed, step).map(drop).map_err(|_| Excess(SHORT_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn bodies(total: &Arc<Total>, account: &Arc<Account>) -> Bodies {
        Bodies::new(Arc::clone(total), Arc::clone(account))
    }

    /// S9.
    #[test]
    fn a_caller_and_all_together_hold_so_much_and_what_is_over_gives_it_back() {
        let total = Arc::new(Total::new(8 * MIB, 4 * MIB));
        let (one, other, third) = (Arc::<Account>::default(), Arc::<Account>::default(), Arc::<Account>::default());
        let (first, second) = (bodies(&total, &one), bodies(&total, &one));
        first.hold(4 * MIB).unwrap();
        assert_eq!(second.hold(MIB), Err(Excess(SHORT_WAIT)), "one caller has its part");
        second.hold(SMALL).expect("what is small is taken all the same");
        let more = bodies(&total, &other);
        for _ in 0..4 {
            more.hold(MIB).unwrap();
        }
        assert!(bodies(&total, &third).hold(MIB).is_err(), "and all together theirs");
        drop(more);
        bodies(&total, &third).hold(MIB).unwrap();
        drop((first, second));
        assert_eq!(total.held.load(Ordering::Relaxed), 0);
        for account in [one, other, third] {
            assert_eq!(account.bodies.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn what_is_refused_is_not_held() {
        let total = Arc::new(Total::new(MIB, MIB));
        let account = Arc::<Account>::default();
        let call = bodies(&total, &account);
        assert!(call.hold(2 * MIB).is_err() && call.hold(usize::MAX).is_err());
        call.hold(MIB).unwrap();
        drop(call);
        assert_eq!(total.held.load(Ordering::Relaxed), 0);
    }
}
