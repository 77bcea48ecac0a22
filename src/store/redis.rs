//! The shared store: Redis. Each operation is one script on one hash slot; the lease, the revision and the event change
//! together or not at all.

use async_trait::async_trait;
use redis::{RedisResult, Script, ScriptInvocation};
use tokio::sync::broadcast;
use tracing::warn;

use self::{
    checkup::Finding,
    dial::Dialer,
    event::payload,
    link::{Link, opening, unavailable},
    script::{Scripts, Seen, View},
};
use super::{
    AttemptId, Change, Claim, Claimed, Commit, Dispatch, Dispatched, Event, Import, Loaded, Settle, Step, Stepped,
    Store, StoreError, Verdict, Written,
    names::{Names, Place, UnitName},
    record::{MAX_WAIT, micros, seal_secrets, seal_token},
    seal::Ring,
};
use crate::{clock::Moment, secret::SecretString, token::Generation};

mod checkup;
mod dial;
mod event;
mod link;
mod reseal;
mod script;

/// Events that a slow listener may lag behind before it is told of a gap.
const EVENT_BACKLOG: usize = 4_096;

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`; it may hold a password.
    pub url: SecretString,
    /// The ACL user, where it does not stand in the URL.
    pub username: Option<String>,
    /// Its password, likewise.
    pub password: Option<SecretString>,
    /// What all key names begin with.
    pub prefix: String,
    /// The authorities that may vouch for a `rediss://` server, in PEM; without them, those that the system trusts.
    pub ca: Option<String>,
}

