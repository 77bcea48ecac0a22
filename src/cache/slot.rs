//! The place of one token.
//!
//! A hundred thousand tokens do not fit into a processor's caches, and then what a call costs more is the pieces of memory
//! that it has to wait for. So the key of a slot stands in the slot alone, and its token, if it is short, there too, where it
//! is read.

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    Edition, Sought,
    trust::{Epoch, Trust},
};
use crate::{
    clock::{Deadline, Moment},
    failure::FailureCause,
    store::names::Place,
    token::{Generation, Token, TokenKey, Wanted},
};

/// The place of one token in this replica.
///
/// What is read for every call stands in front of what seldom is.
#[repr(C)]
pub struct Slot {
    /// Which state of its credential it belongs to.
    pub edition: Edition,
    trust: Arc<Trust>,
    /// Somebody wanted it since this was last looked at.
    asked_for: AtomicBool,
    /// How many unverified events were about this token.
    doubts: AtomicU32,
    state: RwLock<State>,
    /// What tells this token from others.
    pub key: TokenKey,
    /// Where it is in the store.
    pub place: Arc<Place>,
    alone: OnceLock<Box<Mutex<Alone>>>,
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
#[repr(C)]
struct State {
    /// Tokens of this generation and older are dead.
    floor: Generation,
    /// Refreshing fails while the token is still valid.
    degraded: bool,
    /// The token was used.
    used: AtomicBool,
    /// Newer than the floor. It is wiped where it stands, and so never moved from there.
    held: Option<Held>,
}

#[repr(C)]
struct Held {
    epoch: Epoch,
    believed_until: Option<Deadline>,
    token: Token,
    /// The same for those who keep it for longer than it takes to read it, once there were any.
    shared: OnceLock<Arc<Token>>,
    /// Set once per token: refreshing it ahead of time was asked for.
    ahead_asked: bool,
}

impl Slot {
    pub(super) fn new(key: TokenKey, edition: Edition, place: Place, trust: Arc<Trust>) -> Self {
        let place = Arc::new(place);
        let (asked_for, doubts) = (AtomicBool::new(false), AtomicU32::new(0));
        let (state, alone) = (RwLock::default(), OnceLock::new());
        Self { edition, trust, asked_for, doubts, state, key, place, alone }
    }

    /// What somebody looks for who looks for this.
    pub(super) fn sought(&self) -> Sought<'_> {
        let TokenKey { grant, scopes, resources } = &self.key;
        Sought { grant, scopes, resources, edition: self.edition }
    }

    pub(super) fn mark_asked_for(&self) {
        set(&self.asked_for);
    }

    pub(super) fn take_asked_for(&self) -> bool {
        self.asked_for.swap(false, Ordering::Relaxed)
    }

    /// Reads the token, and whether refreshing it fails, if it may be served without a look into the store.
    pub fn read<R>(&self, wanted: &Wanted, now: &Moment, read: impl FnOnce(&Token, bool) -> R) -> Option<R> {
        let state = self.state.read();
        let held = state.serve(|held| self.believes(held, now) && held.token.satisfies(wanted, now))?;
        Some(read(&held.token, state.degraded))
    }

    /// The token, if it may be served without a look into the store.
    pub fn fresh(&self, wanted: &Wanted, now: &Moment) -> Option<Arc<Token>> {
        let state = self.state.read();
        state.serve(|held| self.believes(held, now) && held.token.satisfies(wanted, now)).map(Held::shared)
    }

    /// The token, if it is valid as far as this replica knows: for times when the store cannot be asked.
    pub fn valid(&self, wanted: &Wanted, now: &Moment) -> Option<Arc<Token>> {
        self.state.read().serve(|held| held.token.satisfies(wanted, now)).map(Held::shared)
    }

    /// Marks a valid token as used.
    pub fn mark_used(&self, now: &Moment) {
        self.state.read().serve(|held| held.token.satisfies(&Wanted::default(), now));
    }

