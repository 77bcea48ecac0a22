//! The embedded store: one file, one process, no other set-up. Every write is on disk before it is acknowledged, so a
//! `kill -9` loses nothing that anybody was told of.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::{
    file::{Changed, File, TokenRow, now_us},
    lease::Leases,
    refusals::Refusals,
    rest::Rests,
};
use super::{
    Acknowledged, Change, Claim, Claimed, Commit, Dispatch, Dispatched, EVENT_BACKLOG, Event, Found, Import, Loaded,
    Quarantine, Refuse, Rest, Search, Settle, Step, Stepped, Store, StoreError, Verdict, Written,
    names::{EndpointName, Names, Place, UnitName},
    record::{GrantRow, MAX_REVIVAL_WAIT, MAX_WAIT, micros, seal_quarantine, seal_report, seal_secrets, seal_token},
    seal::{Ring, Sealed},
};
use crate::{
    clock::Moment,
    store::AttemptId,
    token::{Generation, Token},
};

mod file;
mod lease;
mod refusals;
mod reseal;
mod rest;

/// The store in a file of this process.
pub struct Embedded {
    file: Arc<File>,
    names: Names,
    leases: Arc<Leases>,
    rests: Rests,
    refusals: Refusals,
    events: broadcast::Sender<Event>,
}

impl Embedded {
    /// Opens the file, or makes it. A file that another process has open is refused.
    pub fn open(path: &Path, ring: Ring) -> Result<Self, StoreError> {
        let file = File::open(path, ring)?;
        let names = file.names()?;
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let (file, leases, rests, refusals) = (Arc::new(file), Arc::default(), Rests::default(), Refusals::default());
        Ok(Self { file, names, leases, rests, refusals, events })
    }

    /// Whether these keys open the store's first record.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`], if they do not.
    pub async fn opens_with(&self, ring: &Ring) -> Result<(), StoreError> {
        let ring = ring.clone();
        self.blocking(move |file| Names::open(&ring, &file.root()?).map(drop)).await
    }

    /// Deletes tokens that have expired and tells how many.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        self.blocking(File::sweep).await
    }

    /// Disk work never stands on a thread that serves requests.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .map_err(|error| StoreError::Unavailable(format!("the store's task ended: {error}")))?
    }

    fn token_row(&self, place: &Place, token: &Token) -> Result<TokenRow, StoreError> {
        Ok(TokenRow {
            generation: token.generation,
            expires_us: token.remaining(&Moment::now()).map(|left| now_us().saturating_add(micros(left))),
            sealed: seal_token(&self.file.ring, place, token)?,
        })
    }

    /// Writes a new revision and tells of it in one go, so that whoever gives up waiting takes neither with him. A
    /// repeated write was told of before.
    async fn advance(
        &self,
        change: Change,
        expected: Generation,
        new: GrantRow,
        token: Option<(Place, TokenRow)>,
    ) -> Result<Written, StoreError> {
        let events = self.events.clone();
        self.blocking(move |file| {
            let token = token.as_ref().map(|(place, token)| (place, token));
            let changed = file.advance(&change.unit, expected, new, token)?;
            if changed == Changed::Now {
                publish(&events, change);
            }
            Ok(changed.into())
        })
        .await
    }
}

