//! Callers: they ask, report what they got as rejected, refuse what they had, make things up, and go away too early.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bearerd::{
    broker::{Broker, Error, Imported, Outcome, Reason, Rejected, Report, Retried, Served},
    name::Scopes,
    secret::{ExposeSecret, SecretString},
    store::Material,
    token::{Generation, Wanted},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    keys::Key,
    oracle::{Due, ReplicaId},
    provider::Rotation,
    run::{Run, World},
    wire::Wire,
};

/// A caller, connected to one replica.
#[derive(Clone)]
struct Caller {
    world: Arc<World>,
    replica: ReplicaId,
    broker: Broker,
    wire: Arc<Wire>,
    key: Key,
    /// Nothing went wrong for long enough when it began.
    recovered: bool,
}

/// One operation, somewhere.
pub fn act(run: &mut Run) {
    let world = Arc::clone(&run.world);
    let chance = &world.chance;
    let unconsented = !run.unconsented.is_empty() && chance.one_in(6);
    let key = chance.pick(if unconsented { &run.unconsented } else { &run.keys }).clone();
    let everywhere = chance.one_in(8);
    let times = if everywhere { chance.number(1..6) } else { 1 };
    let chosen = chance.number(0..run.replicas.len());
    let kind = if unconsented { 0 } else { chance.number(0..20) };
    let known = world.store.read(&key.place, &world.clock.now());
    let current = known.token.as_ref().map_or(Generation::ZERO, |token| token.generation);
    let value = known.token.as_ref().map(|token| SecretString::from(token.value.expose_secret()));
    for at in (0..run.replicas.len()).filter(|at| everywhere || *at == chosen) {
        for _ in 0..times {
            let Some(caller) = caller(run, at, &key) else { continue };
            let patience = if chance.one_in(5) { chance.millis(1..4_000) } else { Duration::from_secs(60) };
            let callers = &mut run.replicas[at].callers;
            let older = Generation::new(current.get().saturating_sub(1 + chance.number(0..1_000) as u64));
            let newer = Generation::new(known.next.get() + 1 + chance.number(0..1_000_000_000) as u64);
            let wanted = Wanted::default();
            match kind {
                0..9 => callers.spawn(within(patience, caller.get(wanted))),
                9 => callers.spawn(within(patience, caller.get(Wanted { refused: current, ..wanted }))),
                10 => callers.spawn(within(patience, caller.get(Wanted { refused: newer, ..wanted }))),
                11 => {
                    let min_remaining = chance.millis(1_000..100_000);
                    callers.spawn(within(patience, caller.get(Wanted { min_remaining, ..wanted })))
                }
                12..15 => callers.spawn(within(patience, caller.report(Rejected::Generation(current), Some(current)))),
                15 => callers.spawn(within(patience, caller.report(Rejected::Generation(older), None))),
                16 => callers.spawn(within(patience, caller.report(Rejected::Generation(newer), None))),
                17 => match value.clone() {
                    Some(value) => callers.spawn(within(patience, caller.report_value(value, current))),
                    None => callers.spawn(within(patience, caller.report(Rejected::AccessToken("x".into()), None))),
                },
                18 => callers.spawn(within(patience, caller.report_what_it_gets())),
                _ if key.subject.is_empty() || everywhere => callers.spawn(within(patience, caller.get(wanted))),
                _ => match rotation(run, &key) {
                    Some((rotation, lifetime)) => {
                        run.replicas[at].callers.spawn(within(patience, caller.hand_over(rotation, lifetime)))
                    }
                    None => continue,
                },
            };
        }
    }
}

/// Every subject's grant is imported.
pub async fn hand_over_all(run: &mut Run) {
    for key in run.keys.clone() {
        let whole = key.scopes == super::provider::DEFAULT_SCOPES;
        if let Some((rotation, lifetime)) = rotation(run, &key).filter(|_| whole && !key.subject.is_empty()) {
            caller(run, 0, &key).unwrap().hand_over(rotation, lifetime).await;
        }
    }
}

/// Every token is asked for, each at some replica.
pub fn ask_for_all(run: &mut Run) {
    for key in run.keys.iter().chain(&run.unconsented).cloned().collect::<Vec<_>>() {
        let at = run.world.chance.number(0..run.replicas.len());
        if let Some(caller) = caller(run, at, &key) {
            run.replicas[at].callers.spawn(caller.get(Wanted::default()));
        }
    }
}

