//! The broker: the only conductor. One file per verb; `decide` is pure; nothing in here knows gRPC.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::task::TaskTracker;
use url::Url;

use self::{
    ahead::Ahead,
    cool_down::Rests,
    decide::{Bounds, Extent},
    flight::Refreshes,
    lately::Lately,
    report::Reports,
    roster::Roster,
    under_way::UnderWay,
};
pub use self::{
    call_through::{Answered, Call, Replay},
    describe_grant::Description,
    elsewhere::Home,
    error::{Error, Reason},
    get_token::Served,
    import_grant::Imported,
    invalidate_token::{Evidence, Outcome, Rejected, Report, Reported},
    reseal::{Pass, Passed},
    retry_grant::{Retried, RetriedPage, RetryPage, RetryPosition},
};
use crate::{
    cache::{Cache, CacheConfig, Edition, Slot, Sought},
    clock::{Clock, Moment},
    grant::{Bindings, Coordination, Grant, lifetime::Lifetimes, profile::ProviderProfile, rotation::Recovery},
    name::{CredentialName, Resources, Scopes},
    policy::Permit,
    provider::TokenEndpoint,
    rejection::Rules,
    store::{Change, Event, GrantRecord, Names, Store, Unit, names::Place, spool::Spool},
    telemetry::{Counter, CredentialLabels, Telemetry},
    token::TokenKey,
    upstream::{Fence, Upstream},
};

mod ahead;
mod attempt;
mod call_through;
mod candidate;
mod commit;
mod cool_down;
mod decide;
mod describe_grant;
mod elsewhere;
mod error;
mod flight;
mod get_token;
mod import_grant;
mod invalidate_token;
mod kept;
mod lately;
mod load;
mod outage;
mod proof;
mod quarantine;
mod refresh;
mod report;
mod reseal;
mod retry_grant;
mod roster;
mod seed;
mod span;
mod spooled;
mod static_secret;
mod under_way;

/// A configured credential.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// How it gets tokens.
    pub grant: Grant,
    /// What is known of its provider.
    pub profile: ProviderProfile,
    /// Scopes where a request names none.
    pub scopes: Scopes,
    /// Whether a refresh says its own scopes too: a row limits them, and what is unsaid gets all that was granted.
    pub says_scopes: bool,
    /// Resources where a request names none.
    pub resources: Resources,
    /// The protected API, where calls through go; its path ends in `/`.
    pub base_url: Option<Url>,
    /// What counts as a rejected token.
    pub rejected_when: Rules,
    /// What it says of the lives of its tokens.
    pub lifetimes: Lifetimes,
    /// A token that is rejected when it is younger than this is not replaced at once.
    pub min_age: Duration,
    /// How long before its end a token is refreshed in the background.
    pub refresh_ahead: Duration,
    /// Whether to refresh ahead of time even if nobody used the token.
    pub keep_alive: bool,
    /// What is done without the store.
    pub store_outage: StoreOutage,
    /// What may be called there, and how.
    pub fence: Fence,
    /// The longest that a call through may take; less where it says so.
    pub call_timeout: Duration,
    /// The largest answer of an upstream, in bytes.
    pub max_response_bytes: usize,
    /// How often its tokens were found in memory, once that was asked: the counter is at hand for every call.
    pub found: OnceLock<Counter>,
}

/// What is done for a credential when no valid token is in memory and the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreOutage {
    /// Nothing: without the store nobody can tell what other replicas do with a refresh token.
    #[default]
    Fail,
    /// This replica asks for a token of its own. Only for grants for which asking twice is harmless.
    Serve,
}

/// How long a token request takes at most until a provider that is well has it: name, connection, TLS.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// The times of a refresh: `http_timeout + commit_budget < lease < max_wait`, which the configuration checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The limit of one request to a provider.
    pub http_timeout: Duration,
    /// What is kept free for storing its answer.
    pub commit_budget: Duration,
    /// How long one replica may work on a grant.
    pub lease: Duration,
    /// How long a caller waits for another's work.
    pub max_wait: Duration,
}

/// What the broker is made of.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The credentials.
    pub credentials: BTreeMap<CredentialName, Credential>,
    /// The times of a refresh.
    pub timing: Timing,
    /// The cache.
    pub cache: CacheConfig,
    /// The sender of token requests.
    pub provider: Arc<dyn TokenEndpoint>,
    /// The sender of calls through.
    pub upstream: Upstream,
    /// Where answers outlive the process while the store is away.
    pub spool: Option<Spool>,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Where the time is read.
    pub clock: Clock,
    /// What the jitter of waits is drawn from; replicas must not share it.
    pub seed: u64,
}

/// The broker, with the credentials that it is asked about. Cloning it is cheap.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
    roster: Arc<Roster>,
}

