//! Where grants and tokens are kept, and where replicas agree on who may ask the provider.
//!
//! The record, the lease and the fence are one trait on purpose: the revision is compared where the value is written
//! (protocol, "Four mechanisms"). Every operation can be repeated after a lost reply without a second effect.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use self::{
    census::{Census, Step, Stepped},
    names::{EndpointName, Names, Place, Unit, UnitName},
    record::{
        GrantRecord, GrantSecrets, GrantState, Intent, LastFailure, Material, Quarantined, Revival, TokenRefusal,
    },
    seal::Ring,
};
use crate::{
    failure::{FailureCause, ProviderReport},
    name::CredentialName,
    token::{Generation, Token},
};

pub mod census;
pub mod embedded;
pub mod names;
pub mod record;
pub mod redis;
pub mod seal;
pub mod spool;

/// A store of grants and tokens.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// How places in this store are named.
    fn names(&self) -> &Names;

    /// Whether other replicas write to this store too, so that what a replica holds in memory can become old.
    fn is_shared(&self) -> bool;

    /// What becomes known of changes, from the moment of the call on.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Reads what is known of a place, without taking anything.
    async fn load(&self, place: &Place) -> Result<Loaded, StoreError>;

    /// Tells whoever has the place's token of this generation whether that is the one that is stored, and the grant's revision
    /// too: then there is nothing to read. A store that nobody else writes to is not asked, and need not know.
    async fn look(&self, _place: &Place, _at_hand: Generation) -> Result<Look, StoreError> {
        Ok(Look::Changed)
    }

    /// Asks for the right to work on a grant, and gets the record as it is then: whoever waited never goes on with a
    /// refresh token that was read before the lease was held.
    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError>;

    /// Writes down, durably, that the refresh token of a revision is about to be sent.
    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError>;

    /// Stores what the provider gave, if the revision is still the expected one, and gives the lease back. It is fenced
    /// by the revision and not by the lease: an answer that came after the lease ran out may hold the only living
    /// refresh token.
    async fn commit(&self, commit: &Commit<'_>) -> Result<Written, StoreError>;

    /// Notes a failure, if the revision is still the expected one, and gives the lease back.
    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError>;

    /// Notes that a request was refused for what it asked for, if the revision is still the expected one. The refusal is kept
    /// for this one token, as failures are: it counts until the token is obtained or the grant is replaced. Of the grant nothing
    /// is noted; its intent is withdrawn as in [`Self::settle`], and the lease is given back.
    async fn refuse(&self, refuse: &Refuse<'_>) -> Result<Written, StoreError>;

    /// Gives the lease back, if it is this owner's.
    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError>;

    /// Deletes the token of a place if it is of this generation or older, notes how often in a row fresh tokens were
    /// rejected, and tells every replica.
    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError>;

    /// Replaces a grant by one that was handed over, if the revision is still the expected one. Tokens of the grant that
    /// was there before are never served again.
    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError>;

    /// Keeps an answer beside a grant whose revision moved before the answer could be committed: its refresh token may be
    /// the only living one. [`Written::Moved`], and nothing is kept, if there is no such grant, if another one was handed
    /// over since the answer was asked for, or if this very answer was stored and replaced, as far as that is remembered
    /// ([`record::MAX_PAST`]): then its refresh token was presented since. An answer of a newer revision that is kept
    /// already stays. It goes with the next commit, adoption or import.
    async fn quarantine(&self, quarantine: &Quarantine<'_>) -> Result<Written, StoreError>;

    /// Gives a grant another refresh token, if the revision is still the expected one: what was kept in quarantine, the
    /// intent, every failure and the grant's death are gone with it, and the lease is given back. Tokens stay: it is the
    /// same grant.
    async fn adopt(&self, adopt: &Import<'_>) -> Result<Written, StoreError>;

    /// Writes once more what this store has acknowledged before, if it has gone back in time, or a grant that was tried beside
    /// the stored one and replaces it: only if the stored revision is older, or there is none. Nothing that was noted of the older revision stays but its strikes, and tokens of other
    /// places that were made before are not served any more: some may be of a grant that was replaced. Every replica is
    /// told; no lease is touched.
    async fn reassert(&self, known: &Acknowledged<'_>) -> Result<Written, StoreError>;

    /// Notes that a token endpoint wants to be left alone by all grants that use it, for at most [`record::MAX_WAIT`]. A
    /// rest that lasts longer stays as it is.
    async fn cool_down(&self, endpoint: &EndpointName, rest: &Rest) -> Result<(), StoreError>;

    /// What is left of the rest that was noted for a token endpoint; `None` if it is over or there was none.
    async fn cooling(&self, endpoint: &EndpointName) -> Result<Option<Rest>, StoreError>;

    /// Takes the one turn that there is in a span of time for a token endpoint, for trying dead grants again. Tells whether it was
    /// free.
    async fn take_turn(&self, endpoint: &EndpointName, span: Duration) -> Result<bool, StoreError>;

    /// Finds dead grants of a credential, step by step. All that are dead all the while are found, some perhaps twice.
    async fn dead_grants(&self, search: &Search<'_>) -> Result<Found, StoreError>;

    /// Goes one step through everything that is stored, counts which key sealed it, and seals anew what another key than
    /// the first one sealed. It is written only where the sealed bytes and their revision are still what was read, so no
    /// refresh is disturbed; what cannot be opened stays as it is.
    async fn reseal(&self, step: &Step<'_>) -> Result<Stepped, StoreError>;

    /// The ids of the seal keys, the sealing one first.
    fn seal_keys(&self) -> Vec<String>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is away, or too slow. What was asked may still have happened.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// A record is damaged, or sealed with a key that is not in the ring. Nothing was overwritten.
    #[error("a record cannot be read: {0}")]
    Unreadable(String),
    /// The store cannot be opened as configured.
    #[error("the store cannot be opened: {0}")]
    Open(String),
}

/// One try at a refresh; also the owner of the lease that it works under. Random, so nobody releases another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptId(String);

impl AttemptId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As it stands in the store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for AttemptId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What is known of a place.
#[derive(Debug)]
pub struct Loaded {
    /// The grant, if one was ever stored.
    pub record: Option<GrantRecord>,
    /// The token, if one is there that has not expired.
    pub token: Option<Token>,
    /// The generation that a write would make now.
    pub next: Generation,
    /// The last refusal of this token since it was last obtained.
    pub refusal: Option<TokenRefusal>,
}

impl Loaded {
    /// The revision that is stored; zero if none is.
    pub fn revision(&self) -> Generation {
        self.record.as_ref().map_or(Generation::ZERO, |record| record.revision)
    }
}

/// The answer to a look by somebody who has a token at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing changed since that token was stored, and it has not expired.
    Unchanged {
        /// Whether a failure followed.
        failing: bool,
    },
    /// Something did, or may have: what is there is to be read.
    Changed,
}

/// A request for the right to work on a grant.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The grant, and the token that is wanted of it.
    pub place: &'a Place,
    /// Who asks.
    pub owner: &'a AttemptId,
    /// How long the right lasts.
    pub lease: Duration,
    /// A token that is newer than this makes the work unnecessary.
    pub refused: Generation,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a claim is for. It decides what the claim has to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// A caller waits for the token. Then a wait that was left behind by early tries alone does not count (P-K5).
    pub needed: bool,
    /// It is for another token than the credential's own. Such a claim waits for [`Refuse::give_way`].
    pub yields: bool,
    /// A dead grant is to be tried again.
    pub dead: bool,
}

impl Purpose {
    /// Whether it waits for what is left of a wait, which early tries alone may have left behind.
    fn waits_for(self, wait: Duration, early: bool) -> bool {
        let is_lifted = early && self.needed;
        !wait.is_zero() && !is_lifted
    }
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claimed {
    /// Somebody else already made a newer token.
    Newer(Token),
    /// The grant is dead or backs off; no lease was taken.
    Resting(GrantRecord),
    /// The provider refused this token of the grant, and the next try is not due; no lease was taken.
    Refused(TokenRefusal),
    /// Somebody else works on it, for this long at most.
    Busy(Duration),
    /// The lease is ours, and this is the record now.
    Held {
        /// The grant, if one was ever stored.
        record: Option<GrantRecord>,
        /// The generation that a commit would make now.
        next: Generation,
        /// The last refusal of this token since it was last obtained.
        refusal: Option<TokenRefusal>,
    },
}

/// The intent to send a refresh token.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// The grant.
    pub unit: &'a UnitName,
    /// Who holds the lease and sends.
    pub attempt: &'a AttemptId,
    /// The revision whose refresh token is sent.
    pub expected: Generation,
    /// The intent that the claim found; a newer one means that somebody else sends.
    pub seen: Option<&'a AttemptId>,
    /// What must be left of the lease, so that request and commit fit into it.
    pub need: Duration,
}

/// Whether sending is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatched {
    /// The intent is stored; send now.
    Go,
    /// The lease is not ours any more, or too little is left of it.
    LeaseLost,
    /// The record changed since the claim.
    Moved,
}

/// What the provider gave.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// Where it belongs.
    pub place: &'a Place,
    /// Which try this was.
    pub attempt: &'a AttemptId,
    /// The revision it was computed from.
    pub expected: Generation,
    /// The revision it becomes.
    pub next: Generation,
    /// The grant from now on.
    pub secrets: &'a GrantSecrets,
    /// The new token; its generation is `next`.
    pub token: &'a Token,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored and acknowledged.
    Done,
    /// The revision was not the expected one; nothing was changed.
    Moved,
}

/// What a failed try leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Settle<'a> {
    /// The grant.
    pub unit: &'a UnitName,
    /// Which try this was.
    pub attempt: &'a AttemptId,
    /// The revision it was about.
    pub expected: Generation,
    /// What to note.
    pub verdict: Verdict,
    /// Why.
    pub cause: FailureCause,
    /// The provider's words, for operators.
    pub report: Option<&'a ProviderReport>,
    /// The try replaced a token that was still valid. Its wait does not count for a token that is needed, unless a try that
    /// was needed failed before.
    pub early: bool,
}

/// A request that was refused for what it asked for.
#[derive(Clone, Copy, Debug)]
pub struct Refuse<'a> {
    /// The token that was asked for.
    pub place: &'a Place,
    /// Which try this was.
    pub attempt: &'a AttemptId,
    /// The revision it was about.
    pub expected: Generation,
    /// Why.
    pub cause: FailureCause,
    /// How long this token is not asked for again, at most [`record::MAX_WAIT`].
    pub wait: Duration,
    /// As in [`Settle`].
    pub early: bool,
    /// How long claims with [`Purpose::yields`] on this grant wait for others, at most [`record::MAX_WAIT`].
    pub give_way: Duration,
}