    /// Whether the token of this generation is held and good for anybody who comes now, without marking it as used.
    pub fn is_good(&self, generation: Generation, now: &Moment) -> bool {
        let state = self.state.read();
        let held = state.held.as_ref().filter(|held| held.token.generation == generation);
        held.is_some_and(|held| held.token.satisfies(&Wanted::default(), now))
    }

    /// To be called before a load begins.
    pub fn epoch(&self) -> Epoch {
        self.trust.epoch().of_slot(self.doubts.load(Ordering::SeqCst))
    }

    /// Has the token looked up in the store before it is served again.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a token may be served without a look into the store.
    fn believes(&self, held: &Held, now: &Moment) -> bool {
        self.trust.is_hearing()
            && held.epoch == self.epoch()
            && held.believed_until.is_none_or(|until| !until.has_passed(now))
    }

    /// Puts a token in, unless it is dead or older than the one that is there. Tells whether it went in.
    pub fn put(&self, token: &Arc<Token>, epoch: Epoch, now: &Moment) -> bool {
        let believed_until = self.trust.max_age.map(|age| now.after(age));
        let mut state = self.state.write();
        if let Some(same) = state.held_of(token.generation) {
            same.epoch = epoch;
            same.believed_until = believed_until;
            return false;
        }
        let new = token.generation > state.newest_known();
        if new {
            let (token, shared) = (Token::clone(token), OnceLock::new());
            let held = state.held.insert(Held { epoch, believed_until, token, shared, ahead_asked: false });
            held.token.value.bring_near();
            state.degraded = false;
        }
        new
    }

    /// Declares tokens of this generation and older dead.
    pub fn raise_floor(&self, floor: Generation) {
        let mut state = self.state.write();
        state.floor = state.floor.max(floor);
        if state.generation().is_some_and(|held| held <= floor) {
            state.held = None;
        }
    }

    /// The generation at and below which tokens are dead.
    pub fn floor(&self) -> Generation {
        self.state.read().floor
    }

    /// The newest generation that this replica knows of.
    pub fn newest_known(&self) -> Generation {
        self.state.read().newest_known()
    }

    /// Whether the token was used since this was last asked.
    pub fn take_used(&self) -> bool {
        self.state.read().used.swap(false, Ordering::Relaxed)
    }

    /// Claims the right to have this generation refreshed ahead of time; only the first caller gets it.
    pub fn ask_ahead(&self, generation: Generation) -> bool {
        self.state.write().held_of(generation).is_some_and(|held| !mem::replace(&mut held.ahead_asked, true))
    }

    /// Gives that right back after a failure.
    pub fn unask_ahead(&self, generation: Generation) {
        if let Some(held) = self.state.write().held_of(generation) {
            held.ahead_asked = false;
        }
    }

    /// The generation that is held.
    pub fn generation(&self) -> Option<Generation> {
        self.state.read().generation()
    }

    /// Whether refreshing fails while the token is still valid.
    pub fn is_degraded(&self) -> bool {
        self.state.read().degraded
    }

    /// Notes whether refreshing fails.
    pub fn set_degraded(&self, degraded: bool) {
        self.state.write().degraded = degraded;
    }

    /// What this replica did for the token while the store was away.
    pub fn alone(&self) -> MutexGuard<'_, Alone> {
        self.alone.get_or_init(Box::default).lock()
    }
}

impl State {
    /// The token, if it is good for that; it counts as used then.
    fn serve(&self, is_good: impl FnOnce(&Held) -> bool) -> Option<&Held> {
        let held = self.held.as_ref().filter(|held| is_good(held))?;
        set(&self.used);
        Some(held)
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

impl Held {
    fn shared(&self) -> Arc<Token> {
        Arc::clone(self.shared.get_or_init(|| Arc::new(self.token.clone())))
    }
}

/// Many processors read what many ask for, as long as none of them writes.
fn set(mark: &AtomicBool) {
    if !mark.load(Ordering::Relaxed) {
        mark.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator has pieces of 512 bytes, of which reference counts take 16.
    #[test]
    fn a_slot_with_its_token_is_no_larger_than_it_need_be() {
        assert!(size_of::<Slot>() <= 496, "{}", size_of::<Slot>());
    }
}
