//! One run: replicas, callers and trouble for some virtual minutes, then peace, and a look at what is left.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, LazyLock, atomic::AtomicBool},
    time::{Duration, UNIX_EPOCH},
};

use bearerd::{
    broker::{Broker, Credential, Parts, Reason, Timing},
    cache::CacheConfig,
    clock::Clock,
    grant::{answer::Answer, request::TokenRequest},
    http,
    name::CredentialName,
    secret::ExposeSecret,
    store::{AttemptId, Place, UnitName},
    telemetry::Telemetry,
    token::Generation,
    upstream::Upstream,
};
use parking_lot::Mutex;
use tokio::{
    task::{self, JoinSet},
    time::{Instant, sleep},
};

use super::{
    callers,
    chance::Chance,
    faults::{Climate, ProviderFate, StoreFate},
    flaw::Flaw,
    keys::{Key, Temper, credentials},
    oracle::{Asker, Oracle, ReplicaId},
    provider::{DEFAULT_SCOPES, Providers},
    store::{SimStore, State},
    wire::{CutKind, Wire},
};

/// As a replica is configured.
pub const TIMING: Timing = Timing {
    http_timeout: Duration::from_secs(10),
    commit_budget: Duration::from_secs(3),
    lease: LEASE,
    max_wait: Duration::from_secs(25),
};
pub const LEASE: Duration = Duration::from_secs(20);
pub const MAX_AGE: Duration = Duration::from_secs(15);

/// How long an intent that nobody settled is left alone: the lease, and twice the longest pause between two commits.
pub const TAKEOVER: Duration = Duration::from_secs(24);

/// How long a replica that was told that the store is back leaves answers to those who may have them.
const CAME_BACK: Duration = Duration::from_secs(4);

/// How long a replica that is free again needs at most to store what it has.
const SETTLING: Duration = Duration::from_secs(5);

/// Making an HTTP client takes long, and none is used.
static UPSTREAM: LazyLock<Upstream> = LazyLock::new(|| Upstream::new(http::for_upstreams().unwrap()));

/// How long after the end of all trouble every caller gets a token, if there is one: replicas that stand still wake, and
/// requests that were given up arrive, within two minutes; then the longest wait of a back-off (G6).
const RECOVERED: Duration = Duration::from_secs(200);

/// What all replicas share.
pub struct World {
    pub store: SimStore,
    pub providers: Providers,
    pub oracle: Mutex<Oracle>,
    /// No run depends on how fast it is done.
    pub clock: Clock,
    pub chance: Chance,
    /// By the number of the replica.
    pub wires: Mutex<Vec<Arc<Wire>>>,
    /// Where tokens of grants are that are not the credentials' own: requests for these give way.
    pub others: HashSet<Place>,
    /// An operator tries a grant again.
    pub operator: AtomicBool,
    /// Replicas that died at one of their steps.
    pub fallen: Mutex<Vec<ReplicaId>>,
    pub tempers: Vec<Temper>,
    climate: Mutex<Climate>,
    /// Since when nothing goes wrong any more.
    peace: Mutex<Option<Instant>>,
    begin: Instant,
    trace: Option<Mutex<Vec<String>>>,
}

