//! How much of something each address has, so that one of them cannot take all there is.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::limit::network;

/// The counts. Who has nothing is not remembered.
pub(super) struct Shares {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// What counts for an address until this is dropped.
pub(super) struct Share {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    holder: IpAddr,
    amount: usize,
}

impl Shares {
    /// At most so much for each address.
    pub fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// So much more for this address; `None` if that is more than it may have.
    pub fn take(&self, address: IpAddr, amount: usize) -> Option<Share> {
        let holder = network(address);
        let mut open = self.open.lock();
        let has = open.get(&holder).copied().unwrap_or_default();
        let sum = has.checked_add(amount).filter(|sum| *sum <= self.most)?;
        open.insert(holder, sum);
        Some(Share { open: Arc::clone(&self.open), holder, amount })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.open.lock().entry(self.holder) {
            *count.get_mut() = count.get().saturating_sub(self.amount);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(shares: &Shares, address: &str) -> Option<Share> {
        shares.take(address.parse().unwrap(), 1)
    }

    #[test]
    fn case_31_each_address_has_a_share_and_leaves_it() {
        let shares = Shares::new(2);
        let first = take(&shares, "192.0.2.1").unwrap();
        let _second = take(&shares, "::ffff:192.0.2.1").unwrap();
        assert!(take(&shares, "192.0.2.1").is_none());
        let _other = take(&shares, "192.0.2.2").unwrap();
        drop(first);
        assert!(take(&shares, "192.0.2.1").is_some());
        assert!(shares.take("192.0.2.3".parse().unwrap(), 3).is_none());
        assert!(shares.take("192.0.2.3".parse().unwrap(), usize::MAX).is_none());
        assert!(shares.take("192.0.2.3".parse().unwrap(), 2).is_some());
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let shares = Shares::new(1);
        let held = take(&shares, "2001:db8::1").unwrap();
        assert!(take(&shares, "2001:db8::ffff:0:0:2").is_none());
        assert!(take(&shares, "2001:db8:0:1::1").is_some());
        drop(held);
        assert!(take(&shares, "2001:db8::2").is_some());
        assert!(shares.open.lock().is_empty(), "nobody is remembered who has nothing");
    }
}
