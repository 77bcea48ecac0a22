//! What one replica has of the world: its connections to the store and to the providers. Here is where things go wrong;
//! what arrives at the far end is carried out faithfully, and the oracle looks on.
//!
//! A replica that died, or stands still, is one whose connections say nothing: from outside there is no difference.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bearerd::{
    clock::Moment,
    grant::{
        answer::{Answer, Refusal, RefusalError, Unusable},
        request::TokenRequest,
    },
    provider::{SendError, TokenEndpoint},
    secret::ExposeSecret,
    store::{
        Acknowledged, AttemptId, Census, Claim, Claimed, Commit, Dispatch, Dispatched, Event, Found, GrantState,
        Import, Loaded, Look, Names, Place, Quarantine, Refuse, Rest, Search, Settle, Step, Stepped, Store, StoreError,
        UnitName, Written, names::EndpointName,
    },
    token::Generation,
};
use parking_lot::Mutex;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    faults::{ProviderFate, StoreFate},
    oracle::{Answered, Hold, ReplicaId, Revival},
    run::World,
};

/// How long a replica waits for the store's reply.
pub const PATIENCE: Duration = Duration::from_secs(2);

pub struct Wire {
    pub replica: ReplicaId,
    world: Arc<World>,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct State {
    dead: bool,
    still_until: Option<Instant>,
    cut: Option<Cut>,
    /// When the replica was last stopped or cut off.
    disturbed: Option<Instant>,
    /// When it was last told that the store is back.
    heard: Option<Instant>,
}

/// The store cannot be reached.
#[derive(Clone, Copy)]
struct Cut {
    until: Instant,
    kind: CutKind,
}

/// How a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutKind {
    /// It breaks at once.
    Broken,
    /// Nothing says so; in the end it is replaced.
    Replaced,
    /// Nothing says so; in the end it goes on, and what was told meanwhile arrives.
    Held,
}

impl Wire {
    pub fn new(replica: ReplicaId, world: Arc<World>) -> Arc<Self> {
        let (events, _) = broadcast::channel(4096);
        let heard = world.store.events();
        let this = Arc::new(Self { replica, world, state: Mutex::default(), events });
        this.world.wires.lock().push(Arc::clone(&this));
        tokio::spawn(Arc::clone(&this).relay(heard));
        this
    }

    pub fn die(&self) {
        self.state.lock().dead = true;
    }

    /// Whether nobody is there to be asked.
    pub fn is_still(&self) -> bool {
        let state = self.state.lock();
        state.dead || state.still_until.is_some_and(|until| until > Instant::now())
    }

    /// For how long the replica has been neither stopped nor cut off.
    pub fn free_for(&self) -> Duration {
        let state = self.state.lock();
        match (state.cut, state.still_until, state.disturbed) {
            (None, None, None) => Duration::MAX,
            (None, None, Some(at)) => Instant::now() - at,
            (Some(_), _, _) | (_, Some(_), _) => Duration::ZERO,
        }
    }

    /// Whether the replica was told within this time that the store is back.
    pub fn heard_within(&self, span: Duration) -> bool {
        self.state.lock().heard.is_some_and(|at| Instant::now() - at < span)
    }

    /// Whether the replica was stopped or cut off since.
    pub fn disturbed_since(&self, moment: Instant) -> bool {
        let state = self.state.lock();
        state.cut.is_some() || state.still_until.is_some() || state.disturbed.is_some_and(|at| at >= moment)
    }

    /// Nothing moves for a while.
    pub fn stand_still(&self, span: Duration) {
        let mut state = self.state.lock();
        let until = Instant::now() + span;
        state.still_until = Some(state.still_until.map_or(until, |other| other.max(until)));
    }