impl World {
    /// Writes down what happens, if somebody wants to read it.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.lock().push(format!("{:>10.3} {}", self.begin.elapsed().as_secs_f64(), text()));
        }
    }

    /// Counts something that goes wrong.
    pub fn fault(&self, name: &'static str) {
        self.oracle.lock().count(name);
        self.note(|| name.to_owned());
    }

    pub fn temper(&self, unit: &UnitName) -> &Temper {
        let named = |temper: &&Temper| unit.as_str().split_once('/').is_some_and(|(name, _)| name == temper.credential);
        self.tempers.iter().find(named).unwrap()
    }

    /// Lets the oracle look at a unit.
    pub fn look(&self, unit: &UnitName) {
        let seen = self.store.seen(unit);
        let revision = seen.as_ref().map_or(Generation::ZERO, |seen| seen.revision);
        let mut oracle = self.oracle.lock();
        oracle.revision(unit, revision);
        if seen.is_some_and(|seen| seen.dead.is_some()) {
            oracle.dead(unit);
        }
    }

    /// Whether whoever begins now can count on an answer.
    pub fn is_recovered(&self) -> bool {
        self.peace.lock().is_some_and(|since| Instant::now() - since > RECOVERED)
    }

    /// Whether a replica dies at this step.
    pub fn falls(&self) -> bool {
        self.chance.one_in(self.climate.lock().fall)
    }

    pub fn store_fate(&self) -> StoreFate {
        let fate = StoreFate::draw(&self.chance, &self.climate.lock());
        if let Some(name) = fate.name() {
            self.fault(name);
        }
        fate
    }

    /// How long a replica stands still at a bad moment.
    pub fn stall(&self) -> Option<Duration> {
        let stalls = self.chance.one_in(self.climate.lock().stall);
        stalls.then(|| {
            self.fault("replica stands still between two steps");
            self.chance.millis(10_000..60_000)
        })
    }

    pub fn provider_fate(&self) -> ProviderFate {
        let fate = ProviderFate::draw(&self.chance, &self.climate.lock());
        if let Some(name) = fate.name() {
            self.fault(name);
        }
        fate
    }

    /// Does something at the store that may end the own lease, but nobody else's.
    pub fn sparing<T>(&self, unit: &UnitName, owner: &AttemptId, work: impl FnOnce() -> T) -> T {
        let other = self.store.holder(unit).filter(|holder| holder != owner);
        let result = work();
        if other.is_some() && self.store.holder(unit) != other {
            self.oracle.lock().fault(format!("the lease on {unit:?} was taken from its holder"));
        }
        result
    }

    /// A replica is about to send a request. Returns the request's number.
    pub fn asking(&self, replica: ReplicaId) -> usize {
        let wires = self.wires.lock();
        if wires[replica].free_for() < SETTLING {
            self.oracle.lock().count("request straight after an outage");
        }
        let asker = Asker {
            replica,
            task: task::try_id(),
            store_came_back: wires[replica].heard_within(CAME_BACK),
            was_free: &|other| wires[other].free_for() >= SETTLING,
        };
        self.oracle.lock().asking(&asker)
    }

    /// A request reached a provider.
    pub fn act(&self, number: usize, request: &TokenRequest, in_time: bool) -> Answer {
        let (answer, effect) = self.providers.act(request);
        self.note(|| format!("a provider acts: {effect:?}, in time: {in_time}"));
        self.oracle.lock().effect(number, effect, in_time);
        answer
    }
}

/// A process of bearerd.
pub struct Replica {
    pub id: ReplicaId,
    pub broker: Broker,
    pub wire: Arc<Wire>,
    /// Callers go down with the replica that they are connected to.
    pub callers: JoinSet<()>,
}

/// A run under way.
pub struct Run {
    pub world: Arc<World>,
    pub keys: Vec<Key>,
    /// Those that no person consented to.
    pub unconsented: Vec<Key>,
    pub replicas: Vec<Replica>,
    /// Replicas that are being stopped in peace.
    leaving: JoinSet<Option<ReplicaId>>,
    credentials: BTreeMap<CredentialName, Credential>,
    started: ReplicaId,
    /// The store as it was some time ago.
    backup: Option<State>,
}

/// What came of it.
pub struct Report {
    pub faults: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub trace: Vec<String>,
}

/// Does the run of this seed.
pub fn run(seed: u64, flaw: Option<Flaw>, traced: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed, flaw, traced);
        run.whole().await;
        let world = Arc::clone(&run.world);
        // The world and its wires hold each other.
        world.wires.lock().clear();
        let oracle = std::mem::take(&mut *world.oracle.lock());
        let trace = world.trace.as_ref().map(|trace| trace.lock().clone()).unwrap_or_default();
        Report { faults: oracle.faults, counts: oracle.counts, trace }
    })
}

impl Run {
    fn new(seed: u64, flaw: Option<Flaw>, traced: bool) -> Self {
        let chance = Chance::new(seed);
        let (store, tempers) = (SimStore::new(flaw), Temper::draw(&chance));
        let names = bearerd::store::Store::names(&store);
        let keys: Vec<Key> = tempers.iter().flat_map(|temper| temper.keys(names)).collect();
        let unconsented: Vec<Key> = tempers.iter().flat_map(|temper| temper.unconsented(names)).collect();
        let grants = tempers.iter().filter(|temper| temper.rotation.is_some()).flat_map(|temper| temper.keys(names));
        let narrow = grants.filter(|key| key.scopes != DEFAULT_SCOPES).map(|key| key.place);
        let others = narrow.chain(unconsented.iter().map(|key| key.place.clone())).collect();
        let world = Arc::new(World {
            store,
            providers: Providers::default(),
            oracle: Mutex::default(),
            clock: Clock::with_wall_stopped_at(UNIX_EPOCH),
            tempers,
            chance,
            others,
            wires: Mutex::default(),
            operator: AtomicBool::new(false),
            fallen: Mutex::default(),
            climate: Mutex::default(),
            peace: Mutex::default(),
            begin: Instant::now(),
            trace: traced.then(Mutex::default),
        });
        let tempers = &world.tempers;
        let credentials = credentials(tempers, &world.providers);
        let (replicas, leaving) = (Vec::new(), JoinSet::new());
        let mut run = Self { world, keys, unconsented, replicas, leaving, credentials, started: 0, backup: None };
        for _ in 0..run.world.chance.number(2..5) {
            run.start();
        }
        run
    }

