//! The shared store: Redis. Each operation is one script on one hash slot; the lease, the revision and the event change
//! together or not at all.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::{
    dial::Dialer,
    event::Channel,
    link::{Link, unavailable},
    primaries::Care,
    root::Root,
    script::{Call, Script, Scripts, Seen, View},
};
use super::{
    Acknowledged, AttemptId, Change, Claim, Claimed, Commit, Dispatch, Dispatched, EVENT_BACKLOG, Event, Found, Import,
    Loaded, Look, Purpose, Quarantine, Refuse, Rest, Search, Settle, Step, Stepped, Store, StoreError, Verdict,
    Written,
    names::{EndpointName, Names, Place, UnitName},
    record::{
        MAX_REVIVAL_WAIT, MAX_WAIT, REFUSAL_REMEMBERED, micros, seal_quarantine, seal_report, seal_secrets, seal_token,
    },
    seal::Ring,
};
use crate::{
    clock::Moment,
    secret::SecretString,
    token::{Generation, Token},
};

pub mod address;

mod checkup;
mod contact;
mod dial;
mod durable;
mod event;
mod first_look;
mod keeper;
mod link;
mod primaries;
mod pulse;
mod refusal;
mod reseal;
mod root;
mod script;
mod slot;

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// An [`address::Address`]; it may hold a password.
    pub url: SecretString,
    /// The ACL user, where it does not stand in the URL.
    pub username: Option<String>,
    /// Its password, likewise.
    pub password: Option<SecretString>,
    /// The ACL user for the Sentinels, where they ask for one.
    pub sentinel_username: Option<String>,
    /// Its password, likewise.
    pub sentinel_password: Option<SecretString>,
    /// What all key names begin with.
    pub prefix: String,
    /// How many replicas must have a write before it counts (`WAIT`).
    pub wait_replicas: u32,
    /// Whether it must be on disk, there too (`WAITAOF`).
    pub wait_fsync: bool,
    /// The authorities that may vouch for servers and Sentinels of a `rediss` URL, in PEM; without them, those that the system trusts.
    pub ca: Option<String>,
}

/// The store in Redis.
pub struct Redis {
    link: Link,
    scripts: Scripts,
    ring: Ring,
    root: Root,
    names: Names,
    prefix: String,
    channel: Arc<Channel>,
    events: broadcast::Sender<Event>,
}

impl Redis {
    /// Connects, looks at how the server is set up, and reads the store's first record or writes it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] for a server that takes no writes, that would evict grants, or that this user may not use.
    pub async fn open(config: &RedisConfig, ring: Ring) -> Result<Self, StoreError> {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let channel = Arc::new(Channel::new(&config.prefix));
        let link = Link::open(Dialer::new(config, Arc::clone(&channel))?, events.clone()).await?;
        let (root, names) = Root::open(&link, &config.prefix, &ring, events.subscribe()).await?;
        channel.authenticate_with(names.clone());
        let prefix = config.prefix.clone();
        Ok(Self { link, scripts: Scripts::new(), ring, root, names, prefix, channel, events })
    }

    /// Whether these keys open the store's first record.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`], if they do not; [`StoreError::Unreadable`], if another store is here than the one that was opened.
    pub async fn opens_with(&self, ring: &Ring) -> Result<(), StoreError> {
        self.root.opens_with(&self.link, ring, &self.names).await
    }

    /// Logs in as this configuration says. Nothing else of it is taken over, and nothing at all if it leads elsewhere.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] for a URL that is none.
    pub async fn log_in_as(&self, config: &RedisConfig) -> Result<(), StoreError> {
        self.link.log_in_as(config).await
    }