/// The store in Redis.
pub struct Redis {
    link: Link,
    scripts: Scripts,
    ring: Ring,
    names: Names,
    prefix: String,
    channel: String,
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
        let channel = format!("{}:events", config.prefix);
        let mut link = Link::open(Dialer::new(config, &channel)?, events.clone()).await?;
        examine(&mut link).await?;
        let names = names(&mut link, &config.prefix, &ring).await?;
        let prefix = config.prefix.clone();
        Ok(Self { link, scripts: Scripts::new(), ring, names, prefix, channel, events })
    }

    /// Whether these keys open the store's first record.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`], if they do not.
    pub async fn opens_with(&self, ring: &Ring) -> Result<(), StoreError> {
        Names::open(ring, &root(&mut self.link.clone(), &self.prefix).await.map_err(unavailable)?).map(drop)
    }

    /// The script with the keys of a unit; the token's key is the grant's own where no token is meant.
    fn on<'a>(&self, script: &'a Script, unit: &UnitName, token: Option<&Place>) -> ScriptInvocation<'a> {
        let base = format!("{}:{{{}}}", self.prefix, unit.as_str());
        let mut call = script.prepare_invoke();
        call.key(format!("{base}:grant")).key(format!("{base}:lease"));
        if let Some(place) = token {
            call.key(format!("{base}:token:{}", place.token.as_str()));
        }
        call
    }

    async fn view(&self, call: &ScriptInvocation<'_>, place: &Place) -> Result<Seen, StoreError> {
        let asked = Moment::now();
        let view: View = call.invoke_async(&mut self.link.clone()).await.map_err(unavailable)?;
        script::open(view, &self.ring, place, &asked)
    }

    async fn word(&self, call: &ScriptInvocation<'_>) -> Result<String, StoreError> {
        call.invoke_async(&mut self.link.clone()).await.map_err(unavailable)
    }

    async fn write(&self, call: &ScriptInvocation<'_>) -> Result<Written, StoreError> {
        match self.word(call).await?.as_str() {
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
        Ok(Loaded { record: seen.record, token: seen.token, next: seen.next })
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        let mut call = self.on(&self.scripts.claim, &claim.place.unit, Some(claim.place));
        call.arg(claim.owner.as_str()).arg(millis(claim.lease)).arg(claim.refused.get());
        call.arg(micros(MAX_WAIT));
        let seen = self.view(&call, claim.place).await;
        if let Err(StoreError::Unreadable(_)) = seen {
            // Another replica may have the key that this one lacks, and must not wait for a lease that is of no use
            // here. If it cannot be given back it runs out.
            let _ = self.release(&claim.place.unit, claim.owner).await;
        }
        let seen = seen?;
        match (seen.status.as_str(), seen.token, seen.record) {
            ("newer", Some(token), _) => Ok(Claimed::Newer(token)),
            ("resting", _, Some(record)) => Ok(Claimed::Resting(record)),
            // A token that expired between the script's look and its reply reads as nothing: ask again.
            ("busy" | "newer", _, _) => Ok(Claimed::Busy(seen.lease_left)),
            ("held", _, record) => Ok(Claimed::Held { record, next: seen.next }),
            (other, _, _) => Err(surprise(other)),
        }
    }

    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError> {
        let mut call = self.on(&self.scripts.dispatch, dispatch.unit, None);
        call.arg(dispatch.attempt.as_str()).arg(dispatch.expected.get()).arg(millis(dispatch.need));
        call.arg(dispatch.seen.map_or("", AttemptId::as_str));
        match self.word(&call).await?.as_str() {
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
        let event = Change { unit: place.unit.clone(), token: Some(place.token.clone()), floor };
        let mut call = self.on(&self.scripts.commit, &place.unit, Some(place));
        call.arg(commit.attempt.as_str()).arg(commit.expected.get()).arg(commit.next.get());
        call.arg(grant.0).arg(token.0).arg(ttl).arg(&self.channel).arg(payload(&event));
        self.write(&call).await
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError> {
        let (verdict, wait) = match settle.verdict {
            Verdict::BackOff { wait } => ("backoff", millis(wait.min(MAX_WAIT))),
            Verdict::OutcomeUnknown { wait } => ("unknown", millis(wait.min(MAX_WAIT))),
            Verdict::Dead => ("dead", 0),
        };
        let mut call = self.on(&self.scripts.settle, settle.unit, None);
        call.arg(settle.attempt.as_str()).arg(settle.expected.get()).arg(verdict);
        call.arg(settle.cause.word()).arg(wait);
        self.write(&call).await
    }

    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError> {
        let mut call = self.on(&self.scripts.release, unit, None);
        self.word(call.arg(owner.as_str())).await.map(drop)
    }

    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        let event = Change { unit: place.unit.clone(), token: Some(place.token.clone()), floor: generation };
        let mut call = self.on(&self.scripts.reject, &place.unit, Some(place));
        call.arg(generation.get()).arg(strikes).arg(&self.channel).arg(payload(&event));
        self.word(&call).await.map(drop)
    }

    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError> {
        let sealed = seal_secrets(&self.ring, import.unit, import.next, import.secrets)?;
        let floor = Generation::new(import.next.get().saturating_sub(1));
        let event = Change { unit: import.unit.clone(), token: None, floor };
        let mut call = self.on(&self.scripts.import, import.unit, None);
        call.arg(import.attempt.as_str()).arg(import.expected.get()).arg(import.next.get());
        call.arg(sealed.0).arg(&self.channel).arg(payload(&event));
        self.write(&call).await
    }

    async fn reseal(&self, step: &Step<'_>) -> Result<Stepped, StoreError> {
        self.step(step).await
    }

    fn seal_keys(&self) -> Vec<String> {
        self.ring.ids()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.look().await.map_err(unavailable)
    }
}

/// Refuses a server that is set up to lose grants; what is merely a risk is logged.
async fn examine(link: &mut Link) -> Result<(), StoreError> {
    let findings = match redis::cmd("INFO").query_async::<String>(link).await {
        Ok(info) => checkup::settings(&info),
        Err(error) if error.code().is_some() => vec![checkup::unchecked(&error.to_string())],
        Err(error) => return Err(opening(error)),
    };
    for finding in findings {
        match finding {
            Finding::Refused(why) => return Err(StoreError::Open(format!("this Redis cannot be used: {why}"))),
            Finding::Warning(why) => warn!("about this Redis: {why}"),
        }
    }
    Ok(())
}

/// The first replica draws the key of names; `SET NX` makes all of them use the same one.
async fn names(link: &mut Link, prefix: &str, ring: &Ring) -> Result<Names, StoreError> {
    let fresh = Names::draw_sealed_key(ring)?;
    let mut set = redis::cmd("SET");
    set.arg(root_key(prefix)).arg(fresh).arg("NX");
    set.query_async::<Option<String>>(link).await.map_err(opening)?;
    Names::open(ring, &root(link, prefix).await.map_err(opening)?)
}

async fn root(link: &mut Link, prefix: &str) -> RedisResult<Vec<u8>> {
    redis::cmd("GET").arg(root_key(prefix)).query_async(link).await
}

fn root_key(prefix: &str) -> String {
    format!("{prefix}:root")
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn surprise(word: &str) -> StoreError {
    StoreError::Unreadable(format!("a script answered {word:?}"))
}