    fn start(&mut self) {
        let (id, world) = (self.started, &self.world);
        self.started += 1;
        let wire = Wire::new(id, Arc::clone(world));
        let broker = Broker::start(Parts {
            store: Arc::<Wire>::clone(&wire),
            credentials: self.credentials.clone(),
            timing: TIMING,
            cache: CacheConfig { max_tokens: 1_000, max_age: Some(MAX_AGE) },
            provider: Arc::<Wire>::clone(&wire),
            upstream: UPSTREAM.clone(),
            spool: None,
            telemetry: Arc::new(Telemetry::default()),
            clock: world.clock,
            seed: world.chance.seed(),
        });
        world.note(|| format!("{id} starts"));
        self.replicas.push(Replica { id, broker, wire, callers: JoinSet::new() });
    }

    fn has_failed(&self) -> bool {
        !self.world.oracle.lock().faults.is_empty()
    }

    async fn whole(&mut self) {
        callers::hand_over_all(self).await;
        *self.world.climate.lock() = Climate::draw(&self.world.chance);
        self.world.note(|| format!("{:?} {:?}", self.world.climate.lock(), self.world.tempers));
        let end = Instant::now() + self.world.chance.millis(100_000..300_000);
        while Instant::now() < end && !self.has_failed() {
            sleep(self.world.chance.millis(50..4_000)).await;
            self.disturb();
            callers::act(self);
        }
        self.bury();
        *self.world.climate.lock() = Climate::default();
        *self.world.peace.lock() = Some(Instant::now());
        self.world.providers.heal();
        self.world.note(|| "peace".to_owned());
        self.calm_down().await;
        self.take_stock().await;
    }

    /// Puts others in the place of replicas that died at one of their steps.
    fn bury(&mut self) {
        let fallen = std::mem::take(&mut *self.world.fallen.lock());
        for id in fallen {
            // One that was being stopped needs nobody in its place.
            if let Some(at) = self.replicas.iter().position(|replica| replica.id == id) {
                self.crash(at);
            }
        }
    }

    /// Something may happen to a replica, or to all.
    fn disturb(&mut self) {
        self.bury();
        let (climate, world) = (*self.world.climate.lock(), Arc::clone(&self.world));
        let chance = &world.chance;
        let victim = chance.number(0..self.replicas.len());
        let kind = *chance.pick(&[CutKind::Broken, CutKind::Replaced, CutKind::Held]);
        if chance.one_in(climate.ill) {
            world.fault("provider: is ill");
            world.providers.falls_ill(&chance.pick(&world.tempers).credential, chance.millis(5_000..90_000));
        }
        let short = chance.one_in(2);
        let span = if short { chance.millis(500..8_000) } else { chance.millis(8_000..60_000) };
        if chance.one_in(4) {
            self.backup = Some(world.store.copy());
        }
        if chance.one_in(climate.rollback) {
            self.go_back(chance.millis(500..5_000));
        } else if chance.one_in(climate.crash) {
            world.fault("replica dies");
            self.crash(victim);
        } else if chance.one_in(climate.pause) {
            world.fault("replica stands still");
            self.replicas[victim].wire.stand_still(span);
        } else if chance.one_in(climate.cut) {
            world.fault("replica loses the store");
            self.replicas[victim].wire.cut(span, kind);
        } else if chance.one_in(climate.outage) {
            world.fault("store is away");
            self.replicas.iter().for_each(|replica| replica.wire.cut(span, kind));
        } else if chance.one_in(climate.retire) {
            self.retire(victim);
        }
    }