    /// The script with the keys of a unit, and of a token in it where one is meant.
    fn on<'a>(&self, script: &'a Script, unit: &UnitName, token: Option<&Place>) -> Call<'a> {
        let base = self.base(unit);
        let mut call = script.call();
        call.key(grant_key(&base)).key([&base, ":lease"].concat());
        if let Some(place) = token {
            call.key(token_key(&base, place)).key([&base, ":refused:", place.token.as_str()].concat());
        }
        call
    }

    /// What all keys of a unit begin with, in one slot of a cluster.
    fn base(&self, unit: &UnitName) -> String {
        [&self.prefix, ":{", unit.as_str(), "}"].concat()
    }

    fn rest_key(&self, endpoint: &EndpointName) -> String {
        format!("{}:{{cool/{}}}", self.prefix, endpoint.as_str())
    }

    async fn view(&self, call: &Call<'_>, place: &Place) -> Result<Seen, StoreError> {
        let asked = Moment::now();
        let view: View = self.run(call, Care::Plain).await?;
        script::open(view, &self.ring, place, &asked)
    }

    /// Asks for the right to work on a grant that has no token newer than this.
    async fn claimed(&self, claim: &Claim<'_>, refused: Generation) -> Result<Seen, StoreError> {
        let mut call = self.on(&self.scripts.claim, &claim.place.unit, Some(claim.place));
        call.arg(claim.owner.as_str()).arg(millis(claim.lease)).arg(refused.get());
        let Purpose { needed, yields, dead } = claim.purpose;
        call.arg(micros(MAX_WAIT)).arg(flag(needed)).arg(flag(yields)).arg(flag(dead));
        let seen = self.view(&call, claim.place).await;
        if let Err(StoreError::Unreadable(_)) = seen {
            // Another replica may have the key that this one lacks, and must not wait for a lease that is of no use
            // here. If it cannot be given back it runs out.
            let _ = self.release(&claim.place.unit, claim.owner).await;
        }
        seen
    }

    /// The answer to something that may be forgotten.
    async fn word(&self, call: &Call<'_>) -> Result<String, StoreError> {
        self.run(call, Care::Plain).await
    }

    /// The answer to something that must not be. A script that finds its own effect writes again: `WAIT` speaks only of
    /// what was written on the same connection, which may be another one by then.
    async fn lasting_word(&self, call: &Call<'_>) -> Result<String, StoreError> {
        self.run(call, Care::Durable).await
    }

    /// Runs a script, once it is certain that this is the store that was opened.
    async fn run<T: redis::FromRedisValue>(&self, call: &Call<'_>, care: Care) -> Result<T, StoreError> {
        self.root.check(&self.link, &self.ring, &self.names).await?;
        call.run(&self.link, care).await.map_err(unavailable)
    }

    async fn write(&self, call: &Call<'_>) -> Result<Written, StoreError> {
        match self.lasting_word(call).await?.as_str() {
            "done" => Ok(Written::Done),
            "moved" => Ok(Written::Moved),
            other => Err(surprise(other)),
        }
    }
}

