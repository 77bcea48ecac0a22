//! The tokens that this replica holds in memory.
//!
//! Each token has a slot. A slot has a floor: tokens of that generation and older are dead, and a late insert of one is
//! refused, so an invalidation can never be undone by a load that began before it.

use std::{sync::Arc, time::Duration};

use self::{index::Index, table::Table, trust::Trust};
pub use self::{
    slot::{Alone, Slot},
    trust::Epoch,
};
use crate::{
    name::{Resources, Scopes},
    store::{Change, Event, names::Place},
    token::{GrantKey, TokenKey},
};

mod index;
mod slot;
mod table;
mod trust;

/// How much is held, and for how long it is believed.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// The most slots; beyond them those go that were not asked for lately.
    pub max_tokens: u64,
    /// How long a token is served without a look into a store that others write to; `None` where nobody else does.
    pub max_age: Option<Duration>,
}

/// Which state of a credential's configuration a token belongs to. When a credential is changed so that its tokens are
/// others, it gets a new edition: nothing of the old one is served any more, and what is still under way for the old one
/// ends in slots that nobody looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edition(pub u64);

/// All slots of this replica.
pub struct Cache {
    slots: Table,
    index: Index,
    trust: Arc<Trust>,
}

/// A token that is looked for: its key in borrowed parts, so that whoever finds it has copied nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sought<'a> {
    /// The grant.
    pub grant: &'a GrantKey,
    /// The scopes, the credential's defaults already put in.
    pub scopes: &'a Scopes,
    /// The resources, likewise.
    pub resources: &'a Resources,
    /// Of which state of the credential.
    pub edition: Edition,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        let index = Index::default();
        let slots = Table::new(config.max_tokens, index.clone());
        Self { slots, index, trust: Arc::new(Trust::new(config.max_age)) }
    }

    /// The slot of a token; it is made if there is none.
    pub fn slot(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        self.slots.find(sought).unwrap_or_else(|| self.slots.insert(self.new_slot(sought, place)))
    }

    /// The same for somebody who does not want the token: one that is made is nobody else's, and no token makes room for it.
    pub fn slot_aside(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        self.slots.peek(sought).unwrap_or_else(|| self.new_slot(sought, place))
    }

    /// A slot of its own for a token that is never served from it.
    pub fn slot_apart(&self, key: TokenKey, edition: Edition, place: Place) -> Arc<Slot> {
        Arc::new(Slot::new(key, edition, place, Arc::clone(&self.trust)))
    }

    fn new_slot(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        let key = sought.to_key();
        let place = place(&key);
        Arc::new(Slot::new(key, sought.edition, place, Arc::clone(&self.trust)))
    }

    /// Forgets the slots for which this does not hold.
    pub fn retain(&self, keep: impl Fn(&Slot) -> bool) {
        self.slots.retain(keep);
    }

    /// Takes in what changed in the store.
    pub fn apply(&self, event: &Event) {
        match event {
            Event::Changed(Change { unit, token, floor }) => {
                self.index.of(unit, token.as_ref()).iter().for_each(|slot| slot.raise_floor(*floor));
            }
            Event::Unverified { unit, token } => {
                self.index.of(unit, token.as_ref()).iter().for_each(|slot| slot.doubt());
            }
            Event::Gap => self.trust.turn(false),
            Event::Heard => self.trust.turn(true),
        }
    }

    /// How many tokens are in memory. It looks at every slot.
    pub fn tokens(&self) -> u64 {
        self.slots.tokens() as u64
    }

    /// How many slots there are.
    pub fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Sought<'_> {
    fn to_key(self) -> TokenKey {
        let Self { grant, scopes, resources, edition: _ } = self;
        TokenKey { grant: grant.clone(), scopes: scopes.clone(), resources: resources.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Moment,
        name::{CredentialName, Subject},
        store::names::{TokenName, UnitName},
        token::{Generation, Token, TokenType, Wanted},
    };

    pub(super) fn key() -> TokenKey {
        TokenKey {
            grant: GrantKey { credential: CredentialName::new("crm").unwrap(), subject: Subject::default() },
            scopes: Scopes::default(),
            resources: Resources::default(),
        }
    }

    pub(super) fn token(generation: u64) -> Arc<Token> {
        Arc::new(Token {
            value: "t".into(),
            kind: TokenType::Bearer,
            generation: Generation::new(generation),
            scopes: Scopes::default(),
            expiry: None,
        })
    }

    fn cache(max_age: Option<Duration>) -> (Cache, Arc<Slot>) {
        let cache = Cache::new(CacheConfig { max_tokens: 10, max_age });
        let slot = find(&cache, 0);
        (cache, slot)
    }

    fn find(cache: &Cache, edition: u64) -> Arc<Slot> {
        let TokenKey { grant, scopes, resources } = &key();
        cache.slot(&Sought { grant, scopes, resources, edition: Edition(edition) }, place)
    }

    fn place(_: &TokenKey) -> Place {
        Place { unit: UnitName::from("crm/u"), token: TokenName::from("t") }
    }

    pub(super) fn served(slot: &Slot) -> Option<u64> {
        slot.fresh(&Wanted::default(), &Moment::now()).map(|token| token.generation.get())
    }

    #[test]
    fn a_late_insert_does_not_bring_a_dead_token_back() {
        let (cache, slot) = cache(None);
        let epoch = slot.epoch();
        let floor = Generation::new(5);
        let change = Change { unit: UnitName::from("crm/u"), token: Some(TokenName::from("t")), floor };
        cache.apply(&Event::Changed(change));
        assert!(!slot.put(&token(5), epoch, &Moment::now()));
        assert_eq!(served(&slot), None);
        assert!(slot.put(&token(6), epoch, &Moment::now()));
        assert_eq!(served(&slot), Some(6));
    }

    #[test]
    fn a_token_is_good_until_it_is_dead_or_replaced() {
        let (_cache, slot) = cache(Some(Duration::ZERO));
        let good = |generation| slot.is_good(Generation::new(generation), &Moment::now());
        assert!(!good(6));
        slot.put(&token(6), slot.epoch(), &Moment::now());
        assert!(good(6) && !good(5) && !slot.take_used());
        slot.put(&token(7), slot.epoch(), &Moment::now());
        assert!(good(7) && !good(6));
        slot.raise_floor(Generation::new(7));
        assert!(!good(7));
    }

    #[test]
    fn who_keeps_a_token_keeps_the_same_as_all_others() {
        let (_cache, slot) = cache(None);
        let kept = || slot.fresh(&Wanted::default(), &Moment::now()).unwrap();
        slot.put(&token(6), slot.epoch(), &Moment::now());
        let first = kept();
        assert!(Arc::ptr_eq(&first, &kept()));
        let seen = slot.read(&Wanted::default(), &Moment::now(), |token, degraded| (token.generation, degraded));
        assert_eq!(seen, Some((first.generation, false)));
        slot.put(&token(7), slot.epoch(), &Moment::now());
        assert_eq!((first.generation.get(), kept().generation.get()), (6, 7));
    }

    #[test]
    fn an_older_token_never_replaces_a_newer_one() {
        let (_cache, slot) = cache(None);
        slot.put(&token(6), slot.epoch(), &Moment::now());
        slot.put(&token(5), slot.epoch(), &Moment::now());
        assert_eq!(served(&slot), Some(6));
    }

    #[test]
    fn a_change_of_the_whole_grant_reaches_every_slot_of_it() {
        let (cache, slot) = cache(None);
        slot.put(&token(6), slot.epoch(), &Moment::now());
        let change =
            |unit: &str| Event::Changed(Change { unit: UnitName::from(unit), token: None, floor: Generation::new(6) });
        cache.apply(&change("crm/other"));
        assert_eq!(served(&slot), Some(6));
        cache.apply(&change("crm/u"));
        assert_eq!(served(&slot), None);
    }

    #[test]
    fn after_a_gap_nothing_is_served_unlooked_but_it_stays_known() {
        let (cache, slot) = cache(None);
        slot.put(&token(6), slot.epoch(), &Moment::now());
        let before = slot.epoch();
        cache.apply(&Event::Gap);
        assert_eq!(served(&slot), None);
        assert!(slot.valid(&Wanted::default(), &Moment::now()).is_some());
        cache.apply(&Event::Heard);
        assert_eq!(served(&slot), None, "it was put in before the gap");
        slot.put(&token(6), before, &Moment::now());
        assert_eq!(served(&slot), None, "its load began before the gap");
        slot.put(&token(6), slot.epoch(), &Moment::now());
        assert_eq!(served(&slot), Some(6));
    }

    /// S6: a message without proof costs a look into the store, and never a token.
    #[test]
    fn after_an_unverified_event_a_token_is_looked_up_once() {
        let (cache, slot) = cache(None);
        slot.put(&token(6), slot.epoch(), &Moment::now());
        let before = slot.epoch();
        for (unit, token, expected) in [
            ("crm/other", None, Some(6)),
            ("crm/u", Some(TokenName::from("another")), Some(6)),
            ("crm/u", Some(TokenName::from("t")), None),
            ("crm/u", None, None),
        ] {
            cache.apply(&Event::Unverified { unit: UnitName::from(unit), token });
            assert_eq!(served(&slot), expected);
            assert!(slot.valid(&Wanted::default(), &Moment::now()).is_some(), "it is still known");
        }
        slot.put(&token(6), before, &Moment::now());
        assert_eq!(served(&slot), None, "its load began before the event");
        slot.put(&token(6), slot.epoch(), &Moment::now());
        assert_eq!(served(&slot), Some(6));
    }

    #[test]
    fn a_token_is_believed_for_its_age_only() {
        let (_cache, slot) = cache(Some(Duration::ZERO));
        slot.put(&token(6), slot.epoch(), &Moment::now());
        assert_eq!(served(&slot), None);
        assert!(slot.valid(&Wanted::default(), &Moment::now()).is_some());
    }

    #[test]
    fn a_new_edition_sees_nothing_of_the_old_one_and_hears_events() {
        let (cache, old) = cache(None);
        old.put(&token(6), old.epoch(), &Moment::now());
        let new = find(&cache, 1);
        cache.retain(|slot| slot.edition == Edition(1));
        old.put(&token(7), old.epoch(), &Moment::now());
        assert_eq!((served(&old), served(&new)), (Some(7), None));
        assert!(Arc::ptr_eq(&new, &find(&cache, 1)));
        let late = find(&cache, 0);
        assert!(!Arc::ptr_eq(&old, &late), "it was forgotten");

        new.put(&token(8), new.epoch(), &Moment::now());
        assert_eq!(served(&new), Some(8));
        let floor = Generation::new(8);
        let change = Change { unit: UnitName::from("crm/u"), token: Some(TokenName::from("t")), floor };
        cache.apply(&Event::Changed(change));
        assert_eq!(served(&new), None, "events find the newest edition");
    }

    #[test]
    fn whatever_tells_tokens_apart_is_looked_at() {
        let (cache, slot) = cache(None);
        assert!(Arc::ptr_eq(&slot, &find(&cache, 0)));
        let TokenKey { grant, scopes, resources } = &key();
        let same = Sought { grant, scopes, resources, edition: Edition(0) };
        let jane = &GrantKey { subject: Subject::new("jane").unwrap(), ..grant.clone() };
        for other in [
            Sought { grant: jane, ..same },
            Sought { scopes: &Scopes::new(["read"]).unwrap(), ..same },
            Sought { resources: &Resources::new(["urn:a"]).unwrap(), ..same },
            Sought { edition: Edition(1), ..same },
        ] {
            let found = cache.slot(&other, place);
            assert!(!Arc::ptr_eq(&slot, &found), "{other:?}");
            assert!(Arc::ptr_eq(&found, &cache.slot(&other, place)), "{other:?}");
            assert_eq!((&found.key, found.edition), (&other.to_key(), other.edition));
        }
    }

    #[test]
    fn refreshing_ahead_is_asked_once_per_token() {
        let (_cache, slot) = cache(None);
        slot.put(&token(6), slot.epoch(), &Moment::now());
        assert!(slot.ask_ahead(Generation::new(6)));
        assert!(!slot.ask_ahead(Generation::new(6)));
        slot.unask_ahead(Generation::new(6));
        assert!(slot.ask_ahead(Generation::new(6)));
        assert!(!slot.ask_ahead(Generation::new(5)));
    }
}
