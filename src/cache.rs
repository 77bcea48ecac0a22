//! The tokens that this replica holds in memory.
//!
//! Each token has a slot. A slot has a floor: tokens of that generation and older are dead, and a late insert of one is
//! refused, so an invalidation can never be undone by a load that began before it.
//!
//! A hundred thousand tokens do not fit into a processor's caches, and then what a call costs more is the pieces of memory
//! that it touches. So the key of a slot stands in the slot alone, and so does what is known of its token.

use std::{
    convert::Infallible,
    hash::{Hash, Hasher},
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use quick_cache::{DefaultHashBuilder, Equivalent, UnitWeighter};

use self::index::Index;
use crate::{
    clock::{Deadline, Moment},
    failure::FailureCause,
    name::{Resources, Scopes},
    store::{Change, Event, names::Place},
    telemetry::Counter,
    token::{Generation, GrantKey, Token, TokenKey, Wanted},
};

mod index;

/// How much is held, and for how long it is believed.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// The most slots; beyond them the least used go.
    pub max_tokens: u64,
    /// How long a token is served without a look into a store that others write to; `None` where nobody else does.
    pub max_age: Option<Duration>,
}

/// Which state of a credential's configuration a token belongs to. When a credential is changed so that its tokens are
/// others, it gets a new edition: nothing of the old one is served any more, and what is still under way for the old one
/// ends in slots that nobody looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edition(pub u64);

/// For how many tokens there is room at the start; for more it grows.
const AT_FIRST: usize = 1024;

/// All slots of this replica.
pub struct Cache {
    slots: quick_cache::sync::Cache<SlotKey, Arc<Slot>, UnitWeighter, DefaultHashBuilder, Index>,
    index: Index,
    trust: Arc<Trust>,
}

/// A slot by what tells it from others.
#[derive(Clone)]
struct SlotKey(Arc<Slot>);

/// A token that is looked for: its key in borrowed parts, so that whoever finds it has copied nothing.
#[derive(Clone, Copy, Debug)]
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

/// Whether changes in the store are heard. What was put in during another epoch is looked up again before it is served.
struct Trust {
    epoch: AtomicU64,
    hearing: AtomicBool,
    max_age: Option<Duration>,
}

/// The place of one token in this replica.
pub struct Slot {
    /// What tells this token from others.
    pub key: TokenKey,
    /// Which state of its credential it belongs to.
    pub edition: Edition,
    /// Where it is in the store.
    pub place: Place,
    state: Mutex<State>,
    alone: OnceLock<Box<Mutex<Alone>>>,
    /// How often tokens of this credential were found in memory, once that was asked.
    pub found: OnceLock<Counter>,
    trust: Arc<Trust>,
}

/// What a replica does for a token by itself while the store is away. Nothing of it stands in the store.
#[derive(Debug, Default)]
pub struct Alone {
    /// The last token that was made so.
    pub generation: Generation,
    /// Why the last try failed, and until when there is no other.
    pub failure: Option<(FailureCause, Deadline)>,
    /// How many failures in a row.
    pub failures: u32,
    /// How often in a row fresh tokens were rejected.
    pub strikes: u32,
}

/// What is known of a token. Whoever has the lock only reads and notes.
#[derive(Default)]
struct State {
    /// Tokens of this generation and older are dead.
    floor: Generation,
    /// Newer than the floor.
    held: Option<Held>,
    /// The token was used.
    used: bool,
    /// Refreshing fails while the token is still valid.
    degraded: bool,
}

struct Held {
    token: Arc<Token>,
    epoch: Epoch,
    believed_until: Option<Deadline>,
    /// Set once per token: refreshing it ahead of time was asked for.
    ahead_asked: bool,
}