    /// The store forgets what came after its backup.
    fn go_back(&mut self, away: Duration) {
        let Some(backup) = self.backup.take() else { return };
        let world = &self.world;
        world.fault("store goes back in time");
        let forgot = world.store.go_back(backup);
        world.note(|| format!("forgotten: {forgot:?}"));
        let is_forgotten = |key: &&Key| forgot.iter().any(|(unit, _)| *unit == key.place.unit);
        let families = self.keys.iter().filter(is_forgotten);
        let families: Vec<_> =
            families.flat_map(|key| world.providers.families(&key.credential, key.subject)).collect();
        world.oracle.lock().went_back(forgot, families, world.store.next());
        // Behind a proxy no connection breaks, and nobody is told.
        if world.chance.one_in(2) {
            self.replicas.iter().for_each(|replica| replica.wire.cut(away, CutKind::Broken));
        }
    }

    fn crash(&mut self, victim: usize) {
        let mut replica = self.replicas.remove(victim);
        self.world.note(|| format!("{} is dead", replica.id));
        replica.wire.die();
        self.world.oracle.lock().died(replica.id);
        replica.callers.abort_all();
        self.start();
    }

    /// A replica ends as it does after SIGTERM; another takes its place at once.
    fn retire(&mut self, victim: usize) {
        self.world.fault("replica is stopped");
        let replica = self.replicas.remove(victim);
        let world = Arc::clone(&self.world);
        self.leaving.spawn(async move {
            let Replica { id, broker, wire, callers: _callers } = replica;
            world.note(|| format!("{id} is asked to end"));
            let drained = broker.drain(Duration::from_secs(30)).await;
            world.note(|| format!("{id} ends, drained: {drained}"));
            wire.die();
            if drained {
                return Some(id);
            }
            world.oracle.lock().died(id);
            None
        });
        self.start();
    }

    /// Nothing goes wrong any more, and callers go on asking until every wait is over, and a little longer.
    async fn calm_down(&mut self) {
        let end = Instant::now() + RECOVERED + Duration::from_secs(40);
        while Instant::now() < end && !self.has_failed() {
            sleep(self.world.chance.millis(8_000..20_000)).await;
            callers::ask_for_all(self);
        }
    }

    /// What must hold in the end.
    async fn take_stock(&mut self) {
        for key in self.keys.clone() {
            if self.has_failed() {
                return;
            }
            let mut last = callers::insist_until_revived(self, &key).await;
            if last == Err(Reason::ReauthorizationRequired) && self.lives(&key) {
                self.must_be_for_an_operator(&key);
                last = callers::retry(self, &key).await;
            }
            self.look_at(&key, last);
        }
        while let Some(left) = self.leaving.join_next().await {
            if let Ok(Some(replica)) = left {
                self.world.oracle.lock().abandoned(replica);
            }
        }
        for replica in &mut self.replicas {
            self.world.oracle.lock().abandoned(replica.id);
            while let Some(ended) = replica.callers.try_join_next() {
                if let Err(error) = ended {
                    self.world.oracle.lock().fault(format!("a caller's task ended badly: {error}"));
                }
            }
        }
    }

    /// Whether the refresh token that is stored would be taken.
    pub fn lives(&self, key: &Key) -> bool {
        let token = self.world.store.seen(&key.place.unit).and_then(|seen| seen.refresh_token);
        token.is_some_and(|token| self.world.providers.takes(token.expose_secret()))
    }

    /// A grant that lives, and that nothing speaks against, is tried without an operator.
    fn must_be_for_an_operator(&self, key: &Key) {
        if self.world.store.revival(&key.place.unit).is_some() {
            self.world
                .oracle
                .lock()
                .fault(format!("{key:?} is dead here, lives at its provider, and was not tried again"));
        }
    }

    /// G6, and that a grant that lives at its provider lives here too.
    fn look_at(&self, key: &Key, last: Result<(), Reason>) {
        let seen = self.world.store.seen(&key.place.unit);
        let (intent, dead) = seen.as_ref().map(|seen| (seen.intent.clone(), seen.dead)).unwrap_or_default();
        let token = seen.and_then(|seen| seen.refresh_token);
        let lives = token.is_none_or(|token| self.world.providers.takes(token.expose_secret()));
        let mut oracle = self.world.oracle.lock();
        match (last, dead) {
            (Ok(()), None) if intent.is_some_and(|attempt| oracle.is_left(&attempt)) => oracle.fault(format!("G6: an intent is left behind on {key:?}")),
            (Ok(()), None) => {}
            (Err(Reason::ReauthorizationRequired), Some(_)) if !lives => {}
            (last, dead) => oracle.fault(format!(
                "in the end {key:?} gives {last:?}; in the store it is dead: {dead:?}, at its provider it lives: {lives}"
            )),
        }
    }
}
