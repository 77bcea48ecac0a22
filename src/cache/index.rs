//! Which slots an event is about.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::Slot;
use crate::store::names::{Place, TokenName, UnitName};

/// The slots in the order of their places. An event is about one token or one unit, whose slots stand side by side, so that
/// no event makes anybody look at all that there is.
#[derive(Clone, Default)]
pub(super) struct Index {
    slots: Arc<Mutex<BTreeMap<Spot, Weak<Slot>>>>,
}

/// Where a slot is in that order.
type Spot = (Arc<Place>, Address);

/// A token has several slots while an edition takes the place of another. Nothing else can come to be at a slot's address
/// while its weak reference is kept.
type Address = usize;

impl Index {
    pub(super) fn add(&self, slot: &Arc<Slot>) {
        self.slots.lock().insert(spot(slot), Arc::downgrade(slot));
    }

    pub(super) fn remove(&self, slot: &Arc<Slot>) {
        self.slots.lock().remove(&spot(slot));
    }

    /// The slots of a token, or of all of a unit's.
    pub(super) fn of(&self, unit: &UnitName, token: Option<&TokenName>) -> Vec<Arc<Slot>> {
        let first = Place { unit: unit.clone(), token: token.cloned().unwrap_or_else(|| TokenName::from("")) };
        let first = Arc::new(first);
        let is_meant = |place: &Place| place.unit == *unit && token.is_none_or(|token| place.token == *token);
        let slots = self.slots.lock();
        let meant = slots.range((first, Address::MIN)..).take_while(|((place, _), _)| is_meant(place));
        meant.filter_map(|(_, slot)| slot.upgrade()).collect()
    }
}

#[cfg(test)]
impl Index {
    pub(super) fn len(&self) -> usize {
        self.slots.lock().len()
    }
}

fn spot(slot: &Arc<Slot>) -> Spot {
    (Arc::clone(&slot.place), Arc::as_ptr(slot).addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{
            Cache, CacheConfig, Edition, Sought,
            tests::{key, served, token},
        },
        clock::Moment,
        name::Scopes,
        store::{Change, Event},
        token::{Generation, TokenKey},
    };

    #[test]
    fn the_index_holds_what_the_cache_holds() {
        let most = 10;
        let cache = Cache::new(CacheConfig { max_tokens: most, max_age: None });
        let TokenKey { grant, scopes: _, resources } = &key();
        let find = |number: u64, edition| {
            let scopes = &Scopes::new([number.to_string()]).unwrap();
            let place =
                |_: &TokenKey| Place { unit: UnitName::from("crm/u"), token: TokenName::from(&*number.to_string()) };
            cache.slot(&Sought { grant, scopes, resources, edition: Edition(edition) }, place)
        };
        let indexed = || cache.index.len() as u64;
        (0..most * 5).for_each(|number| drop(find(number, number % 2)));
        assert_eq!(indexed(), cache.len());
        assert!(cache.len() <= most);
        cache.retain(|_| false);
        assert!(cache.is_empty() && indexed() == 0);

        // An event about a token reaches all of its editions, and no other token.
        let slots = [find(0, 0), find(0, 1), find(1, 0)];
        for slot in &slots {
            slot.put(&token(6), slot.epoch(), &Moment::now());
        }
        let (token, floor) = (Some(TokenName::from("0")), Generation::new(6));
        cache.apply(&Event::Changed(Change { unit: UnitName::from("crm/u"), token, floor }));
        assert_eq!(slots.each_ref().map(|slot| served(slot)), [None, None, Some(6)]);
    }
}
