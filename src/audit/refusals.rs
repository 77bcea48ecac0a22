//! Refusals of which there can be very many: they cost their sender nothing, and must not fill a disk. A few of each sender are
//! written one by one, and the others are counted and told in one record.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::record;
use crate::limit::network;

/// How long refusals of one sender are counted together.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// How many refusals of a caller who has shown who it is are written one by one in that time.
const OF_A_CALLER: u64 = 1000;

/// How many senders are told apart at a time. All others are counted together.
const SENDERS: usize = 4096;

/// Whose refusals are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// Nobody has shown who this is. Of IPv6 it is a whole /64.
    Address(IpAddr),
    /// A process of this host that came through a socket and has shown nothing more.
    Host,
    /// A caller, by its name.
    Caller(Box<str>),
    /// Those for whom there was no room.
    Others,
}

impl Sender {
    /// A sender without a proof.
    pub fn unproven(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Host, |address| Self::Address(network(address)))
    }

    fn may_have(&self) -> u64 {
        match self {
            Self::Address(_) | Self::Host | Self::Others => 1,
            Self::Caller(_) => OF_A_CALLER,
        }
    }
}

/// The counts.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Sender, Count>>);

struct Count {
    since: Instant,
    time: SystemTime,
    written: u64,
    left_out: u64,
}

impl Count {
    fn new() -> Self {
        Self { since: Instant::now(), time: SystemTime::now(), written: 0, left_out: 0 }
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= INTERVAL
    }
}

impl Refusals {
    /// Whether one more refusal of this sender has a record of its own; otherwise it is counted.
    pub fn admits(&self, sender: Sender) -> bool {
        let mut counts = self.0.lock();
        let sender = if counts.len() < SENDERS || counts.contains_key(&sender) { sender } else { Sender::Others };
        let most = sender.may_have();
        let count = counts.entry(sender).or_insert_with(Count::new);
        if count.written < most {
            count.written += 1;
            return true;
        }
        count.left_out += 1;
        false
    }

    /// The records of counts whose time is over, or of all. Senders of whom nothing was left out have none.
    pub fn take(&self, all: bool) -> Vec<Vec<u8>> {
        let mut counts = self.0.lock();
        let over: Vec<Sender> =
            counts.iter().filter(|(_, count)| all || count.is_over()).map(|(sender, _)| sender.clone()).collect();
        let taken = over.into_iter().filter_map(|sender| match counts.entry(sender) {
            Entry::Occupied(count) => Some(count.remove_entry()),
            Entry::Vacant(_) => None,
        });
        taken.filter(|(_, count)| count.left_out > 0).map(|(sender, count)| line(&sender, &count)).collect()
    }
}

fn line(sender: &Sender, count: &Count) -> Vec<u8> {
    match sender {
        Sender::Address(address) => record::refused(count.time, None, Some(&address.to_string()), count.left_out),
        Sender::Caller(name) => record::refused(count.time, Some(name), None, count.left_out),
        Sender::Host | Sender::Others => record::refused(count.time, None, None, count.left_out),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn from(address: &str) -> Sender {
        Sender::unproven(Some(address.parse().unwrap()))
    }

    fn told(refusals: &Refusals, all: bool) -> Vec<(Option<String>, u64)> {
        let read = |line: Vec<u8>| {
            let record: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(record["event"], "refused");
            (record["peer"].as_str().map(str::to_owned), record["records"].as_u64().unwrap())
        };
        refusals.take(all).into_iter().map(read).collect()
    }

    /// S7.
    #[tokio::test(start_paused = true)]
    async fn refusals_of_an_address_are_one_record_and_a_count() {
        let refusals = Refusals::default();
        assert_eq!((0..5000).filter(|_| refusals.admits(from("192.0.2.1"))).count(), 1);
        assert!(refusals.admits(from("192.0.2.2")), "each address has its own");
        assert_eq!(told(&refusals, false), [], "its time is not over");
        advance(INTERVAL).await;
        assert_eq!(told(&refusals, false), [(Some("192.0.2.1".to_owned()), 4999)]);
        assert!(refusals.admits(from("192.0.2.1")), "and then it begins again");
        assert!(!refusals.admits(from("192.0.2.1")));
        assert_eq!(told(&refusals, true), [(Some("192.0.2.1".to_owned()), 1)], "at the end all are told");
        let callers = |name: &str| refusals.admits(Sender::Caller(name.into()));
        assert_eq!((0..5000).filter(|_| callers("token:ci")).count(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn senders_without_end_fill_no_memory_and_no_log() {
        let refusals = Refusals::default();
        let addresses = (0..100_000u32).map(|number| Sender::unproven(Some(IpAddr::from(number.to_be_bytes()))));
        let written = addresses.filter(|sender| refusals.admits(sender.clone())).count();
        assert!(written <= SENDERS + 1, "{written}");
        assert!(refusals.0.lock().len() <= SENDERS + 1);
        let [(None, left_out)] = told(&refusals, true)[..] else { panic!("all others are told together") };
        assert_eq!(usize::try_from(left_out).unwrap() + written, 100_000);
    }
}