#[async_trait]
impl Store for Redis {
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
        let seen = self.view(&self.on(&self.scripts.load, &place.unit, Some(place)), place).await?;
        Ok(Loaded { record: seen.record, token: seen.token, next: seen.next, refusal: seen.refusal })
    }

    async fn look(&self, place: &Place, at_hand: Generation) -> Result<Look, StoreError> {
        let base = self.base(&place.unit);
        let mut call = self.scripts.look.call();
        call.key(grant_key(&base)).key(token_key(&base, place)).arg(at_hand.get());
        match self.word(&call).await?.as_str() {
            "same" => Ok(Look::Unchanged { failing: false }),
            "failing" => Ok(Look::Unchanged { failing: true }),
            "changed" => Ok(Look::Changed),
            other => Err(surprise(other)),
        }
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        let mut seen = self.claimed(claim, claim.refused).await?;
        // The script sees no more of a token's end than its TTL. One that has ended is no reason not to work.
        if let (None, Some(ended)) = (&seen.token, seen.ended.filter(|_| seen.status == "newer")) {
            seen = self.claimed(claim, claim.refused.max(ended)).await?;
        }
        match (seen.status.as_str(), seen.token, seen.record) {
            ("newer", Some(token), _) => Ok(Claimed::Newer(token)),
            ("resting", _, Some(record)) => Ok(Claimed::Resting(record)),
            ("refused", _, record) => Ok(match seen.refusal {
                Some(refusal) => Claimed::Refused(refusal),
                // It ended between the script's look and its reply.
                None => record.map_or(Claimed::Busy(std::time::Duration::ZERO), Claimed::Resting),
            }),
            // Yet another one came and went: ask again.
            ("busy" | "newer", _, _) => Ok(Claimed::Busy(seen.lease_left)),
            ("held", _, record) => Ok(Claimed::Held { record, next: seen.next, refusal: seen.refusal }),
            (other, _, _) => Err(surprise(other)),
        }
    }

    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError> {
        let mut call = self.on(&self.scripts.dispatch, dispatch.unit, None);
        call.arg(dispatch.attempt.as_str()).arg(dispatch.expected.get()).arg(millis(dispatch.need));
        call.arg(dispatch.seen.map_or("", AttemptId::as_str));
        match self.lasting_word(&call).await?.as_str() {
            "go" => Ok(Dispatched::Go),
            "lost" => Ok(Dispatched::LeaseLost),
            "moved" => Ok(Dispatched::Moved),
            other => Err(surprise(other)),
        }
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Written, StoreError> {
        let place = commit.place;
        let grant = seal_secrets(&self.ring, &place.unit, commit.next, commit.secrets)?;
        let token = seal_token(&self.ring, place, commit.token)?;
        // A token whose life ended on the way still gets a TTL: 0 would mean that it never ends.
        let ttl = commit.token.remaining(&Moment::now()).map_or(0, |left| millis(left).max(1));
        let floor = Generation::new(commit.next.get().saturating_sub(1));
        let event = self.channel.message(&Change { unit: place.unit.clone(), token: Some(place.token.clone()), floor });
        let mut call = self.on(&self.scripts.commit, &place.unit, Some(place));
        call.arg(commit.attempt.as_str()).arg(commit.expected.get()).arg(commit.next.get());
        call.arg(grant.0).arg(token.0).arg(ttl).arg(self.channel.name()).arg(event.text);
        call.arg(commit.token.expiry.map_or(0, |expiry| millis(expiry.lifetime))).arg(event.code);
        self.write(&call).await
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError> {
        let (verdict, wait) = match settle.verdict {
            Verdict::BackOff { wait } => ("backoff", millis(wait.min(MAX_WAIT))),
            Verdict::OutcomeUnknown { wait } => ("unknown", millis(wait.min(MAX_WAIT))),
            Verdict::Dead { again: _ } => ("dead", 0),
        };
        let again = match settle.verdict {
            Verdict::Dead { again } => again.map_or(0, |again| millis(again.min(MAX_REVIVAL_WAIT)).max(1)),
            Verdict::BackOff { .. } | Verdict::OutcomeUnknown { .. } => 0,
        };
        let seal = |report| seal_report(&self.ring, settle.unit, settle.expected, settle.attempt, report);
        let report = settle.report.map(seal).transpose()?;
        let mut call = self.on(&self.scripts.settle, settle.unit, None);
        call.arg(settle.attempt.as_str()).arg(settle.expected.get()).arg(verdict);
        call.arg(settle.cause.word()).arg(wait).arg(flag(settle.early)).arg(again);
        call.arg(report.as_ref().map_or(&b""[..], |sealed| &sealed.0));
        self.write(&call).await
    }

    async fn refuse(&self, refuse: &Refuse<'_>) -> Result<Written, StoreError> {
        let (wait, give_way) = (refuse.wait.min(MAX_WAIT), refuse.give_way.min(MAX_WAIT));
        let mut call = self.on(&self.scripts.refuse, &refuse.place.unit, Some(refuse.place));
        call.arg(refuse.attempt.as_str()).arg(refuse.expected.get()).arg(refuse.cause.word()).arg(millis(wait));
        call.arg(flag(refuse.early)).arg(millis(wait + REFUSAL_REMEMBERED)).arg(millis(give_way));
        self.write(&call).await
    }

    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError> {
        let mut call = self.on(&self.scripts.release, unit, None);
        self.word(call.arg(owner.as_str())).await.map(drop)
    }

    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        let change = Change { unit: place.unit.clone(), token: Some(place.token.clone()), floor: generation };
        let event = self.channel.message(&change);
        let mut call = self.on(&self.scripts.reject, &place.unit, Some(place));
        call.arg(generation.get()).arg(strikes).arg(self.channel.name()).arg(event.text).arg(event.code);
        self.word(&call).await.map(drop)
    }

    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError> {
        let sealed = seal_secrets(&self.ring, import.unit, import.next, import.secrets)?;
        let floor = Generation::new(import.next.get().saturating_sub(1));
        let event = self.channel.message(&Change { unit: import.unit.clone(), token: None, floor });
        let mut call = self.on(&self.scripts.import, import.unit, None);
        call.arg(import.attempt.as_str()).arg(import.expected.get()).arg(import.next.get());
        call.arg(sealed.0).arg(self.channel.name()).arg(event.text).arg(event.code);
        self.write(&call).await
    }

    async fn quarantine(&self, quarantine: &Quarantine<'_>) -> Result<Written, StoreError> {
        let sealed = seal_quarantine(&self.ring, quarantine.unit, quarantine.next, quarantine.secrets)?;
        let mut call = self.on(&self.scripts.quarantine, quarantine.unit, None);
        call.arg(quarantine.attempt.as_str()).arg(quarantine.expected.get()).arg(quarantine.next.get()).arg(sealed.0);
        self.write(&call).await
    }

    async fn adopt(&self, adopt: &Import<'_>) -> Result<Written, StoreError> {
        let sealed = seal_secrets(&self.ring, adopt.unit, adopt.next, adopt.secrets)?;
        let mut call = self.on(&self.scripts.adopt, adopt.unit, None);
        call.arg(adopt.attempt.as_str()).arg(adopt.expected.get()).arg(adopt.next.get()).arg(sealed.0);
        self.write(&call).await
    }

    async fn reassert(&self, known: &Acknowledged<'_>) -> Result<Written, StoreError> {
        // A store that lost this may have lost the root too, and must not be given another one by whoever starts next.
        self.root.look(&self.link, &self.ring, &self.names).await?;
        let sealed = seal_secrets(&self.ring, known.unit, known.revision, known.secrets)?;
        // One that has ended meanwhile is not written: a TTL of 0 would mean that it never ends.
        let left = |token: &Token| {
            token.remaining(&Moment::now()).map_or(Some(0), |left| Some(millis(left)).filter(|&ms| ms > 0))
        };
        let token = known.token.and_then(|(place, token)| Some((place, token, left(token)?)));
        let sealed_token = token.map(|(place, token, _)| seal_token(&self.ring, place, token)).transpose()?;
        let floor = Generation::new(known.revision.get().saturating_sub(1));
        let event = self.channel.message(&Change { unit: known.unit.clone(), token: None, floor });
        let mut call = self.on(&self.scripts.reassert, known.unit, token.map(|(place, _, _)| place));
        call.arg(known.attempt.as_str()).arg(known.revision.get()).arg(sealed.0);
        call.arg(sealed_token.map(|token| token.0).unwrap_or_default()).arg(token.map_or(0, |(_, _, ttl)| ttl));
        call.arg(self.channel.name()).arg(event.text).arg(event.code);
        self.write(&call).await
    }

    async fn cool_down(&self, endpoint: &EndpointName, rest: &Rest) -> Result<(), StoreError> {
        // A rest of no time at all could not be written: every key has a TTL of 1 ms at least.
        let span = millis(rest.left.min(MAX_WAIT)).max(1);
        let mut call = self.scripts.cool_down.call();
        call.key(self.rest_key(endpoint)).arg(rest.cause.word()).arg(span).arg(millis(MAX_WAIT));
        self.word(&call).await.map(drop)
    }

    async fn cooling(&self, endpoint: &EndpointName) -> Result<Option<Rest>, StoreError> {
        let mut call = self.scripts.cooling.call();
        call.key(self.rest_key(endpoint));
        let (word, left): (String, i64) = self.run(&call, Care::Plain).await?;
        script::rest(&word, left)
    }

    async fn take_turn(&self, endpoint: &EndpointName, span: std::time::Duration) -> Result<bool, StoreError> {
        let mut call = self.scripts.turn.call();
        call.key(format!("{}:{{retry/{}}}", self.prefix, endpoint.as_str())).arg(millis(span).max(1));
        self.run::<u8>(&call, Care::Plain).await.map(|taken| taken == 1)
    }

    async fn dead_grants(&self, search: &Search<'_>) -> Result<Found, StoreError> {
        self.search(search).await
    }

    async fn reseal(&self, step: &Step<'_>) -> Result<Stepped, StoreError> {
        self.step(step).await
    }

    fn seal_keys(&self) -> Vec<String> {
        self.ring.ids()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.look().await.map_err(unavailable)?;
        self.root.look(&self.link, &self.ring, &self.names).await
    }
}

/// A yes or no, as scripts read it.
fn flag(yes: bool) -> u8 {
    u8::from(yes)
}

fn grant_key(base: &str) -> String {
    [base, ":grant"].concat()
}

fn token_key(base: &str, place: &Place) -> String {
    [base, ":token:", place.token.as_str()].concat()
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn surprise(word: &str) -> StoreError {
    StoreError::Unreadable(format!("a script answered {word:?}"))
}