    /// The store is away for a while.
    pub fn cut(self: &Arc<Self>, span: Duration, kind: CutKind) {
        let until = Instant::now() + span;
        if self.state.lock().cut.replace(Cut { until, kind }).is_some() {
            return;
        }
        if kind == CutKind::Broken {
            self.tell(Event::Gap);
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(cut) = this.cut_now() {
                sleep_until(cut.until).await;
                let mut state = this.state.lock();
                state.cut.take_if(|cut| cut.until <= Instant::now());
                state.disturbed = Some(Instant::now());
            }
            if kind == CutKind::Replaced {
                this.tell(Event::Gap);
            }
            if kind != CutKind::Held {
                this.state.lock().heard = Some(Instant::now());
                this.tell(Event::Heard);
            }
        });
    }

    fn learn(&self, unit: &UnitName, revision: Generation, written: Written) {
        if written == Written::Done {
            self.world.oracle.lock().acknowledged(self.replica, unit, revision);
        }
    }

    fn tell(&self, event: Event) {
        // The listener goes only with the broker.
        let _ = self.events.send(event);
    }

    fn cut_now(&self) -> Option<Cut> {
        self.state.lock().cut
    }

    /// Waits as long as the replica stands still; for ever, if it is dead.
    async fn awake(&self) {
        loop {
            let (dead, until) = {
                let state = self.state.lock();
                (state.dead, state.still_until)
            };
            match until {
                _ if dead => pending().await,
                None => return,
                Some(until) => sleep_until(until).await,
            }
            let mut state = self.state.lock();
            if state.still_until.take_if(|until| *until <= Instant::now()).is_some() {
                state.disturbed = Some(Instant::now());
            }
        }
    }

    /// A step, at which a replica may die: before anything of it happened, or before it learns of it.
    async fn step(&self) {
        if self.world.falls() && !self.state.lock().dead {
            self.world.fault("replica dies at a step");
            self.world.note(|| format!("{} is dead", self.replica));
            self.die();
            self.world.oracle.lock().died(self.replica);
            self.world.fallen.lock().push(self.replica);
        }
        self.awake().await;
    }

    /// Between two steps of a refresh a replica may stand still for long.
    async fn stall(&self) {
        if let Some(span) = self.world.stall() {
            self.stand_still(span);
        }
        self.awake().await;
    }

    /// Hands on what the store tells, in order.
    async fn relay(self: Arc<Self>, mut heard: broadcast::Receiver<Event>) {
        loop {
            let event = match heard.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => Event::Gap,
                Err(RecvError::Closed) => return,
            };
            match self.cut_now() {
                Some(Cut { kind: CutKind::Held, until }) => sleep_until(until).await,
                Some(Cut { kind: CutKind::Broken | CutKind::Replaced, until: _ }) => {
                    self.world.fault("event lost");
                    continue;
                }
                None => {}
            }
            sleep(self.world.chance.millis(5..30)).await;
            self.awake().await;
            self.tell(event);
        }
    }

    /// Has something done at the store. It is done even if nobody waits for the reply any more.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&World, &Moment) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.step().await;
        self.world.oracle.lock().count("store call");
        let (asked, give_up) = (self.world.clock.now(), Instant::now() + PATIENCE);
        let lost = |text: &str| Err(StoreError::Unavailable(text.to_owned()));
        match self.cut_now() {
            Some(Cut { kind: CutKind::Broken, until: _ }) => {
                sleep(Duration::from_millis(5)).await;
                self.awake().await;
                return lost("connection refused");
            }
            Some(Cut { kind, until }) => {
                if kind == CutKind::Held {
                    let (world, there) = (Arc::clone(&self.world), self.world.chance.millis(5..40));
                    tokio::spawn(async move {
                        sleep_until(until + there).await;
                        work(&world, &asked);
                    });
                }
                sleep_until(give_up).await;
                self.awake().await;
                return lost("timed out");
            }
            None => {}
        }
        let fate = self.world.store_fate();
        let arrives = fate != StoreFate::LostBefore;
        let (there, back) = (self.world.chance.millis(fate.there()), self.world.chance.millis(5..40));
        let world = Arc::clone(&self.world);
        let done = tokio::spawn(async move {
            sleep(there).await;
            let result = arrives.then(|| work(&world, &asked));
            sleep(back).await;
            result
        });
        let reply = timeout_at(give_up, done).await.ok().and_then(Result::ok).flatten();
        let arrives = fate != StoreFate::LostAfter && self.cut_now().is_none();
        match reply.filter(|_| arrives) {
            Some(reply) => {
                self.step().await;
                Ok(reply)
            }
            None => {
                sleep_until(give_up).await;
                self.awake().await;
                lost("timed out")
            }
        }
    }
}

