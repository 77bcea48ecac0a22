//! Which key sealed which record, and sealing records anew, so that an old key can go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::seal::{Ring, Sealed, Seat};

/// What stands in the place of a key's id where that is none of the configured ones.
pub const UNKNOWN: &str = "unknown";

/// One step through a store: bounded work, which can be repeated without another effect.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Where the step before ended; `None`: at the beginning.
    pub from: Option<&'a str>,
    /// Whether to seal anew what another key than the first one sealed; else it is only counted.
    pub reseal: bool,
}

/// What was found in a step, or in several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// How many sealed values there are of each key, after the step. A record in a store holds one or two of them.
    pub sealed: BTreeMap<String, u64>,
    /// How many were sealed anew.
    pub resealed: u64,
    /// How many could not be, because their key is missing or they are damaged. They stay as they are.
    pub unreadable: u64,
}

/// The end of a step.
#[derive(Debug)]
pub struct Stepped {
    /// What was found.
    pub census: Census,
    /// Where the next one begins; `None`: this was the last.
    pub next: Option<String>,
}

impl Census {
    /// Adds what another step found.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.sealed {
            let sum = self.sealed.entry(key.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.resealed = self.resealed.saturating_add(other.resealed);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
    }

    /// Counts under other names; what falls under the same one is added up.
    pub fn rename(&mut self, name: impl Fn(&str) -> &str) {
        let mut sealed = BTreeMap::new();
        for (key, count) in &self.sealed {
            let sum: &mut u64 = sealed.entry(name(key).to_owned()).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.sealed = sealed;
    }

    fn count(&mut self, key: &str) {
        *self.sealed.entry(key.to_owned()).or_default() += 1;
    }
}

/// Somebody who looks at sealed values, one by one, and counts them.
pub struct Counter<'a> {
    ring: &'a Ring,
    /// The ids of the ring when the step began.
    ids: Vec<String>,
    reseal: bool,
    /// What was found so far.
    pub census: Census,
}

impl<'a> Counter<'a> {
    /// Nothing is counted yet.
    pub fn new(ring: &'a Ring, reseal: bool) -> Self {
        Self { ring, ids: ring.ids(), reseal, census: Census::default() }
    }

    /// Looks at a value. If one is returned it is to be written in the old one's place, and then counted with
    /// [`Self::replaced`]; else the old one was counted and stays.
    pub fn look(&mut self, seat: &Seat<'_>, sealed: &Sealed) -> Option<Sealed> {
        let known = sealed.key_id().filter(|id| self.ids.iter().any(|known| known == id));
        if !self.reseal || known == self.ids.first().map(String::as_str) {
            self.stays(sealed);
            return None;
        }
        let anew = self.ring.open(seat, sealed).and_then(|plain| self.ring.seal(seat, &plain));
        if anew.is_err() {
            self.census.unreadable += 1;
            self.stays(sealed);
        }
        anew.ok()
    }

    /// Counts a value that was sealed anew and written.
    pub fn replaced(&mut self, anew: &Sealed) {
        self.census.resealed += 1;
        self.stays(anew);
    }

    /// Counts a record that cannot even be taken apart.
    pub fn damaged(&mut self) {
        self.census.unreadable += 1;
        self.census.count(UNKNOWN);
    }

    /// Counts a value that stays as it is.
    pub fn stays(&mut self, sealed: &Sealed) {
        let id = sealed.key_id().filter(|id| self.ids.iter().any(|known| known == id));
        self.census.count(id.unwrap_or(UNKNOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Generation;

    const SEAT: Seat<'_> = Seat { key: "crm/u", field: "grant", revision: Generation::new(7) };

    fn ring(ids: &[(&str, u8)]) -> Ring {
        let keys: Vec<(&str, [u8; 32])> = ids.iter().map(|(id, byte)| (*id, [*byte; 32])).collect();
        Ring::new(keys.iter().map(|(id, key)| (*id, key.as_slice()))).unwrap()
    }

    #[test]
    fn what_another_key_sealed_is_sealed_anew_for_the_same_seat() {
        let (old, both) = (ring(&[("old", 1)]), ring(&[("new", 2), ("old", 1)]));
        let sealed = old.seal(&SEAT, b"refresh-token").unwrap();
        let mut counter = Counter::new(&both, true);
        let anew = counter.look(&SEAT, &sealed).unwrap();
        counter.replaced(&anew);
        assert_eq!(ring(&[("new", 2)]).open(&SEAT, &anew).unwrap().as_slice(), b"refresh-token");
        assert!(both.open(&Seat { revision: Generation::new(8), ..SEAT }, &anew).is_err());
        assert_eq!(counter.look(&SEAT, &anew), None, "once is enough");
        assert_eq!(counter.census.sealed, BTreeMap::from([("new".to_owned(), 2)]));
        assert_eq!((counter.census.resealed, counter.census.unreadable), (1, 0));
    }

    #[test]
    fn what_cannot_be_opened_stays_and_is_counted() {
        let both = ring(&[("new", 2), ("old", 1)]);
        let mut damaged = ring(&[("old", 1)]).seal(&SEAT, b"x").unwrap();
        *damaged.0.last_mut().unwrap() ^= 1;
        let foreign = ring(&[("gone", 3)]).seal(&SEAT, b"x").unwrap();
        let mut counter = Counter::new(&both, true);
        for sealed in [&damaged, &foreign, &Sealed(b"no header".to_vec())] {
            assert_eq!(counter.look(&SEAT, sealed), None);
        }
        let counts = BTreeMap::from([("old".to_owned(), 1), (UNKNOWN.to_owned(), 2)]);
        assert_eq!(counter.census, Census { sealed: counts, resealed: 0, unreadable: 3 });
    }

    #[test]
    fn a_count_changes_nothing() {
        let both = ring(&[("new", 2), ("old", 1)]);
        let sealed = ring(&[("old", 1)]).seal(&SEAT, b"x").unwrap();
        let mut counter = Counter::new(&both, false);
        assert_eq!(counter.look(&SEAT, &sealed), None);
        assert_eq!(counter.census.sealed, BTreeMap::from([("old".to_owned(), 1)]));
    }
}
