//! All slots by what tells them apart, and which of them go when there are too many.
//!
//! With a hundred thousand tokens each step to a slot waits for memory. Here there are two, a group of the hash table and its
//! entry; a library's cache takes a third to what it knows about the entry. What has to be known is one bit, and stands in the
//! slot, which is read anyway.

use std::{hash::BuildHasher, sync::Arc, thread};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;

use super::{Slot, Sought, index::Index};

/// The slots, in parts with a lock each, so that processors seldom wait for each other.
pub(super) struct Table {
    parts: Box<[Part]>,
    hasher: DefaultHashBuilder,
    index: Index,
}

/// It begins with a line of a processor's caches, so that no two of them have one together.
#[repr(align(128))]
struct Part(RwLock<Slots>);

/// Whoever has to go is found as by a clock ("second chance"): a hand goes round, and the first that was not asked for since it
/// came by last is the one. The order is that of the hashes, and so by chance.
struct Slots {
    table: HashTable<Hashed>,
    most: usize,
    hand: usize,
}

/// A slot, and its hash, so that no slot is read because its hash begins like another's, nor because the table grows.
struct Hashed {
    hash: u64,
    slot: Arc<Slot>,
}

/// Parts for each processor.
const PARTS: usize = 4;

/// A part has room for so many slots at least. Those of few are full at rather different times.
const SMALLEST: usize = 32;

/// So many that were asked for are spared, and then the next one goes: nobody waits until the hand has gone round.
const SPARED: usize = 64;

impl Table {
    /// A table with room for as many slots, which tells the index of each.
    pub fn new(most: u64, index: Index) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::in_parts(processors * PARTS, usize::try_from(most).unwrap_or(usize::MAX), index)
    }

    fn in_parts(parts: usize, most: usize, index: Index) -> Self {
        let parts = parts.min(most / SMALLEST).max(1);
        let room = |part| most / parts + usize::from(part < most % parts);
        let parts = (0..parts).map(|part| Part(RwLock::new(Slots::new(room(part))))).collect();
        Self { parts, hasher: DefaultHashBuilder::default(), index }
    }

    /// The slot that is looked for, which counts as asked for.
    pub fn find(&self, sought: &Sought<'_>) -> Option<Arc<Slot>> {
        let slot = self.peek(sought)?;
        slot.mark_asked_for();
        Some(slot)
    }

    /// The same for somebody who does not want the token.
    pub fn peek(&self, sought: &Sought<'_>) -> Option<Arc<Slot>> {
        let hash = self.hasher.hash_one(sought);
        self.part(hash).0.read().find(hash, sought)
    }

    /// Takes a slot in, unless somebody else's of the same kind was faster. Returns the one that is there.
    pub fn insert(&self, made: Arc<Slot>) -> Arc<Slot> {
        let hash = self.hasher.hash_one(made.sought());
        let mut slots = self.part(hash).0.write();
        if let Some(there) = slots.find(hash, &made.sought()) {
            return there;
        }
        let gone = slots.make_room();
        // Events must find it before anybody can put a token in.
        self.index.add(&made);
        slots.table.insert_unique(hash, Hashed { hash, slot: Arc::clone(&made) }, |there| there.hash);
        drop(slots);
        gone.iter().for_each(|slot| self.index.remove(slot));
        made
    }

    /// Forgets the slots for which this does not hold.
    pub fn retain(&self, keep: impl Fn(&Slot) -> bool) {
        for part in &self.parts {
            let gone: Vec<_> = part.0.write().table.extract_if(|there| !keep(&there.slot)).collect();
            gone.iter().for_each(|gone| self.index.remove(&gone.slot));
        }
    }

    /// How many of them hold a token.
    pub fn tokens(&self) -> usize {
        let held = |slots: &Slots| slots.table.iter().filter(|there| there.slot.generation().is_some()).count();
        self.parts.iter().map(|part| held(&part.0.read())).sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.0.read().table.len()).sum()
    }

    #[expect(clippy::indexing_slicing, reason = "there is a part, and a remainder is less than what it was divided by")]
    fn part(&self, hash: u64) -> &Part {
        // By bits that the table itself does not look at: it takes those at both ends.
        let middle = usize::try_from(hash >> 32).unwrap_or_default();
        &self.parts[middle % self.parts.len()]
    }
}