/// An operator tries a grant again that is dead here and lives at its provider.
pub async fn retry(run: &Run, key: &Key) -> Result<(), Reason> {
    run.world.operator.store(true, Ordering::Relaxed);
    let retried = run.replicas[0].broker.retry_grant(key.retry.clone(), false).await;
    run.world.operator.store(false, Ordering::Relaxed);
    run.world.note(|| format!("an operator retries {key:?}: {retried:?}"));
    run.world.oracle.lock().count("grant retried by an operator");
    match retried {
        Ok(Retried::Revived(_)) => Ok(()),
        Ok(_) => Err(Reason::ReauthorizationRequired),
        Err(error) => Err(error.reason()),
    }
}

/// Wants a new token until there is one, or none can be had. A grant that is dead and may be tried again is waited for.
pub async fn insist_until_revived(run: &Run, key: &Key) -> Result<(), Reason> {
    let last = insist(run, key).await;
    let wait = run.world.store.revival(&key.place.unit).filter(|_| run.lives(key));
    match (last, wait) {
        (Err(Reason::ReauthorizationRequired), Some(wait)) => {
            // Another grant of the same client may take the turn of a minute.
            sleep(wait + Duration::from_secs(125)).await;
            insist(run, key).await
        }
        (last, _) => last,
    }
}

/// Wants a new token until there is one, or none can be had.
async fn insist(run: &Run, key: &Key) -> Result<(), Reason> {
    let current = run.world.store.read(&key.place, &run.world.clock.now()).token;
    let refused = current.map_or(Generation::ZERO, |token| token.generation);
    let caller = caller(run, 0, key).expect("nothing stands still any more");
    // A token that was rejected before may be kept for five minutes.
    let give_up = Instant::now() + Duration::from_secs(700);
    loop {
        let wanted = Wanted { refused, min_remaining: Duration::ZERO };
        match caller.ask(wanted).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let reason = error.reason();
                if reason == Reason::ReauthorizationRequired || Instant::now() >= give_up {
                    return Err(reason);
                }
                sleep(error.retry_after().unwrap_or_default().max(Duration::from_secs(3))).await;
            }
        }
    }
}

fn rotation(run: &Run, key: &Key) -> Option<(Rotation, Duration)> {
    let temper = run.world.tempers.iter().find(|temper| temper.credential == key.credential)?;
    Some((temper.rotation?, temper.lifetime))
}

/// A caller at a replica that answers.
fn caller(run: &Run, at: usize, key: &Key) -> Option<Caller> {
    let replica = &run.replicas[at];
    let (world, broker, wire) = (Arc::clone(&run.world), replica.broker.clone(), Arc::clone(&replica.wire));
    let recovered = world.is_recovered();
    (!wire.is_still()).then(|| Caller { world, replica: replica.id, broker, wire, key: key.clone(), recovered })
}

/// Whether a report that was answered like this was acted upon, and only the new token is missing.
fn was_taken(error: &Error) -> bool {
    matches!(error, Error::Failed { .. })
}

/// Until the caller loses its patience.
async fn within(patience: Duration, work: impl Future<Output = ()>) {
    // Whoever goes away early leaves nothing to be said.
    let _ = timeout(patience, work).await;
}

impl Caller {
    async fn get(self, wanted: Wanted) {
        self.world.oracle.lock().count("get");
        // What goes wrong for a caller is looked at in the end.
        let _ = self.ask(wanted).await;
    }

    async fn ask(&self, wanted: Wanted) -> Result<Served, Error> {
        let (due, began) = self.begin(wanted);
        let result = self.broker.get_token(self.key.permit.clone(), wanted).await;
        self.end("get", due, began, result.as_ref());
        result
    }

    /// Reports a token; if it is one that was issued, it must not come again.
    async fn report(self, rejected: Rejected, issued: Option<Generation>) {
        self.world.oracle.lock().count("report");
        let made_up = match &rejected {
            Rejected::Generation(generation) => *generation,
            Rejected::AccessToken(_) => Generation::ZERO,
        };
        // Of a token that was never issued nothing follows, unless there is none that is newer.
        let refused = issued.unwrap_or_else(|| made_up.min(self.revision()));
        let (due, began) = self.begin(Wanted { refused, ..Wanted::default() });
        let due = if issued.is_some() { due } else { Due { wanted: Wanted::default(), ..due } };
        let report = Report { rejected, evidence: None };
        let result = self.broker.invalidate_token(self.key.permit.clone(), report).await;
        self.world.note(|| format!("{} answers a report: {:?}", self.replica, result.as_ref().map(|r| r.outcome)));
        if let Ok(reported) = &result
            && let Outcome::HeldBack(_) = reported.outcome
        {
            return self.world.oracle.lock().count("held back");
        }
        if let Some(generation) = issued.filter(|_| result.as_ref().map_or_else(was_taken, |_| true)) {
            self.world.oracle.lock().reported(self.replica, &self.key.place, generation);
        }
        let served = result.as_ref().map(|reported| reported.served.as_ref());
        match served {
            Ok(Some(served)) => self.end("report", due, began, Ok(served)),
            Ok(None) => self.world.oracle.lock().fault("a report was answered without a token"),
            Err(error) => self.end("report", due, began, Err(error)),
        }
    }