#[async_trait]
impl Store for Wire {
    fn names(&self) -> &Names {
        self.world.store.names()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn load(&self, place: &Place) -> Result<Loaded, StoreError> {
        let place = place.clone();
        self.call(move |world, asked| world.store.read(&place, asked)).await
    }

    async fn look(&self, place: &Place, at_hand: Generation) -> Result<Look, StoreError> {
        let place = place.clone();
        self.call(move |world, _| world.store.compare(&place, at_hand)).await
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        let (place, owner) = (claim.place.clone(), claim.owner.clone());
        let (lease, refused, purpose) = (claim.lease, claim.refused, claim.purpose);
        let (who, began) = ((self.replica, task::try_id()), Instant::now());
        self.stall().await;
        self.call(move |world, asked| {
            let claimed = world.store.take(&Claim { place: &place, owner: &owner, lease, refused, purpose }, asked);
            if !purpose.yields && world.others.contains(&place) {
                world.oracle.lock().fault(format!("a claim for {place:?} gives way to nobody"));
            }
            if let Claimed::Held { record, next: _, refusal: _ } = &claimed {
                let revision = record.as_ref().map_or(Generation::ZERO, |record| record.revision);
                // An import takes the lease to keep others from refreshing, whatever token is there.
                let there = world.store.read(&place, asked).token.filter(|_| refused != Generation::MAX);
                let token = there.and_then(|token| {
                    let expiry = token.expiry?;
                    Some((token.generation, expiry.deadline.remaining(asked), expiry.lifetime))
                });
                world.note(|| format!("{} holds {place:?} at {revision}, found {token:?}", who.0));
                let unanswered = record.as_ref().is_some_and(|record| record.intent.is_some());
                let temper = world.temper(&place.unit);
                let dead = record.as_ref().and_then(|record| match record.state {
                    GrantState::Dead(cause) => Some(cause),
                    GrantState::Active => None,
                });
                let kept = record.as_ref().is_some_and(|record| record.quarantine.is_some());
                let by_operator = world.operator.load(Ordering::Relaxed);
                // An import takes the lease of the grant that it replaces, be that dead or not.
                let dead = dead.filter(|_| place.token.as_str() != "import");
                let dead = dead.map(|cause| Revival { cause, kept, by_operator });
                let hold = Hold { place: &place, attempt: &owner, revision, unanswered, token, temper, dead };
                world.oracle.lock().held(who, &hold);
            }
            let rests = matches!(&claimed, Claimed::Resting(record) if record.state == GrantState::Active
                && record.failure.is_some_and(|failure| failure.early));
            if rests && !purpose.needed && world.store.had_ended(&place, began) {
                let text = format!("{place:?} has ended, and waits for what early tries left behind");
                world.oracle.lock().fault(text);
            }
            world.look(&place.unit);
            claimed
        })
        .await
    }

    async fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<Dispatched, StoreError> {
        let (unit, attempt) = (dispatch.unit.clone(), dispatch.attempt.clone());
        let (expected, seen, need) = (dispatch.expected, dispatch.seen.cloned(), dispatch.need);
        let replica = self.replica;
        self.stall().await;
        self.call(move |world, _| {
            let dispatch = Dispatch { unit: &unit, attempt: &attempt, expected, seen: seen.as_ref(), need };
            let dispatched = world.store.note_intent(&dispatch);
            world.note(|| format!("{replica} dispatches {unit:?} at {expected}: {dispatched:?}"));
            if dispatched == Dispatched::Go {
                world.oracle.lock().dispatched(&attempt);
            }
            world.look(&unit);
            dispatched
        })
        .await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Written, StoreError> {
        let (place, attempt, expected) = (commit.place.clone(), commit.attempt.clone(), commit.expected);
        self.stall().await;
        let (next, secrets, token, replica) = (commit.next, commit.secrets.clone(), commit.token.clone(), self.replica);
        let unit = place.unit.clone();
        let written = self
            .call(move |world, _| {
                let revision =
                    |world: &World| world.store.seen(&place.unit).map_or(Generation::ZERO, |seen| seen.revision);
                let before = revision(world);
                let (place, attempt, secrets, token) = (&place, &attempt, &secrets, &token);
                let write = || world.store.write(&Commit { place, attempt, expected, next, secrets, token });
                let written = world.sparing(&place.unit, attempt, write);
                let is_there = world.store.seen(&place.unit).is_some_and(|seen| seen.attempt.as_ref() == Some(attempt));
                world.note(|| {
                    format!("{replica} commits {place:?} at {expected}, becoming {next}: {written:?} {is_there}")
                });
                let token = (token.value.expose_secret(), next);
                let revisions = (before, expected, revision(world));
                world.oracle.lock().committed(attempt, (written, is_there), token, revisions);
                world.look(&place.unit);
                written
            })
            .await?;
        self.learn(&unit, next, written);
        Ok(written)
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Written, StoreError> {
        let (unit, attempt, replica) = (settle.unit.clone(), settle.attempt.clone(), self.replica);
        let (expected, verdict, cause, early) = (settle.expected, settle.verdict, settle.cause, settle.early);
        self.call(move |world, _| {
            let settle = Settle { unit: &unit, attempt: &attempt, expected, verdict, cause, report: None, early };
            let revision = world.store.seen(&unit).map_or(Generation::ZERO, |seen| seen.revision);
            let written = world.sparing(&unit, &attempt, || world.store.note_failure(&settle));
            world
                .note(|| format!("{replica} settles {unit:?} at {expected}: {} {verdict:?} {written:?}", cause.word()));
            world.oracle.lock().settled(&settle, written, revision);
            world.look(&unit);
            written
        })
        .await
    }

    async fn refuse(&self, refuse: &Refuse<'_>) -> Result<Written, StoreError> {
        let (place, attempt, replica) = (refuse.place.clone(), refuse.attempt.clone(), self.replica);
        let Refuse { expected, cause, wait, early, give_way, .. } = *refuse;
        self.call(move |world, _| {
            let (place, attempt) = (&place, &attempt);
            let refuse = Refuse { place, attempt, expected, cause, wait, early, give_way };
            let written = world.sparing(&place.unit, attempt, || world.store.note_refusal(&refuse));
            world.note(|| format!("{replica} was refused {place:?} at {expected}: {} {written:?}", cause.word()));
            world.oracle.lock().refused(attempt, give_way.is_zero() && world.others.contains(place));
            world.look(&place.unit);
            written
        })
        .await
    }

    async fn release(&self, unit: &UnitName, owner: &AttemptId) -> Result<(), StoreError> {
        let (unit, owner, replica) = (unit.clone(), owner.clone(), self.replica);
        self.call(move |world, _| {
            world.note(|| format!("{replica} releases {unit:?}"));
            world.oracle.lock().released(&owner);
            world.sparing(&unit, &owner, || world.store.give_up(&unit, &owner));
        })
        .await
    }

    async fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        let (place, replica) = (place.clone(), self.replica);
        self.call(move |world, _| {
            world.note(|| format!("{replica} rejects {place:?} {generation}, strikes: {strikes}"));
            let there = world.store.read(&place, &world.clock.now()).token;
            let age = there.filter(|token| token.generation == generation).map(|_| world.store.age(generation));
            world.store.delete(&place, generation, strikes);
            world.oracle.lock().rejected(&place, generation, age, world.temper(&place.unit));
        })
        .await
    }

    async fn import(&self, import: &Import<'_>) -> Result<Written, StoreError> {
        let (unit, attempt, replica) = (import.unit.clone(), import.attempt.clone(), self.replica);
        let (expected, next, secrets) = (import.expected, import.next, import.secrets.clone());
        let own = unit.clone();
        let written = self
            .call(move |world, _| {
                let import = Import { unit: &unit, attempt: &attempt, expected, next, secrets: &secrets };
                let written = world.store.replace(&import);
                world.note(|| format!("{replica} imports {unit:?} at {expected}, becoming {next}: {written:?}"));
                world.oracle.lock().imported(&attempt);
                world.look(&unit);
                written
            })
            .await?;
        self.learn(&own, next, written);
        Ok(written)
    }

    async fn quarantine(&self, late: &Quarantine<'_>) -> Result<Written, StoreError> {
        let (unit, attempt, replica) = (late.unit.clone(), late.attempt.clone(), self.replica);
        let (expected, next, secrets) = (late.expected, late.next, late.secrets.clone());
        self.call(move |world, _| {
            let late = Quarantine { unit: &unit, attempt: &attempt, expected, next, secrets: &secrets };
            let written = world.store.keep(&late);
            world.note(|| format!("{replica} keeps a late answer of {unit:?} at {expected}: {written:?}"));
            if written == Written::Done {
                world.oracle.lock().count("late answer kept");
            }
            written
        })
        .await
    }

    async fn adopt(&self, adopt: &Import<'_>) -> Result<Written, StoreError> {
        let (unit, attempt, replica) = (adopt.unit.clone(), adopt.attempt.clone(), self.replica);
        let (expected, next, secrets) = (adopt.expected, adopt.next, adopt.secrets.clone());
        let own = unit.clone();
        let written = self
            .call(move |world, _| {
                let adopt = Import { unit: &unit, attempt: &attempt, expected, next, secrets: &secrets };
                let written = world.sparing(&unit, &attempt, || world.store.bring_back(&adopt));
                world.note(|| format!("{replica} tries a late answer of {unit:?} at {expected}, {next}: {written:?}"));
                if written == Written::Done {
                    world.oracle.lock().adopted(&unit);
                }
                world.look(&unit);
                written
            })
            .await?;
        self.learn(&own, next, written);
        Ok(written)
    }

    async fn reassert(&self, known: &Acknowledged<'_>) -> Result<Written, StoreError> {
        let (unit, attempt, revision) = (known.unit.clone(), known.attempt.clone(), known.revision);
        let (secrets, replica) = (known.secrets.clone(), self.replica);
        let token = known.token.map(|(place, token)| (place.clone(), token.clone()));
        self.call(move |world, _| {
            let token = token.as_ref().map(|(place, token)| (place, token));
            let (unit, attempt, secrets) = (&unit, &attempt, &secrets);
            let before = world.store.seen(unit).map_or(Generation::ZERO, |seen| seen.revision);
            let written = world.store.write_again(&Acknowledged { unit, attempt, revision, secrets, token });
            world.note(|| format!("{replica} writes {unit:?} at {revision} once more: {written:?}"));
            if written == Written::Done {
                let token = token.map(|(_, token)| (token.value.expose_secret(), token.generation));
                world.oracle.lock().reasserted(attempt, token, (before, revision));
                world.oracle.lock().replaced(unit, attempt, secrets.untried);
            }
            world.look(unit);
            written
        })
        .await
    }

    async fn cool_down(&self, endpoint: &EndpointName, rest: &Rest) -> Result<(), StoreError> {
        let (endpoint, rest, replica) = (endpoint.clone(), *rest, self.replica);
        self.call(move |world, _| {
            world.note(|| format!("{replica} lets {endpoint:?} rest: {rest:?}"));
            world.store.let_rest(&endpoint, &rest);
        })
        .await
    }

    async fn cooling(&self, endpoint: &EndpointName) -> Result<Option<Rest>, StoreError> {
        let endpoint = endpoint.clone();
        self.stall().await;
        let task = task::try_id();
        let rest = self.call(move |world, _| world.store.rest(&endpoint)).await?;
        self.world.oracle.lock().looked(task, rest.is_some());
        Ok(rest)
    }

    async fn take_turn(&self, endpoint: &EndpointName, span: Duration) -> Result<bool, StoreError> {
        let endpoint = endpoint.clone();
        let task = task::try_id();
        self.call(move |world, _| {
            let taken = world.store.turn(&endpoint, span);
            if taken {
                world.oracle.lock().took_turn(task);
            }
            taken
        })
        .await
    }

    async fn dead_grants(&self, search: &Search<'_>) -> Result<Found, StoreError> {
        self.world.store.dead_grants(search).await
    }

    /// Nothing is sealed in the simulated store.
    async fn reseal(&self, _step: &Step<'_>) -> Result<Stepped, StoreError> {
        self.call(|_, _| Stepped { census: Census::default(), next: None }).await
    }

    fn seal_keys(&self) -> Vec<String> {
        Vec::new()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.call(|_, _| ()).await
    }
}

#[async_trait]
impl TokenEndpoint for Wire {
    async fn ask(&self, request: TokenRequest, limit: Duration) -> Result<Answer, SendError> {
        self.world.oracle.lock().sending(task::try_id());
        self.stall().await;
        self.step().await;
        let fate = self.world.provider_fate();
        let number = self.world.asking(self.replica);
        self.world.note(|| format!("{} asks: {fate:?}", self.replica));
        let answer = self.exchange(number, fate, request, limit).await;
        self.step().await;
        let learned = match &answer {
            Ok(Answer::Granted(_)) => Answered::Token,
            Ok(Answer::Refused(_)) | Err(SendError::NotSent(_)) => Answered::Nothing,
            Ok(Answer::Unusable(_)) | Err(SendError::OutcomeUnknown(_)) => Answered::Unknown,
        };
        self.world.note(|| format!("{} learns {learned:?}", self.replica));
        self.world.oracle.lock().answered(number, learned);
        answer
    }
}

impl Wire {
    async fn exchange(
        &self,
        number: usize,
        fate: ProviderFate,
        request: TokenRequest,
        limit: Duration,
    ) -> Result<Answer, SendError> {
        let chance = &self.world.chance;
        let (there, back) = (chance.millis(fate.there(limit)), chance.millis(fate.there(limit)));
        let world = Arc::clone(&self.world);
        let give_up = Instant::now() + limit;
        let done = tokio::spawn(async move {
            sleep(there).await;
            let answer = fate.arrives().then(|| world.act(number, &request, Instant::now() < give_up));
            sleep(back).await;
            answer
        });
        let answer = timeout(limit, done).await.ok().and_then(Result::ok).flatten();
        let refused = |error, retry_after| Ok(Answer::Refused(Refusal { retry_after, ..Refusal::from(error) }));
        match fate {
            ProviderFate::Good | ProviderFate::Slow | ProviderFate::Late => {
                answer.ok_or_else(|| SendError::OutcomeUnknown("time ran out".into()))
            }
            ProviderFate::NotSent => Err(SendError::NotSent("connection refused".into())),
            ProviderFate::Unavailable => refused(RefusalError::Unavailable, None),
            ProviderFate::RateLimited => refused(RefusalError::RateLimited, Some(chance.millis(1_000..20_000))),
            ProviderFate::UnclearBefore | ProviderFate::UnclearAfter => {
                Ok(Answer::Unusable(Unusable::UnclearStatus.into()))
            }
            ProviderFate::Garbled => Ok(Answer::Unusable(Unusable::Unreadable.into())),
            ProviderFate::LostBefore | ProviderFate::LostAfter => {
                if chance.one_in(2) {
                    sleep_until(give_up).await;
                }
                Err(SendError::OutcomeUnknown("the connection broke".into()))
            }
        }
    }
}
