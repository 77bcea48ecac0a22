//! A store in memory that keeps the contract (`store_contract.rs`), on the simulation's clock. And, to see that they
//! are noticed, stores that break it in one way each.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use bearerd::{
    clock::Moment,
    failure::FailureCause,
    secret::SecretString,
    store::{
        Acknowledged, AttemptId, Census, Change, Claim, Claimed, Commit, Dispatch, Dispatched, Event, Found,
        GrantRecord, GrantSecrets, GrantState, Import, Intent, LastFailure, Loaded, Look, Material, Names, Place,
        Quarantine, Refuse, Rest, Revival, Search, Settle, Step, Stepped, Store, StoreError, TokenRefusal, UnitName,
        Verdict, Written,
        names::{EndpointName, TokenName},
        record::{MAX_PAST, MAX_WAIT, Quarantined, micros},
    },
    token::{Expiry, Generation, Token},
};
use parking_lot::Mutex;
use tokio::{sync::broadcast, time::Instant};

use super::flaw::Flaw;

/// The store's time when it begins, in µs: somewhere in this century.
const EPOCH_US: u64 = 1_800_000_000_000_000;

pub struct SimStore {
    names: Names,
    begin: Instant,
    flaw: Option<Flaw>,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

/// Everything that is kept.
#[derive(Clone, Default)]
pub struct State {
    rows: HashMap<UnitName, Row>,
    leases: HashMap<UnitName, (AttemptId, u64)>,
    tokens: HashMap<(UnitName, TokenName), Kept>,
    rests: HashMap<EndpointName, (FailureCause, u64)>,
    turns: HashMap<EndpointName, u64>,
    refusals: HashMap<(UnitName, TokenName), Refused>,
    /// Until when claims that yield wait.
    give_way: HashMap<UnitName, u64>,
    /// For [`Flaw::ClaimReadsBefore`].
    waited: HashMap<UnitName, Option<Row>>,
    /// For [`Flaw::CommitForgotten`].
    commits: u64,
}

#[derive(Clone, Default)]
struct Row {
    rev: Generation,
    dead: Option<FailureCause>,
    since: Generation,
    attempt: Option<AttemptId>,
    past: Vec<AttemptId>,
    settled: Option<AttemptId>,
    intent: Option<AttemptId>,
    intent_us: u64,
    sent_us: u64,
    sends: u32,
    strikes: u32,
    failure: Option<(FailureCause, u32, u64)>,
    early: bool,
    revive_us: u64,
    deaths: u32,
    written_us: u64,
    secrets: GrantSecrets,
    quarantine: Option<Quarantined>,
}

#[derive(Clone, Copy)]
struct Refused {
    cause: FailureCause,
    count: u32,
    due_us: u64,
    early: bool,
}

#[derive(Clone)]
struct Kept {
    token: Token,
    ends_us: Option<u64>,
}

impl State {
    /// What tells whether something of a unit changed.
    fn of(&self, unit: &UnitName) -> impl PartialEq {
        let row =
            self.rows.get(unit).map(|row| (row.rev, row.intent.clone(), row.settled.clone(), row.strikes, row.dead));
        let mut tokens: Vec<_> = self.tokens.iter().filter(|((of, _), _)| of == unit).collect();
        tokens.sort_by_key(|((_, name), _)| name.as_str());
        let tokens: Vec<_> =
            tokens.into_iter().map(|((_, name), kept)| (name.clone(), kept.token.generation)).collect();
        (row, tokens, self.leases.get(unit).cloned())
    }
}

/// What stands in the store, for those who watch.
pub struct Seen {
    pub revision: Generation,
    pub attempt: Option<AttemptId>,
    pub intent: Option<AttemptId>,
    pub dead: Option<FailureCause>,
    pub refresh_token: Option<SecretString>,
}

impl SimStore {
    pub fn new(flaw: Option<Flaw>) -> Self {
        let (events, _) = broadcast::channel(4096);
        let names = Names::new(&[7; 32]);
        Self { names, begin: Instant::now(), flaw, state: Mutex::default(), events }
    }