/// What all verbs share.
struct Core {
    store: Arc<dyn Store>,
    cache: Cache,
    flights: Refreshes,
    reports: Reports,
    under_way: UnderWay,
    /// The credentials of the moment, for work that nobody's call began.
    roster: ArcSwap<Roster>,
    timing: Timing,
    provider: Arc<dyn TokenEndpoint>,
    upstream: Upstream,
    spool: Option<Spool>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    chance: Mutex<StdRng>,
    ahead: Ahead,
    rests: Rests,
    lately: Lately,
    accepted: proof::Accepted,
    ignored: seed::Ignored,
    elsewhere: elsewhere::Told,
    /// When this replica last began to hear the store; recovery waits for others to store their answers first.
    heard: Mutex<Instant>,
    /// The store did not answer a moment ago.
    away_until: Mutex<Option<Instant>>,
    /// Work that no caller's departure ends.
    tasks: TaskTracker,
}

/// One token of one credential, found.
#[derive(Clone)]
struct Target {
    credential: Arc<Credential>,
    slot: Arc<Slot>,
}

impl Broker {
    /// Puts the broker together and starts listening to the store.
    pub fn start(parts: Parts) -> Self {
        let (ahead, due) = Ahead::new();
        let roster = Arc::new(Roster::new(parts.credentials));
        let core = Arc::new(Core {
            store: parts.store,
            cache: Cache::new(parts.cache),
            flights: Refreshes::default(),
            reports: Reports::default(),
            under_way: UnderWay::default(),
            roster: ArcSwap::new(Arc::clone(&roster)),
            timing: parts.timing,
            provider: parts.provider,
            upstream: parts.upstream,
            spool: parts.spool,
            telemetry: parts.telemetry,
            clock: parts.clock,
            chance: Mutex::new(StdRng::seed_from_u64(parts.seed)),
            ahead,
            rests: Rests::default(),
            lately: Lately::default(),
            accepted: proof::Accepted::default(),
            ignored: seed::Ignored::default(),
            elsewhere: elsewhere::Told::default(),
            heard: Mutex::new(Instant::now()),
            away_until: Mutex::default(),
            tasks: TaskTracker::new(),
        });
        tokio::spawn(listen(Arc::downgrade(&core), core.store.events()));
        tokio::spawn(ahead::run(Arc::downgrade(&core), due));
        spooled::take_up(&core);
        seed::look_at_stored_grants(&core, &roster);
        Self { core, roster }
    }

    /// The same broker with other credentials. Calls that are asked of the one before go on with its credentials; timers
    /// and memory change over. Tokens of a credential that is gone, or gets other tokens now, leave the memory.
    #[must_use]
    pub fn with_credentials(&self, credentials: BTreeMap<CredentialName, Credential>) -> Self {
        let roster = Arc::new(self.core.roster.load().renewed(credentials));
        self.core.roster.store(Arc::clone(&roster));
        self.core.cache.retain(|slot| roster.is_current(slot));
        seed::look_at_stored_grants(&self.core, &roster);
        Self { core: Arc::clone(&self.core), roster }
    }

    /// Waits until no refresh is under way, at most this long. Tells whether all of them ended.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.core.tasks.close();
        tokio::time::timeout(limit, self.core.tasks.wait()).await.is_ok()
    }

    /// How many tokens are held in memory.
    pub fn cached_tokens(&self) -> u64 {
        self.core.cache.tokens()
    }

    /// The token that a permit is for. Most have no use for the permit afterwards: it is dropped then, because it would be kept
    /// by everybody who waits.
    fn target(&self, permit: &Permit) -> Result<Target, Error> {
        self.core.target(&self.roster, permit.token())
    }

    /// The same for work on the grant that gets nobody a token: it takes no place in memory.
    fn target_aside(&self, permit: &Permit) -> Result<Target, Error> {
        self.core.target_aside(&self.roster, permit.token())
    }
}

impl Core {
    fn target(&self, roster: &Roster, asked: &TokenKey) -> Result<Target, Error> {
        self.target_in(roster, asked, |sought, place| self.cache.slot(sought, place))
    }

    fn target_aside(&self, roster: &Roster, asked: &TokenKey) -> Result<Target, Error> {
        self.target_in(roster, asked, |sought, place| self.cache.slot_aside(sought, place))
    }