#[async_trait]
impl Store for Embedded {
    fn names(&self) -> &Names {
        &self.names
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn load(&self, place: &Place) -> Result<Loaded, StoreError> {
        let own = place.clone();
        let loaded = self.blocking(move |file| file.load(&own)).await?;
        Ok(Loaded { refusal: self.refusals.of(place), ..loaded })
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        let unit = &claim.place.unit;
        if let Err(left) = self.leases.take(unit, claim.owner, claim.lease) {
            let token = self.load(claim.place).await?.token;
            return Ok(token
                .filter(|token| token.generation > claim.refused)
                .map_or(Claimed::Busy(left), Claimed::Newer));
        }
        // The record is read after the lease was taken; whoever held it before has committed by now.
        let loaded = self.load(claim.place).await.inspect_err(|_| self.leases.release(unit, claim.owner))?;
        let claimed = decide_claim(loaded, claim, self.refusals.give_way(unit));
        if !matches!(claimed, Claimed::Held { .. }) {
            self.leases.release(unit, claim.owner);
        }
        Ok(claimed)
    }

    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError> {
        let (unit, attempt, expected) = (dispatch.unit.clone(), dispatch.attempt.clone(), dispatch.expected);
        let seen = dispatch.seen.cloned();
        if !self.leases.holds(&unit, &attempt, dispatch.need) {
            return Ok(Dispatched::LeaseLost);
        }
        let written = self
            .blocking(move |file| file.change(&unit, expected, |row| note_intent(row, &attempt, seen.as_ref())))
            .await?;
        Ok(match written {
            Written::Done => Dispatched::Go,
            Written::Moved => Dispatched::Moved,
        })
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Written, StoreError> {
        let (place, next) = (commit.place, commit.next);
        let sealed = seal_secrets(&self.file.ring, &place.unit, next, commit.secrets)?;
        let token = self.token_row(place, commit.token)?;
        let change = Change { unit: place.unit.clone(), token: Some(place.token.clone()), floor: below(next) };
        let new = new_row(next, commit.attempt, sealed);
        let written = self.advance(change, commit.expected, new, Some((place.clone(), token))).await?;
        if written == Written::Done {
            self.refusals.obtained(place);
        }
        self.leases.release(&place.unit, commit.attempt);
        Ok(written)
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError> {
        let (unit, expected, verdict, early) = (settle.unit.clone(), settle.expected, settle.verdict, settle.early);
        let (attempt, cause) = (settle.attempt.as_str().to_owned(), settle.cause.word().to_owned());
        let seal = |report| seal_report(&self.file.ring, settle.unit, expected, settle.attempt, report);
        let report = settle.report.map(seal).transpose()?;
        let written = self
            .blocking(move |file| {
                file.change(&unit, expected, |row| {
                    (row.report_rev, row.report) = (expected, report);
                    settle_row(row, attempt, cause, verdict, early)
                })
            })
            .await;
        self.leases.release(settle.unit, settle.attempt);
        written
    }

    async fn refuse(&self, refuse: &Refuse<'_>) -> Result<Written, StoreError> {
        let (unit, expected, attempt) = (&refuse.place.unit, refuse.expected, refuse.attempt.clone());
        let changed = unit.clone();
        let settled = self.blocking(move |file| file.settle_attempt(&changed, expected, &attempt)).await;
        self.leases.release(unit, refuse.attempt);
        let settled = settled?;
        if settled == Changed::Now {
            self.refusals.note(refuse);
        }
        Ok(settled.into())
    }

    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError> {
        self.leases.release(unit, owner);
        Ok(())
    }

    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        let (place, events) = (place.clone(), self.events.clone());
        self.blocking(move |file| {
            file.reject(&place, generation, strikes)?;
            publish(&events, Change { unit: place.unit, token: Some(place.token), floor: generation });
            Ok(())
        })
        .await
    }

    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError> {
        let sealed = seal_secrets(&self.file.ring, import.unit, import.next, import.secrets)?;
        let change = Change { unit: import.unit.clone(), token: None, floor: below(import.next) };
        let new = new_row(import.next, import.attempt, sealed);
        let written = self.advance(change, import.expected, new, None).await?;
        if written == Written::Done {
            self.refusals.replaced(import.unit);
        }
        Ok(written)
    }

    async fn quarantine(&self, quarantine: &Quarantine<'_>) -> Result<Written, StoreError> {
        let (unit, expected, next) = (quarantine.unit.clone(), quarantine.expected, quarantine.next);
        let attempt = quarantine.attempt.clone();
        let sealed = seal_quarantine(&self.file.ring, &unit, next, quarantine.secrets)?;
        self.blocking(move |file| file.quarantine(&unit, &attempt, expected, next, sealed)).await
    }

    async fn adopt(&self, adopt: &Import<'_>) -> Result<Written, StoreError> {
        let (unit, expected) = (adopt.unit.clone(), adopt.expected);
        let sealed = seal_secrets(&self.file.ring, &unit, adopt.next, adopt.secrets)?;
        let new = new_row(adopt.next, adopt.attempt, sealed);
        let written = self.blocking(move |file| file.adopt(&unit, expected, new)).await;
        self.leases.release(adopt.unit, adopt.attempt);
        written
    }

    async fn reassert(&self, known: &Acknowledged<'_>) -> Result<Written, StoreError> {
        let (unit, revision) = (known.unit.clone(), known.revision);
        let sealed = seal_secrets(&self.file.ring, &unit, revision, known.secrets)?;
        let new = GrantRow { since: revision, ..new_row(revision, known.attempt, sealed) };
        let token = known.token.map(|(place, token)| Ok((place.clone(), self.token_row(place, token)?)));
        let token = token.transpose()?;
        let events = self.events.clone();
        let written = self
            .blocking(move |file| {
                let written = file.reassert(&unit, new, token.as_ref().map(|(place, token)| (place, token)))?;
                if written == Written::Done {
                    publish(&events, Change { unit, token: None, floor: below(revision) });
                }
                Ok(written)
            })
            .await?;
        if written == Written::Done {
            self.refusals.replaced(known.unit);
        }
        Ok(written)
    }

    async fn cool_down(&self, endpoint: &EndpointName, rest: &Rest) -> Result<(), StoreError> {
        self.rests.note(endpoint, &Rest { left: rest.left.min(MAX_WAIT), ..*rest });
        Ok(())
    }

    async fn cooling(&self, endpoint: &EndpointName) -> Result<Option<Rest>, StoreError> {
        Ok(self.rests.of(endpoint))
    }

    async fn take_turn(&self, endpoint: &EndpointName, span: Duration) -> Result<bool, StoreError> {
        Ok(self.rests.take_turn(endpoint, span))
    }

    async fn dead_grants(&self, search: &Search<'_>) -> Result<Found, StoreError> {
        let (credential, from) = (search.credential.clone(), search.from.map(str::to_owned));
        self.blocking(move |file| file.dead_grants(&credential, from.as_deref())).await
    }

    async fn reseal(&self, step: &Step<'_>) -> Result<Stepped, StoreError> {
        let (from, reseal) = (step.from.map(str::to_owned), step.reseal);
        self.blocking(move |file| file.reseal(from.as_deref(), reseal)).await
    }

    fn seal_keys(&self) -> Vec<String> {
        self.file.ring.ids()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.blocking(File::ping).await
    }
}

fn publish(events: &broadcast::Sender<Event>, change: Change) {
    // Nobody listening is no fault.
    let _ = events.send(Event::Changed(change));
}

/// The row of a new revision; nothing that was noted of the one before is in it.
fn new_row(rev: Generation, attempt: &AttemptId, sealed: Sealed) -> GrantRow {
    GrantRow {
        rev,
        attempt: Some(attempt.as_str().to_owned()),
        made_us: now_us(),
        sealed: Some(sealed),
        ..GrantRow::default()
    }
}

/// The newest of what a new revision replaces.
fn below(next: Generation) -> Generation {
    Generation::new(next.get().saturating_sub(1))
}

fn decide_claim(loaded: Loaded, claim: &Claim<'_>, give_way: Duration) -> Claimed {
    let Loaded { record, token, next, refusal } = loaded;
    match (token, record, refusal) {
        (Some(token), _, _) if token.generation > claim.refused => Claimed::Newer(token),
        (_, Some(record), _) if record.is_resting(claim.purpose) => Claimed::Resting(record),
        (_, _, Some(refusal)) if refusal.holds(claim.purpose) => Claimed::Refused(refusal),
        (_, _, _) if claim.purpose.yields && !give_way.is_zero() => Claimed::Busy(give_way),
        (_, record, refusal) => Claimed::Held { record, next, refusal },
    }
}

/// Notes that the refresh token is about to be sent, unless somebody else noted the same since the claim.
fn note_intent(row: &mut GrantRow, attempt: &AttemptId, seen: Option<&AttemptId>) -> Written {
    if row.intent.as_deref() == Some(attempt.as_str()) {
        return Written::Done;
    }
    if row.intent.as_deref() != seen.map(AttemptId::as_str) {
        return Written::Moved;
    }
    row.sent_us = now_us();
    if row.intent.is_none() {
        row.intent_us = row.sent_us;
    }
    row.intent = Some(attempt.as_str().to_owned());
    row.sends = row.sends.saturating_add(1);
    Written::Done
}

fn settle_row(row: &mut GrantRow, attempt: String, cause: String, verdict: Verdict, early: bool) -> Written {
    if row.settled.as_deref() == Some(&attempt) {
        return Written::Done;
    }
    let now = now_us();
    let (wait, known) = match verdict {
        Verdict::BackOff { wait } => (wait, true),
        Verdict::OutcomeUnknown { wait } => (wait, false),
        Verdict::Dead { again } => {
            row.dead = Some(cause.clone());
            row.deaths = row.deaths.saturating_add(1);
            row.revive_us = again.map_or(0, |again| now.saturating_add(micros(again.min(MAX_REVIVAL_WAIT))));
            (Duration::ZERO, true)
        }
    };
    if known {
        row.withdraw(&attempt);
    }
    // Tries ahead of time count by themselves, so that a token that is needed begins with the shortest wait.
    let were_early = row.fail.is_some() && row.is_early();
    let early = early && (were_early || row.fail.is_none());
    if were_early && !early {
        row.failures = 0;
    }
    row.settled = Some(attempt);
    row.fail = Some(cause);
    row.failures = row.failures.saturating_add(1);
    row.retry_us = now.saturating_add(micros(wait.min(MAX_WAIT)));
    row.early_us = if early { row.retry_us } else { 0 };
    Written::Done
}