    fn now_us(&self) -> u64 {
        EPOCH_US + micros(self.begin.elapsed())
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn publish(&self, change: Change) {
        if self.has(Flaw::EventsSilent) {
            return;
        }
        // Nobody listening is no fault.
        let _ = self.events.send(Event::Changed(change));
    }

    fn key(&self, place: &Place) -> (UnitName, TokenName) {
        let token = if self.has(Flaw::OneNameForAll) { TokenName::from("token") } else { place.token.clone() };
        (place.unit.clone(), token)
    }

    pub fn seen(&self, unit: &UnitName) -> Option<Seen> {
        self.end_grants(&mut self.state.lock());
        let state = self.state.lock();
        state.rows.get(unit).map(|row| Seen {
            revision: row.rev,
            attempt: row.attempt.clone(),
            intent: row.intent.clone(),
            dead: row.dead,
            refresh_token: match &row.secrets.material {
                Material::RefreshToken(token) => Some(token.clone()),
                Material::Nothing | Material::Static(_) => None,
            },
        })
    }

    /// What is left until the broker may try a dead grant again by itself, if nothing speaks against that.
    pub fn revival(&self, unit: &UnitName) -> Option<Duration> {
        let state = self.state.lock();
        let row = state.rows.get(unit)?;
        let may = row.dead == Some(FailureCause::ReauthorizationRequired)
            && row.revive_us != 0
            && row.intent.is_none()
            && row.quarantine.is_none();
        may.then(|| Duration::from_micros(row.revive_us.saturating_sub(self.now_us())))
    }

    /// Whether the token of a place came to its end before this, and nobody rejected it.
    pub fn had_ended(&self, place: &Place, before: Instant) -> bool {
        let state = self.state.lock();
        let since = state.rows.get(&place.unit).map_or(Generation::ZERO, |row| row.since);
        let kept = state.tokens.get(&self.key(place)).filter(|kept| kept.token.generation >= since);
        let ended = kept.and_then(|kept| kept.ends_us).map(|ends| ends.saturating_sub(EPOCH_US));
        ended.is_some_and(|ended| self.begin + Duration::from_micros(ended) <= before)
    }

    /// How long ago the token of a generation was asked for.
    pub fn age(&self, generation: Generation) -> Duration {
        Duration::from_micros(self.now_us().saturating_sub(generation.get()))
    }

    /// The generation that a token would have that is asked for now.
    pub fn next(&self) -> Generation {
        Generation::new(self.now_us())
    }

    /// Everything as it is now.
    pub fn copy(&self) -> State {
        self.state.lock().clone()
    }

    /// Goes back to what was. Returns the units of which something was forgotten, and the revisions that they have now.
    pub fn go_back(&self, before: State) -> Vec<(UnitName, Generation)> {
        let mut state = self.state.lock();
        let after = std::mem::replace(&mut *state, before);
        let changed = after.rows.keys().filter(|unit| after.of(unit) != state.of(unit));
        let revision = |unit| state.rows.get(unit).map_or(Generation::ZERO, |row| row.rev);
        let mut changed: Vec<_> = changed.map(|unit| (unit.clone(), revision(unit))).collect();
        changed.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        changed
    }

    /// Who has the lease.
    pub fn holder(&self, unit: &UnitName) -> Option<AttemptId> {
        let state = self.state.lock();
        let (owner, until) = state.leases.get(unit)?;
        (*until > self.now_us()).then(|| owner.clone())
    }

    /// Reads a place; the token's life counts from `asked`.
    pub fn read(&self, place: &Place, asked: &Moment) -> Loaded {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        self.read_in(&state, place, asked)
    }

    /// Whether the token of this generation is the one that is there, and the grant's revision.
    pub fn compare(&self, place: &Place, at_hand: Generation) -> Look {
        let loaded = self.read(place, &Moment::now());
        let generation = loaded.token.as_ref().map(|token| token.generation);
        match &loaded.record {
            Some(record) if record.revision == at_hand && generation == Some(at_hand) => {
                Look::Unchanged { failing: record.failure.is_some() }
            }
            Some(_) if self.has(Flaw::LookBelieves) => Look::Unchanged { failing: false },
            Some(_) | None => Look::Changed,
        }
    }

    fn read_in(&self, state: &State, place: &Place, asked: &Moment) -> Loaded {
        let row = state.rows.get(&place.unit);
        let token = self.token(state, place, row, asked);
        let record = row.map(|row| row.open(self.now_us()));
        let next = row.map_or(Generation::ZERO, |row| row.rev).next(self.now_us());
        let refusal = state.refusals.get(&self.key(place)).map(|refused| TokenRefusal {
            cause: refused.cause,
            count: refused.count,
            wait: Duration::from_micros(refused.due_us.saturating_sub(self.now_us())),
            early: refused.early,
        });
        Loaded { record, token, next, refusal }
    }

    fn token(&self, state: &State, place: &Place, row: Option<&Row>, asked: &Moment) -> Option<Token> {
        let kept = state.tokens.get(&self.key(place))?;
        if kept.token.generation < row.map_or(Generation::ZERO, |row| row.since) {
            return None;
        }
        let Some(ends_us) = kept.ends_us else { return Some(kept.token.clone()) };
        let mut left = Duration::from_micros(ends_us.saturating_sub(self.now_us()));
        let expiry = kept.token.expiry?;
        if self.has(Flaw::TokenNeverEnds) {
            left = expiry.lifetime;
        }
        let expiry = Expiry { deadline: asked.after(left), ..expiry };
        (!left.is_zero()).then(|| Token { expiry: Some(expiry), ..kept.token.clone() })
    }

    fn end_grants(&self, state: &mut State) {
        if self.has(Flaw::GrantEnds) {
            let (now, life) = (self.now_us(), micros(Duration::from_secs(100)));
            state.rows.retain(|_, row| row.written_us + life > now);
        }
    }

    pub fn take(&self, claim: &Claim<'_>, asked: &Moment) -> Claimed {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let Loaded { mut record, token, next, refusal } = self.read_in(&state, claim.place, asked);
        if let Some(token) = token.filter(|token| token.generation > claim.refused) {
            return Claimed::Newer(token);
        }
        if let Some(record) = record.take_if(|record| record.is_resting(claim.purpose)) {
            return Claimed::Resting(record);
        }
        if let Some(refusal) = refusal.filter(|refusal| refusal.holds(claim.purpose)) {
            return Claimed::Refused(refusal);
        }
        let (unit, now) = (&claim.place.unit, self.now_us());
        if let Some(until) = state.give_way.get(unit)
            && claim.purpose.yields
            && *until > now
        {
            return Claimed::Busy(Duration::from_micros(until - now));
        }
        if let Some((owner, until)) = state.leases.get(unit)
            && *until > now
            && owner != claim.owner
        {
            let left = Duration::from_micros(until - now);
            let row = state.rows.get(unit).cloned();
            state.waited.entry(unit.clone()).or_insert(row);
            return Claimed::Busy(left);
        }
        state.leases.insert(unit.clone(), (claim.owner.clone(), now + micros(claim.lease)));
        let waited = state.waited.remove(unit);
        match waited.filter(|_| self.has(Flaw::ClaimReadsBefore)) {
            Some(before) => Claimed::Held { record: before.map(|row| row.open(now)), next, refusal },
            None => Claimed::Held { record, next, refusal },
        }
    }

    pub fn note_intent(&self, dispatch: &Dispatch<'_>) -> Dispatched {
        let now = self.now_us();
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let always = self.has(Flaw::DispatchAlways) || self.has(Flaw::DispatchUnfenced);
        let holds = state.leases.get(dispatch.unit).is_some_and(|(owner, until)| {
            owner == dispatch.attempt && *until > now && until - now >= micros(dispatch.need)
        });
        if !holds && !always {
            return Dispatched::LeaseLost;
        }
        let mut row = state.rows.get(dispatch.unit).cloned().unwrap_or_default();
        if row.rev != dispatch.expected && !self.has(Flaw::DispatchUnfenced) {
            return Dispatched::Moved;
        }
        if row.intent.as_ref() == Some(dispatch.attempt) {
            return Dispatched::Go;
        }
        if row.intent.as_ref() != dispatch.seen && !always {
            return Dispatched::Moved;
        }
        row.sent_us = now;
        if row.intent.is_none() {
            row.intent_us = now;
        }
        row.intent = Some(dispatch.attempt.clone());
        row.sends += 1;
        state.rows.insert(dispatch.unit.clone(), row);
        Dispatched::Go
    }

    pub fn write(&self, commit: &Commit<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let unit = &commit.place.unit;
        let row = state.rows.get(unit).cloned().unwrap_or_default();
        let fenced = match self.flaw {
            Some(Flaw::CommitNeedsLease) => !self.is_held_by(&state, unit, commit.attempt),
            Some(Flaw::CommitUnfenced) => false,
            Some(_) | None => row.rev != commit.expected,
        };
        self.give_back(&mut state, unit, commit.attempt);
        let repeated = row.attempt.as_ref() == Some(commit.attempt);
        if fenced || (repeated && row.rev == commit.next) {
            return if repeated { Written::Done } else { Written::Moved };
        }
        state.commits += 1;
        if self.has(Flaw::CommitForgotten) && state.commits.is_multiple_of(8) {
            return Written::Done;
        }
        let ends_us = commit
            .token
            .expiry
            .map(|expiry| self.now_us() + micros(expiry.deadline.instant().saturating_duration_since(Instant::now())));
        state.tokens.insert(self.key(commit.place), Kept { token: commit.token.clone(), ends_us });
        state.refusals.remove(&self.key(commit.place));
        let new = self.row(commit.next, commit.attempt, commit.secrets);
        let past = row.written_before();
        state.rows.insert(unit.clone(), Row { since: row.since, strikes: row.strikes, past, ..new });
        let floor = Generation::new(commit.next.get() - 1);
        self.publish(Change { unit: unit.clone(), token: Some(commit.place.token.clone()), floor });
        Written::Done
    }

    fn row(&self, rev: Generation, attempt: &AttemptId, secrets: &GrantSecrets) -> Row {
        let (attempt, written_us) = (Some(attempt.clone()), self.now_us());
        Row { rev, attempt, written_us, secrets: secrets.clone(), ..Row::default() }
    }

    fn is_held_by(&self, state: &State, unit: &UnitName, owner: &AttemptId) -> bool {
        state.leases.get(unit).is_some_and(|(holder, until)| holder == owner && *until > self.now_us())
    }

    fn give_back(&self, state: &mut State, unit: &UnitName, owner: &AttemptId) {
        let own = state.leases.get(unit).is_some_and(|(holder, _)| holder == owner);
        if own || self.has(Flaw::AnybodyReleases) {
            state.leases.remove(unit);
        }
    }

    pub fn note_failure(&self, settle: &Settle<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        self.give_back(&mut state, settle.unit, settle.attempt);
        let mut row = state.rows.get(settle.unit).cloned().unwrap_or_default();
        if row.rev != settle.expected && !self.has(Flaw::SettleUnfenced) {
            return Written::Moved;
        }
        if row.settled.as_ref() == Some(settle.attempt) {
            return Written::Done;
        }
        self.settle_row(&mut row, settle);
        state.rows.insert(settle.unit.clone(), row);
        Written::Done
    }

    fn settle_row(&self, row: &mut Row, settle: &Settle<'_>) {
        let (wait, known) = match settle.verdict {
            Verdict::BackOff { wait } => (wait, true),
            Verdict::OutcomeUnknown { wait } => (wait, self.has(Flaw::IntentForgotten)),
            Verdict::Dead { again } => {
                row.dead = Some(settle.cause);
                row.deaths += 1;
                row.revive_us = again.map_or(0, |again| self.now_us() + micros(again));
                (Duration::ZERO, true)
            }
        };
        if known {
            row.withdraw(settle.attempt);
        }
        let were_early = row.failure.is_some() && row.early;
        row.early = settle.early && (were_early || row.failure.is_none());
        if were_early && !row.early {
            row.failure = None;
        }
        row.settled = Some(settle.attempt.clone());
        let count = row.failure.map_or(0, |(_, count, _)| count) + 1;
        row.failure = Some((settle.cause, count, self.now_us() + micros(wait.min(MAX_WAIT))));
    }

    pub fn note_refusal(&self, refuse: &Refuse<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let unit = &refuse.place.unit;
        self.give_back(&mut state, unit, refuse.attempt);
        let mut row = state.rows.get(unit).cloned().unwrap_or_default();
        if row.rev != refuse.expected {
            return Written::Moved;
        }
        if row.settled.as_ref() == Some(refuse.attempt) {
            return Written::Done;
        }
        row.withdraw(refuse.attempt);
        row.settled = Some(refuse.attempt.clone());
        state.rows.insert(unit.clone(), row);
        let known = state.refusals.get(&self.key(refuse.place)).copied();
        let early = refuse.early && known.is_none_or(|known| known.early);
        let count = known.filter(|known| known.early == early).map_or(0, |known| known.count) + 1;
        let due_us = self.now_us() + micros(refuse.wait.min(MAX_WAIT));
        state.refusals.insert(self.key(refuse.place), Refused { cause: refuse.cause, count, due_us, early });
        state.give_way.insert(unit.clone(), self.now_us() + micros(refuse.give_way));
        Written::Done
    }

    pub fn give_up(&self, unit: &UnitName, owner: &AttemptId) {
        self.give_back(&mut self.state.lock(), unit, owner);
    }

    pub fn delete(&self, place: &Place, generation: Generation, strikes: u32) {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        if let Some(row) = state.rows.get_mut(&place.unit) {
            row.strikes = strikes;
        }
        if !self.has(Flaw::RejectForgotten) {
            let key = self.key(place);
            if state.tokens.get(&key).is_some_and(|kept| kept.token.generation <= generation) {
                state.tokens.remove(&key);
            }
        }
        let (unit, token) = (place.unit.clone(), Some(place.token.clone()));
        self.publish(Change { unit, token, floor: generation });
    }

    pub fn replace(&self, import: &Import<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let row = state.rows.get(import.unit).cloned().unwrap_or_default();
        if row.rev != import.expected {
            return if row.attempt.as_ref() == Some(import.attempt) { Written::Done } else { Written::Moved };
        }
        let new = self.row(import.next, import.attempt, import.secrets);
        state.rows.insert(import.unit.clone(), Row { since: import.next, ..new });
        state.refusals.retain(|(unit, _), _| unit != import.unit);
        let floor = Generation::new(import.next.get() - 1);
        self.publish(Change { unit: import.unit.clone(), token: None, floor });
        Written::Done
    }

    pub fn keep(&self, late: &Quarantine<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let Some(row) = state.rows.get_mut(late.unit).filter(|row| row.rev > Generation::ZERO) else {
            return Written::Moved;
        };
        if row.since > late.expected || row.past.contains(late.attempt) {
            return Written::Moved;
        }
        if row.quarantine.as_ref().is_none_or(|kept| kept.revision < late.next) {
            row.quarantine = Some(Quarantined { revision: late.next, secrets: late.secrets.clone() });
        }
        Written::Done
    }

    pub fn bring_back(&self, adopt: &Import<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        self.give_back(&mut state, adopt.unit, adopt.attempt);
        let row = state.rows.get(adopt.unit).cloned().unwrap_or_default();
        if row.rev != adopt.expected {
            return if row.attempt.as_ref() == Some(adopt.attempt) { Written::Done } else { Written::Moved };
        }
        let new = self.row(adopt.next, adopt.attempt, adopt.secrets);
        let past = row.written_before();
        state.rows.insert(adopt.unit.clone(), Row { since: row.since, strikes: row.strikes, past, ..new });
        Written::Done
    }

    pub fn write_again(&self, known: &Acknowledged<'_>) -> Written {
        let mut state = self.state.lock();
        self.end_grants(&mut state);
        let row = state.rows.get(known.unit).cloned().unwrap_or_default();
        if row.rev >= known.revision {
            return Written::Moved;
        }
        if let Some((place, token)) = known.token {
            let left = token.remaining(&Moment::now());
            let ends_us = left.map(|left| self.now_us() + micros(left));
            if left.is_none_or(|left| !left.is_zero()) {
                state.tokens.insert(self.key(place), Kept { token: token.clone(), ends_us });
            }
        }
        let new = self.row(known.revision, known.attempt, known.secrets);
        state.rows.insert(known.unit.clone(), Row { since: known.revision, strikes: row.strikes, ..new });
        state.refusals.retain(|(unit, _), _| unit != known.unit);
        let floor = Generation::new(known.revision.get() - 1);
        self.publish(Change { unit: known.unit.clone(), token: None, floor });
        Written::Done
    }

    pub fn let_rest(&self, endpoint: &EndpointName, rest: &Rest) {
        let until = self.now_us() + micros(rest.left.min(MAX_WAIT));
        let mut state = self.state.lock();
        let known = state.rests.entry(endpoint.clone()).or_insert((rest.cause, until));
        if known.1 < until {
            *known = (rest.cause, until);
        }
    }

    /// Takes the one turn of a span, if it is free.
    pub fn turn(&self, endpoint: &EndpointName, span: Duration) -> bool {
        let now = self.now_us();
        let mut state = self.state.lock();
        let free = state.turns.get(endpoint).is_none_or(|until| *until <= now);
        if free {
            state.turns.insert(endpoint.clone(), now + micros(span));
        }
        free
    }

    pub fn rest(&self, endpoint: &EndpointName) -> Option<Rest> {
        let (cause, until) = *self.state.lock().rests.get(endpoint)?;
        let left = Duration::from_micros(until.saturating_sub(self.now_us()));
        (!left.is_zero()).then_some(Rest { cause, left })
    }
}

impl Row {
    /// The attempts that wrote this revision and those before it, for the next one.
    fn written_before(&self) -> Vec<AttemptId> {
        self.attempt.iter().chain(&self.past).take(MAX_PAST).cloned().collect()
    }

