//! Which slots an event is about.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use quick_cache::Lifecycle;

use super::{Slot, SlotKey};
use crate::store::names::{Place, TokenName, UnitName};

/// The slots by what events call them: each unit's, and of these each token's. An event is about one token or one unit, so
/// that no event makes anybody look at all that there is.
#[derive(Clone, Default)]
pub(super) struct Index {
    units: Arc<Mutex<HashMap<UnitName, Tokens>>>,
}

/// The slots of a unit. A token has several while an edition takes the place of another.
type Tokens = HashMap<TokenName, Vec<Weak<Slot>>>;

impl Index {
    pub(super) fn add(&self, slot: &Arc<Slot>) {
        let Place { unit, token } = &slot.place;
        let mut units = self.units.lock();
        units.entry(unit.clone()).or_default().entry(token.clone()).or_default().push(Arc::downgrade(slot));
    }

    pub(super) fn remove(&self, slot: &Arc<Slot>) {
        let Place { unit, token } = &slot.place;
        let mut units = self.units.lock();
        let Some(tokens) = units.get_mut(unit) else { return };
        let Some(slots) = tokens.get_mut(token) else { return };
        slots.retain(|indexed| indexed.as_ptr() != Arc::as_ptr(slot));
        if slots.is_empty() {
            tokens.remove(token);
        }
        if tokens.is_empty() {
            units.remove(unit);
        }
    }

    /// The slots of a token, or of all of a unit's.
    pub(super) fn of(&self, unit: &UnitName, token: Option<&TokenName>) -> Vec<Arc<Slot>> {
        let units = self.units.lock();
        let Some(tokens) = units.get(unit) else { return Vec::new() };
        let upgraded = |slots: &Vec<Weak<Slot>>| slots.iter().filter_map(Weak::upgrade).collect();
        match token {
            Some(token) => tokens.get(token).map(upgraded).unwrap_or_default(),
            None => tokens.values().flat_map(|slots| slots.iter().filter_map(Weak::upgrade)).collect(),
        }
    }
}

/// What the cache has no room for any more is not told of events any more.
impl Lifecycle<SlotKey, Arc<Slot>> for Index {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: SlotKey, slot: Arc<Slot>) {
        self.remove(&slot);
    }
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
        let indexed =
            || cache.index.units.lock().values().flat_map(HashMap::values).map(Vec::len).sum::<usize>() as u64;
        (0..most * 5).for_each(|number| drop(find(number, number % 2)));
        assert_eq!(indexed(), cache.len());
        assert!(cache.len() <= most);
        cache.retain(|_| false);
        assert!(cache.is_empty() && cache.index.units.lock().is_empty());

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