/// What is noted of a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider certainly did not act: the intent is withdrawn, and the next try is due after the wait.
    BackOff {
        /// How long nobody asks again.
        wait: Duration,
    },
    /// The provider may have acted: the intent stays for recovery, and the next try is due after the wait.
    OutcomeUnknown {
        /// How long nobody asks again.
        wait: Duration,
    },
    /// The grant gives no tokens until a new one is imported, or the same one is tried again and gives one.
    Dead {
        /// When the broker may try it again by itself; `None`: never.
        again: Option<Duration>,
    },
}

impl Verdict {
    /// Whether the grant is dead by it.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead { .. })
    }
}

/// What takes the place of a grant's refresh token: a grant that is handed over, or an answer out of quarantine.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// Where it belongs.
    pub unit: &'a UnitName,
    /// Which try this was, so that a repeated write is recognised.
    pub attempt: &'a AttemptId,
    /// The revision that was seen.
    pub expected: Generation,
    /// The revision it becomes.
    pub next: Generation,
    /// The grant.
    pub secrets: &'a GrantSecrets,
}

/// An answer that came too late.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine<'a> {
    /// Where it belongs.
    pub unit: &'a UnitName,
    /// Which try it is the answer to.
    pub attempt: &'a AttemptId,
    /// The revision it was computed from.
    pub expected: Generation,
    /// The revision it would have become.
    pub next: Generation,
    /// What the grant would have been.
    pub secrets: &'a GrantSecrets,
}