    fn withdraw(&mut self, attempt: &AttemptId) {
        if self.intent.as_ref() == Some(attempt) {
            self.sends = self.sends.saturating_sub(1);
            if self.sends == 0 {
                self.intent = None;
            }
        }
    }

    fn open(&self, now_us: u64) -> GrantRecord {
        let left = |at: u64| Duration::from_micros(at.saturating_sub(now_us));
        let since = |at: u64| Duration::from_micros(now_us.saturating_sub(at));
        GrantRecord {
            revision: self.rev,
            state: self.dead.map_or(GrantState::Active, GrantState::Dead),
            secrets: self.secrets.clone(),
            intent: self.intent.clone().map(|attempt| Intent {
                settled: self.settled.as_ref() == Some(&attempt),
                attempt,
                age: since(self.intent_us),
                quiet: since(self.sent_us),
                sends: self.sends.max(1),
            }),
            failure: self.failure.map(|(cause, count, due)| LastFailure {
                cause,
                count,
                wait: left(due),
                early: self.early,
            }),
            revival: self
                .dead
                .map(|_| Revival { deaths: self.deaths, wait: (self.revive_us != 0).then(|| left(self.revive_us)) }),
            report: None,
            strikes: self.strikes,
            quarantine: self.quarantine.clone(),
        }
    }
}

#[async_trait]
impl Store for SimStore {
    fn names(&self) -> &Names {
        &self.names
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn load(&self, place: &Place) -> Result<Loaded, StoreError> {
        Ok(self.read(place, &Moment::now()))
    }

    async fn look(&self, place: &Place, at_hand: Generation) -> Result<Look, StoreError> {
        Ok(self.compare(place, at_hand))
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        Ok(self.take(claim, &Moment::now()))
    }

    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError> {
        Ok(self.note_intent(dispatch))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Written, StoreError> {
        Ok(self.write(commit))
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError> {
        Ok(self.note_failure(settle))
    }

    async fn refuse(&self, refuse: &Refuse<'_>) -> Result<Written, StoreError> {
        Ok(self.note_refusal(refuse))
    }

    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError> {
        self.give_up(unit, owner);
        Ok(())
    }

    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        self.delete(place, generation, strikes);
        Ok(())
    }

    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError> {
        Ok(self.replace(import))
    }

    async fn quarantine(&self, quarantine: &Quarantine<'_>) -> Result<Written, StoreError> {
        Ok(self.keep(quarantine))
    }

    async fn adopt(&self, adopt: &Import<'_>) -> Result<Written, StoreError> {
        Ok(self.bring_back(adopt))
    }

    async fn reassert(&self, known: &Acknowledged<'_>) -> Result<Written, StoreError> {
        Ok(self.write_again(known))
    }

    async fn cool_down(&self, endpoint: &EndpointName, rest: &Rest) -> Result<(), StoreError> {
        self.let_rest(endpoint, rest);
        Ok(())
    }

    async fn cooling(&self, endpoint: &EndpointName) -> Result<Option<Rest>, StoreError> {
        Ok(self.rest(endpoint))
    }

    async fn take_turn(&self, endpoint: &EndpointName, span: Duration) -> Result<bool, StoreError> {
        Ok(self.turn(endpoint, span))
    }

    async fn dead_grants(&self, search: &Search<'_>) -> Result<Found, StoreError> {
        let state = self.state.lock();
        let own =
            |unit: &UnitName| unit.as_str().split_once('/').is_some_and(|(name, _)| name == search.credential.as_str());
        let dead = state.rows.iter().filter(|(unit, row)| own(unit) && row.dead.is_some());
        let mut grants: Vec<_> = dead.map(|(unit, row)| (unit.clone(), row.open(self.now_us()))).collect();
        grants.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Found { grants, next: None })
    }

    /// Nothing is sealed here.
    async fn reseal(&self, _step: &Step<'_>) -> Result<Stepped, StoreError> {
        Ok(Stepped { census: Census::default(), next: None })
    }

    fn seal_keys(&self) -> Vec<String> {
        Vec::new()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