    fn target_in(
        &self,
        roster: &Roster,
        asked: &TokenKey,
        slot: impl FnOnce(&Sought<'_>, &dyn Fn(&TokenKey) -> Place) -> Arc<Slot>,
    ) -> Result<Target, Error> {
        let (credential, edition) = roster.get(&asked.grant.credential).ok_or(Error::CredentialNotFound)?;
        if matches!(credential.grant, Grant::ClientCredentials(_)) && !asked.grant.subject.is_service() {
            // The subject would change nothing but how often the provider is asked for the same token.
            return Err(Error::invalid("subject", "client credentials act for the service itself: leave it empty"));
        }
        let slot = slot(&credential.sought(asked, edition), &|key| credential.place(self.store.names(), key));
        Ok(Target { credential: Arc::clone(credential), slot })
    }

    /// When a credential's refresh token may be presented again whose answer is missing.
    fn recovery(&self, credential: &Credential) -> Recovery {
        // Whoever holds an answer and waits for the store to take it tries that again every few seconds.
        let settling = commit::COMMIT_RETRY_LONGEST * 2;
        Recovery {
            rotation: credential.profile.rotation,
            takeover: self.timing.lease + settling,
            store_came_back: self.heard.lock().elapsed() < settling,
            // The intent may be written as late as the budget allows; then the request is on its way.
            margin: self.timing.commit_budget + ON_ITS_WAY,
        }
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A random number from 0 to 1, which keeps replicas and grants from acting in step.
    fn jitter(&self) -> f64 {
        self.chance.lock().random()
    }

    fn count_lookup(&self, target: &Target, result: &'static str) {
        self.lookups(target, result).inc();
    }

    fn lookups(&self, target: &Target, result: &'static str) -> Counter {
        let credential = target.credential.name.clone();
        self.telemetry.lookups.get_or_create_owned(&CredentialLabels { credential, result })
    }
}

impl Target {
    /// What the token asks for, beside what its grant was given.
    fn extent(&self, record: Option<&GrantRecord>) -> Extent {
        let profile = &self.credential.profile;
        let bounds = Bounds {
            scopes: &self.credential.scopes,
            resources: &self.credential.resources,
            granted: record.and_then(|record| record.secrets.granted()),
            scope_bound: profile.scope_bound,
            resource_bound: profile.scope_bound && profile.rotation.spends(),
            says_scope: profile.scope_on_refresh,
        };
        decide::extent(&self.slot.key, &bounds)
    }
}

/// The scopes and resources of what has none.
static FOR_ALL: LazyLock<(Scopes, Resources)> = LazyLock::new(Default::default);

impl Credential {
    /// What is asked for, the credential's defaults put in.
    fn sought<'a>(&'a self, asked: &'a TokenKey, edition: Edition) -> Sought<'a> {
        let TokenKey { grant, scopes, resources } = asked;
        if let Grant::Static { .. } = self.grant {
            // A static secret is the same for every scope.
            let (scopes, resources) = &*FOR_ALL;
            return Sought { grant, scopes, resources, edition };
        }
        let scopes = if scopes.is_empty() { &self.scopes } else { scopes };
        let resources = if resources.is_empty() { &self.resources } else { resources };
        Sought { grant, scopes, resources, edition }
    }

    /// Where a token is kept. Where nothing is shared but a record, everything that makes another token has a record of its own;
    /// a grant has one record whatever is configured, because its refresh token is not lost when its provider is.
    fn place(&self, names: &Names, key: &TokenKey) -> Place {
        let variant = self.grant.variant();
        match (self.grant.coordination(), &variant) {
            (Coordination::PerGrant, None) => names.place(Unit::Grant(&key.grant), key),
            (Coordination::PerGrant, Some(variant)) => names.place(Unit::Variant { grant: &key.grant, variant }, key),
            (Coordination::PerToken, _) => names.place(Unit::Token { key, binding: self.bindings().own() }, key),
        }
    }

    /// The configured first secret of a subject: only the service itself has one.
    fn first_secret(&self, key: &TokenKey) -> Option<&crate::secret::SecretString> {
        let first = match &self.grant {
            Grant::RefreshToken { endpoint: _, first } | Grant::Static { form: _, first } => first.as_ref(),
            Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => None,
        };
        first.filter(|_| key.grant.subject.is_service())
    }

    /// The age before which a rejected token is not replaced. Nobody is asked for a static secret, so there is no flood
    /// to hold back, and whoever reports one is told at once who must act.
    fn min_age(&self) -> Duration {
        if matches!(self.grant, Grant::Static { .. }) { Duration::ZERO } else { self.min_age }
    }

    /// What the stored material belongs to.
    fn bindings(&self) -> Bindings {
        self.grant.bindings()
    }
}

/// Keeps the cache up to date until the broker is gone.
async fn listen(core: std::sync::Weak<Core>, mut events: tokio::sync::broadcast::Receiver<Event>) {
    loop {
        let heard = match events.recv().await {
            Ok(event) => vec![event],
            // Whatever was missed: nothing in memory is believed, and from here on events are heard again.
            Err(RecvError::Lagged(_)) => vec![Event::Gap, Event::Heard],
            Err(RecvError::Closed) => return,
        };
        let Some(core) = core.upgrade() else { return };
        for event in heard {
            if event == Event::Heard {
                *core.heard.lock() = Instant::now();
                core.tasks.spawn(Arc::clone(&core).write_all_again());
            }
            if let Event::Changed(Change { unit, token: Some(token), floor }) = &event {
                core.lately.rejected(unit, token, *floor);
            }
            core.cache.apply(&event);
        }
    }
}