/// When a load began; a token from it is believed only if no event was missed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        let index = Index::default();
        let at_first = usize::try_from(config.max_tokens).unwrap_or(usize::MAX).min(AT_FIRST);
        let (each_weighs_one, hasher) = (UnitWeighter, DefaultHashBuilder::default());
        let slots = quick_cache::sync::Cache::with(at_first, config.max_tokens, each_weighs_one, hasher, index.clone());
        let trust = Trust { epoch: AtomicU64::new(0), hearing: AtomicBool::new(true), max_age: config.max_age };
        Self { slots, index, trust: Arc::new(trust) }
    }

    /// The slot of a token; it is made if there is none.
    pub fn slot(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        self.slots.get(sought).unwrap_or_else(|| self.make(sought, place))
    }

    /// The same for somebody who does not want the token: one that is made is nobody else's, and no token makes room for it.
    pub fn slot_aside(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        self.slots.peek(sought).unwrap_or_else(|| self.new_slot(sought, place))
    }

    fn new_slot(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        let key = sought.to_key();
        let place = place(&key);
        Arc::new(Slot::new(key, sought.edition, place, Arc::clone(&self.trust)))
    }

    fn make(&self, sought: &Sought<'_>, place: impl FnOnce(&TokenKey) -> Place) -> Arc<Slot> {
        let made = self.new_slot(sought, place);
        // Events must find it before anybody can put a token in.
        self.index.add(&made);
        let key = SlotKey(Arc::clone(&made));
        let Ok(slot) = self.slots.get_or_insert_with(&key, || Ok::<_, Infallible>(Arc::clone(&made)));
        if !Arc::ptr_eq(&slot, &made) {
            self.index.remove(&made);
        }
        slot
    }

    /// Forgets the slots for which this does not hold.
    pub fn retain(&self, keep: impl Fn(&Slot) -> bool) {
        self.slots.retain(|_, slot| {
            let stays = keep(slot);
            if !stays {
                self.index.remove(slot);
            }
            stays
        });
    }

    /// Takes in what changed in the store.
    pub fn apply(&self, event: &Event) {
        match event {
            Event::Changed(Change { unit, token, floor }) => {
                self.index.of(unit, token.as_ref()).iter().for_each(|slot| slot.raise_floor(*floor));
            }
            Event::Gap => self.trust.turn(false),
            Event::Heard => self.trust.turn(true),
        }
    }

    /// How many tokens are held.
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

impl SlotKey {
    fn sought(&self) -> Sought<'_> {
        let Slot { key: TokenKey { grant, scopes, resources }, edition, .. } = &*self.0;
        Sought { grant, scopes, resources, edition: *edition }
    }
}

impl Hash for SlotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sought().hash(state);
    }
}

impl PartialEq for SlotKey {
    fn eq(&self, other: &Self) -> bool {
        self.sought().equivalent(other)
    }
}

impl Eq for SlotKey {}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { grant, scopes, resources, edition } = self;
        grant.hash(state);
        scopes.hash(state);
        resources.hash(state);
        edition.hash(state);
    }
}

impl Equivalent<SlotKey> for Sought<'_> {
    fn equivalent(&self, key: &SlotKey) -> bool {
        let Sought { grant, scopes, resources, edition } = key.sought();
        (self.edition, self.grant, self.scopes, self.resources) == (edition, grant, scopes, resources)
    }
}

