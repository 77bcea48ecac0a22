//! Callers that never stop: they get tokens, now and then report one, and note what they were told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bearerd::proto::Token;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::scene::{is_retryable, why};
use crate::support::{Desk, PATIENCE, eventually, fingerprint, replicas::Clients};

/// How many callers each replica has, what lies between two of their calls, and how seldom one of these is a report.
const CALLERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(15);
const REPORT_EVERY: usize = 60;

/// Longer than any caller is kept waiting by a replica that runs.
const NO_ANSWER: Duration = Duration::from_secs(8);

/// The provider counts in whole seconds, so that for it a token ends up to that much earlier than it said.
const ROUNDED: Duration = Duration::from_secs(1);

/// What all callers were told.
#[derive(Debug, Default)]
pub struct Tally {
    pub calls: usize,
    pub tokens: usize,
    pub degraded: usize,
    /// Errors that say to try again, or that the replica is not there (`TRANSPORT`, `NO_ANSWER`), by reason.
    pub errors: BTreeMap<String, usize>,
    /// Calls that were told that the grant has ended.
    pub ended: usize,
    /// What no caller may ever be told.
    pub wrong: Vec<String>,
    /// Generations whose token the provider did not know although its time was not over.
    pub unknown: Vec<String>,
    /// The newest generation that each replica gave.
    pub newest: HashMap<usize, u64>,
    /// Each generation with the fingerprint of its token.
    generations: HashMap<u64, String>,
}

/// The callers, until they are stopped.
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Caller {
    clients: Clients,
    replica: usize,
    desk: Desk,
    report_every: usize,
    tally: Arc<Mutex<Tally>>,
    stop: watch::Receiver<bool>,
}

impl Load {
    /// Starts callers of three replicas, who also report tokens.
    pub fn start(clients: &Clients, desk: &Desk) -> Self {
        Self::of(clients, desk, REPORT_EVERY)
    }

    /// Starts callers who report nothing.
    pub fn without_reports(clients: &Clients, desk: &Desk) -> Self {
        Self::of(clients, desk, usize::MAX)
    }

    fn of(clients: &Clients, desk: &Desk, report_every: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::<Mutex<Tally>>::default();
        let caller = |number| Caller {
            clients: clients.clone(),
            replica: number % 3,
            desk: desk.clone(),
            report_every,
            tally: Arc::clone(&tally),
            stop: stopped.clone(),
        };
        let callers = (0..3 * CALLERS).map(|number| tokio::spawn(caller(number).call(number))).collect();
        Self { tally, stop, callers }
    }

    /// Looks at what was told so far.
    pub fn so_far<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        look(&self.tally.lock())
    }

    /// Waits until every replica gives a token that none had given before this call.
    pub async fn moves_on(&self) {
        let newest = self.so_far(|tally| tally.newest.values().copied().max().unwrap_or_default());
        eventually(PATIENCE, async || {
            self.so_far(|tally| (0..3).all(|replica| tally.newest.get(&replica).is_some_and(|now| *now > newest)))
        })
        .await;
    }

    /// Waits until this many more answers are degraded or say that the store is away.
    pub async fn feels_the_stores_absence(&self, answers: usize) {
        let felt = |tally: &Tally| tally.degraded + tally.errors.get("STORE_UNAVAILABLE").copied().unwrap_or_default();
        let before = self.so_far(felt);
        eventually(PATIENCE, async || self.so_far(felt) >= before + answers).await;
    }

    /// Stops the callers; what they were told is free of what nobody may be told.
    pub async fn stop(self) -> Tally {
        let tally = self.end().await;
        assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
        tally
    }

    /// Stops the callers.
    pub async fn end(self) -> Tally {
        self.stop.send_replace(true);
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut *self.tally.lock())
    }
}

impl Caller {
    async fn call(self, number: usize) {
        // Never all at once.
        for turn in 1 + number * REPORT_EVERY / (3 * CALLERS).. {
            if *self.stop.borrow() {
                return;
            }
            let newest = self.tally.lock().newest.get(&self.replica).copied();
            let asked = SystemTime::now();
            let told = match newest.filter(|_| turn % self.report_every == 0) {
                Some(generation) => {
                    let report = self.clients.report(self.replica, generation);
                    timeout(NO_ANSWER, report).await.map(|told| told.map(|(_, token)| token))
                }
                None => timeout(NO_ANSWER, self.clients.get(self.replica)).await,
            };
            match told {
                Ok(Ok(token)) => self.note(&token, asked).await,
                Ok(Err(status)) => self.tally.lock().refused(&status),
                Err(_) => self.tally.lock().error("NO_ANSWER"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn note(&self, token: &Token, asked: SystemTime) {
        if !self.tally.lock().given(self.replica, token, asked) {
            return;
        }
        // The first time that anybody sees it.
        let known = self.desk.introspect(&token.access_token).await;
        let left = expiry(token).duration_since(SystemTime::now()).unwrap_or_default();
        if !known && left > ROUNDED {
            let age = asked.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i128;
            let age = (age - i128::from(token.generation)) / 1000;
            let seen =
                format!("generation {}, {age} ms old when asked for, still valid for {left:?}", token.generation);
            self.tally.lock().unknown.push(seen);
        }
    }
}

fn expiry(token: &Token) -> SystemTime {
    token.expires_at.unwrap().try_into().unwrap()
}

impl Tally {
    /// Notes a token; true if its generation was not seen before.
    fn given(&mut self, replica: usize, token: &Token, asked: SystemTime) -> bool {
        self.calls += 1;
        self.tokens += 1;
        self.degraded += usize::from(token.degraded);
        // An answer may be on its way for as long as its replica stands still, so what counts is when it was asked for.
        if expiry(token) <= asked {
            self.wrong.push(format!("replica {replica} gave an expired token of generation {}", token.generation));
        }
        let newest = self.newest.entry(replica).or_default();
        *newest = token.generation.max(*newest);
        let value = fingerprint(&token.access_token);
        let known = self.generations.insert(token.generation, value.clone());
        if known.as_ref().is_some_and(|known| *known != value) {
            self.wrong.push(format!("generation {} has two tokens", token.generation));
        }
        known.is_none()
    }

    fn refused(&mut self, status: &Status) {
        // Without bearerd's own details it comes from this side of the connection: nobody is there.
        if status.get_details_error_info().is_none() {
            let gone = [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal].contains(&status.code());
            return if gone { self.error("TRANSPORT") } else { self.wrong(status) };
        }
        let (reason, _) = why(status);
        if is_retryable(status) {
            self.error(&reason);
        } else if reason == "REAUTHORIZATION_REQUIRED" {
            self.calls += 1;
            self.ended += 1;
        } else {
            self.wrong(status);
        }
    }

    fn error(&mut self, reason: &str) {
        self.calls += 1;
        *self.errors.entry(reason.to_owned()).or_default() += 1;
    }

    fn wrong(&mut self, status: &Status) {
        self.calls += 1;
        self.wrong.push(format!("{status:?}"));
    }

    /// Adds what others were told.
    pub fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.tokens += other.tokens;
        self.degraded += other.degraded;
        self.ended += other.ended;
        for (reason, times) in other.errors {
            *self.errors.entry(reason).or_default() += times;
        }
    }

    /// How often callers found nobody.
    pub fn unanswered(&self) -> usize {
        ["TRANSPORT", "NO_ANSWER"].iter().filter_map(|reason| self.errors.get(*reason)).sum()
    }
}