    async fn report_value(self, value: SecretString, generation: Generation) {
        self.report(Rejected::AccessToken(value), Some(generation)).await;
    }

    /// As callers do: asks, is refused, reports what it got.
    async fn report_what_it_gets(self) {
        let Ok(served) = self.ask(Wanted::default()).await else { return };
        sleep(self.world.chance.millis(10..3_000)).await;
        if self.world.chance.one_in(2) {
            self.report(
                Rejected::AccessToken(served.token.value.expose_secret().into()),
                Some(served.token.generation),
            )
            .await;
        } else {
            self.report(Rejected::Generation(served.token.generation), Some(served.token.generation)).await;
        }
    }

    async fn hand_over(self, rotation: Rotation, lifetime: Duration) {
        self.world.oracle.lock().count("import");
        let providers = &self.world.providers;
        let chance = &self.world.chance;
        // Also what no provider ever gave: it must not cost the grant that is there.
        let has_one = self.world.store.seen(&self.key.place.unit).is_some_and(|seen| seen.refresh_token.is_some());
        let garbage = chance.one_in(4) && has_one;
        let verify = garbage || chance.one_in(2);
        let token = if garbage {
            "garbage".to_owned()
        } else {
            if chance.one_in(2) {
                providers.revoke(&self.key.credential, self.key.subject);
            }
            providers.authorize(&self.key.credential, self.key.subject, rotation, lifetime)
        };
        let scopes = Scopes::default();
        let imported = Imported { material: Material::RefreshToken(token.into()), scopes, verify };
        let result = self.broker.import_grant(self.key.permit.clone(), imported).await;
        let outcome = match &result {
            Ok(_) => "stored",
            Err(error) if error.reason() == Reason::ReauthorizationRequired => "refused",
            Err(error) if error.reason() == Reason::RefreshOutcomeUnknown => "unanswered",
            Err(_) => "not carried out",
        };
        self.world.oracle.lock().count(match (verify, outcome) {
            (false, _) => "import: not verified",
            (true, "stored") => "import: verified",
            (true, "refused") => "import: refused",
            (true, "unanswered") => "import: unanswered",
            (true, _) => "import: not carried out",
        });
        if garbage && result.is_ok() {
            self.world.oracle.lock().fault(format!("an import of what no provider gave was taken for {:?}", self.key));
        }
        self.world.note(|| format!("{} answers an import of {:?}: {result:?}", self.replica, self.key));
    }

    fn revision(&self) -> Generation {
        self.world.store.seen(&self.key.place.unit).map_or(Generation::ZERO, |seen| seen.revision)
    }

    fn begin(&self, wanted: Wanted) -> (Due, Instant) {
        let mut oracle = self.world.oracle.lock();
        oracle.asks(&self.key.place, &wanted);
        let debt = oracle.debt(self.replica, &self.key.place, self.wire.free_for());
        drop(oracle);
        self.world.note(|| format!("{} is asked for {:?}, {wanted:?}", self.replica, self.key));
        (Due { replica: self.replica, wanted, debt, disturbed: false }, Instant::now())
    }

    fn end(&self, what: &'static str, due: Due, began: Instant, result: Result<&Served, &Error>) {
        match result {
            Ok(served) => {
                let (token, replica) = (&served.token, self.replica);
                self.world.note(|| format!("{replica} answers {what} of {:?}: {}", self.key, token.generation));
                let issued = self.world.providers.issued(token.value.expose_secret());
                let due = Due { disturbed: self.wire.disturbed_since(began), ..due };
                self.world.oracle.lock().served(&self.key, served, issued, &due);
            }
            Err(error) => {
                self.world.note(|| format!("{} answers {what} of {:?}: {error}", self.replica, self.key));
                self.failed(due.wanted, began, error);
            }
        }
    }

    /// A caller got no token: it is told so of a dead grant only if it is dead, and of none when all is well (G6).
    fn failed(&self, wanted: Wanted, began: Instant, error: &Error) {
        let reason = error.reason();
        let is_refusal = matches!(reason, Reason::ReauthorizationRequired | Reason::InsufficientScope);
        if self.key.is_unconsented() && is_refusal {
            self.world.oracle.lock().count("told that nobody consented");
        } else if reason == Reason::ReauthorizationRequired {
            self.world.look(&self.key.place.unit);
            self.world.oracle.lock().told_dead(&self.key, began);
        } else if wanted == Wanted::default() && self.recovered {
            let text = format!("G6: all is well, and a caller for {:?} is told {reason:?}", self.key);
            self.world.oracle.lock().fault(text);
        }
    }
}