impl Slots {
    fn new(most: usize) -> Self {
        Self { table: HashTable::new(), most: most.max(1), hand: 0 }
    }

    fn find(&self, hash: u64, sought: &Sought<'_>) -> Option<Arc<Slot>> {
        let there = self.table.find(hash, |there| there.hash == hash && there.slot.sought() == *sought)?;
        Some(Arc::clone(&there.slot))
    }

    /// Has somebody go if it is full.
    fn make_room(&mut self) -> Option<Arc<Slot>> {
        let mut spared = 0;
        while self.table.len() >= self.most {
            self.hand = (self.hand + 1) % self.table.num_buckets();
            let Ok(place) = self.table.get_bucket_entry(self.hand) else { continue };
            if spared == SPARED || !place.get().slot.take_asked_for() {
                return Some(place.remove().0.slot);
            }
            spared += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{Edition, Trust, tests::key},
        name::Scopes,
        store::names::{Place, TokenName, UnitName},
        token::TokenKey,
    };

    fn table(parts: usize, most: usize) -> Table {
        Table::in_parts(parts, most, Index::default())
    }

    fn slot(number: usize) -> Arc<Slot> {
        let key = TokenKey { scopes: Scopes::new([number.to_string()]).unwrap(), ..key() };
        let place = Place { unit: UnitName::from("crm/u"), token: TokenName::from(&*number.to_string()) };
        Arc::new(Slot::new(key, Edition(0), place, Arc::new(Trust::new(None))))
    }

    #[test]
    fn there_are_never_more_than_there_is_room_for() {
        for (parts, most) in [(8, 0), (8, 1), (8, 2), (8, 31), (8, 65), (8, 1000), (1, 1000)] {
            let table = table(parts, most);
            for number in 0..most * 3 + 10 {
                let made = slot(number);
                assert!(Arc::ptr_eq(&table.insert(Arc::clone(&made)), &made));
                assert!(Arc::ptr_eq(&table.find(&made.sought()).unwrap(), &made), "it is there at once");
                assert!(table.len() <= most.max(1), "{} of {most}", table.len());
            }
            assert_eq!(table.len(), most.max(1), "no room is left unused");
            assert_eq!(table.index.len(), table.len());
        }
    }

    #[test]
    fn the_first_of_a_kind_stays() {
        let table = table(1, 10);
        let (first, second) = (slot(1), slot(1));
        table.insert(Arc::clone(&first));
        assert!(Arc::ptr_eq(&table.insert(second), &first));
        assert_eq!((table.len(), table.index.len()), (1, 1));
    }

    #[test]
    fn what_is_asked_for_stays_when_others_come_once() {
        let table = table(1, 40);
        let often: Vec<_> = (0..30).map(|number| table.insert(slot(number))).collect();
        for number in 30..1000 {
            assert!(often.iter().all(|slot| table.find(&slot.sought()).is_some()), "before {number}");
            table.insert(slot(number));
        }
    }

    #[test]
    fn to_be_looked_at_aside_keeps_nobody() {
        let table = table(1, 40);
        let aside = table.insert(slot(0));
        let stays = (1..1000).all(|number| {
            table.insert(slot(number));
            table.peek(&aside.sought()).is_some()
        });
        assert!(!stays);
    }

    #[test]
    fn where_all_are_asked_for_one_goes_all_the_same() {
        let table = table(1, 1000);
        let all: Vec<_> = (0..1000).map(|number| table.insert(slot(number))).collect();
        let ask_for_all = || all.iter().filter(|slot| table.find(&slot.sought()).is_some()).count();
        assert_eq!(ask_for_all(), 1000);
        table.insert(slot(1000));
        assert_eq!(ask_for_all(), 999);
        assert_eq!(table.len(), 1000);
    }

    #[test]
    fn what_is_not_to_be_kept_is_forgotten() {
        let table = table(4, 1000);
        (0..100).for_each(|number| drop(table.insert(slot(number))));
        let one = slot(7);
        table.retain(|slot| slot.sought() == one.sought());
        assert_eq!((table.len(), table.index.len()), (1, 1));
        assert!(table.peek(&one.sought()).is_some());
    }
}