impl Trust {
    fn turn(&self, hearing: bool) {
        self.hearing.store(hearing, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn covers(&self, held: &Held, now: &Moment) -> bool {
        self.hearing.load(Ordering::SeqCst)
            && held.epoch == self.epoch()
            && held.believed_until.is_none_or(|until| !until.has_passed(now))
    }
}

impl Slot {
    fn new(key: TokenKey, edition: Edition, place: Place, trust: Arc<Trust>) -> Self {
        let (state, alone, found) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self { key, edition, place, state, alone, found, trust }
    }

    /// The token, if it may be served without a look into the store.
    pub fn fresh(&self, wanted: &Wanted, now: &Moment) -> Option<Arc<Token>> {
        self.state.lock().serve(|held| self.trust.covers(held, now) && held.token.satisfies(wanted, now))
    }

    /// The token, if it is valid as far as this replica knows: for times when the store cannot be asked.
    pub fn valid(&self, wanted: &Wanted, now: &Moment) -> Option<Arc<Token>> {
        self.state.lock().serve(|held| held.token.satisfies(wanted, now))
    }

    /// Whether the token of this generation is held and good for anybody who comes now, without marking it as used.
    pub fn is_good(&self, generation: Generation, now: &Moment) -> bool {
        self.state.lock().held_of(generation).is_some_and(|held| held.token.satisfies(&Wanted::default(), now))
    }

    /// To be called before a load begins.
    pub fn epoch(&self) -> Epoch {
        self.trust.epoch()
    }

    /// Puts a token in, unless it is dead or older than the one that is there. Tells whether it went in.
    pub fn put(&self, token: &Arc<Token>, epoch: Epoch, now: &Moment) -> bool {
        let believed_until = self.trust.max_age.map(|age| now.after(age));
        let mut state = self.state.lock();
        if let Some(same) = state.held_of(token.generation) {
            same.epoch = epoch;
            same.believed_until = believed_until;
            return false;
        }
        let new = token.generation > state.newest_known();
        if new {
            state.held = Some(Held { token: Arc::clone(token), epoch, believed_until, ahead_asked: false });
            state.degraded = false;
        }
        new
    }

    /// Declares tokens of this generation and older dead.
    pub fn raise_floor(&self, floor: Generation) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(floor);
        let dead = state.held.take_if(|held| held.token.generation <= floor);
        // Whoever drops a token last wipes it, which others need not wait for.
        drop(state);
        drop(dead);
    }

    /// The generation at and below which tokens are dead.
    pub fn floor(&self) -> Generation {
        self.state.lock().floor
    }

    /// The newest generation that this replica knows of.
    pub fn newest_known(&self) -> Generation {
        self.state.lock().newest_known()
    }

    /// Whether the token was used since this was last asked.
    pub fn take_used(&self) -> bool {
        mem::take(&mut self.state.lock().used)
    }

    /// Claims the right to have this generation refreshed ahead of time; only the first caller gets it.
    pub fn ask_ahead(&self, generation: Generation) -> bool {
        self.state.lock().held_of(generation).is_some_and(|held| !mem::replace(&mut held.ahead_asked, true))
    }

    /// Gives that right back after a failure.
    pub fn unask_ahead(&self, generation: Generation) {
        if let Some(held) = self.state.lock().held_of(generation) {
            held.ahead_asked = false;
        }
    }

    /// The generation that is held.
    pub fn generation(&self) -> Option<Generation> {
        self.state.lock().generation()
    }

    /// Whether refreshing fails while the token is still valid.
    pub fn is_degraded(&self) -> bool {
        self.state.lock().degraded
    }

    /// Notes whether refreshing fails.
    pub fn set_degraded(&self, degraded: bool) {
        self.state.lock().degraded = degraded;
    }

    /// What this replica did for the token while the store was away.
    pub fn alone(&self) -> MutexGuard<'_, Alone> {
        self.alone.get_or_init(Box::default).lock()
    }
}

impl State {
    /// The token, if it is good for that; it counts as used then.
    fn serve(&mut self, is_good: impl FnOnce(&Held) -> bool) -> Option<Arc<Token>> {
        let held = self.held.as_ref().filter(|held| is_good(held))?;
        self.used = true;
        Some(Arc::clone(&held.token))
    }

    fn held_of(&mut self, generation: Generation) -> Option<&mut Held> {
        self.held.as_mut().filter(|held| held.token.generation == generation)
    }

    fn generation(&self) -> Option<Generation> {
        self.held.as_ref().map(|held| held.token.generation)
    }

    fn newest_known(&self) -> Generation {
        self.floor.max(self.generation().unwrap_or(Generation::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{CredentialName, Subject},
        store::names::{TokenName, UnitName},
        token::TokenType,
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