/// A write that the store has acknowledged before.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged<'a> {
    /// The grant.
    pub unit: &'a UnitName,
    /// Which try wrote it.
    pub attempt: &'a AttemptId,
    /// The revision that it made.
    pub revision: Generation,
    /// The grant of that revision.
    pub secrets: &'a GrantSecrets,
    /// The token of that revision and its place in this unit, where one came with it.
    pub token: Option<(&'a Place, &'a Token)>,
}

/// A token endpoint wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Why.
    pub cause: FailureCause,
    /// For how long.
    pub left: Duration,
}

/// One step of a search for dead grants.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Of this credential.
    pub credential: &'a CredentialName,
    /// Where the step before ended; `None`: at the beginning.
    pub from: Option<&'a str>,
}

/// What a step of a search found.
#[derive(Debug)]
pub struct Found {
    /// The dead grants. One whose record cannot be read is left out.
    pub grants: Vec<(UnitName, GrantRecord)>,
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<String>,
}

/// How many events a slow listener may lag behind before it is told of a gap. Room for all of them is taken at the start.
const EVENT_BACKLOG: usize = 1_024;

/// Something changed in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A grant, and perhaps one of its tokens.
    Changed(Change),
    /// The same, told without proof: tokens that are held in memory are looked up before they are served again, and nothing
    /// else follows from it.
    Unverified {
        /// The grant.
        unit: UnitName,
        /// The token; `None` means every token of the grant.
        token: Option<names::TokenName>,
    },
    /// Events may have been missed: nothing that is held in memory can be trusted without a look into the store.
    Gap,
    /// Events are heard again from here on.
    Heard,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The grant.
    pub unit: UnitName,
    /// The token; `None` means every token of the grant.
    pub token: Option<names::TokenName>,
    /// Tokens of this generation and older are dead or replaced.
    pub floor: Generation,
}
