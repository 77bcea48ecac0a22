//! The way to Redis: the connections of the moment, and what an answer says about them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, error::Elapsed, sleep, timeout_at},
};

use tracing::{info, warn};

use super::{
    RedisConfig,
    contact::{Pushes, in_time, timed_out},
    dial::Dialer,
    durable::DURABLE_TIMEOUT,
    first_look,
    keeper::{FIRST_PAUSE, Keeper},
    primaries::{Care, Primaries, is_absence},
    refusal::permanent,
};
use crate::store::{Event, StoreError};

/// A command that has no answer after this long is given up, whether it waited for a connection or for the server; the
/// store may still have run it.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the first connection is tried for: Redis may be starting at the same time.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// What commands find: a connection, or why there is none; nothing while a new one is being made.
pub(super) type State = Option<RedisResult<Line>>;

/// The connections of the moment, and which ones they are.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) primaries: Arc<Primaries>,
    pub(super) number: u64,
}

/// The way to Redis, for everybody who has a clone of it. When the last one is gone the connections end.
#[derive(Clone)]
pub(super) struct Link {
    dialer: Arc<Dialer>,
    state: watch::Receiver<State>,
    /// The newest line that was found to be of no use.
    useless: watch::Sender<u64>,
}

impl Link {
    /// Connects and stays connected; what is heard goes to `events`.
    pub(super) async fn open(dialer: Dialer, events: broadcast::Sender<Event>) -> Result<Self, StoreError> {
        let dialer = Arc::new(dialer);
        let (primaries, pushes) = first(&dialer).await?;
        let told = first_look::examine(&primaries, dialer.durability(), &HashSet::new()).await?;
        let line = Line { primaries: Arc::new(primaries), number: 1 };
        let (state, seen) = watch::channel(Some(Ok(line.clone())));
        let (useless, of_no_use) = watch::channel(0);
        let keeper =
            Keeper { dialer: Arc::clone(&dialer), state, useless: of_no_use, events, told, pause: FIRST_PAUSE };
        tokio::spawn(keeper.keep(line, pushes));
        Ok(Self { dialer, state: seen, useless })
    }

    /// Sends a command to whoever holds this key, and gives its answer; an error of the server is one here too.
    pub(super) async fn send(&self, key: &str, command: &Cmd, care: Care) -> RedisResult<Value> {
        let limit = match care {
            Care::Plain => RESPONSE_TIMEOUT,
            Care::Durable => DURABLE_TIMEOUT,
        };
        let end = Instant::now() + limit;
        let mut spent = 0;
        loop {
            let line = self.line(spent, end).await?;
            let answer = timeout_at(end, line.primaries.send(key, command, care)).await;
            match self.judged(line.number, answer) {
                // Nothing was done, and the next line leads to the node that the key was given to.
                Err(error) if error.code() == Some("MOVED") => spent = line.number,
                // Likewise, if another node took over from it.
                Err(error) if is_absence(&error) && self.look_at(&line, end).await.is_err() => spent = line.number,
                settled => return settled,
            }
        }
    }

    /// Whether the servers that hold the data answer and take writes.
    pub(super) async fn look(&self) -> RedisResult<()> {
        let end = Instant::now() + RESPONSE_TIMEOUT;
        let line = self.line(0, end).await?;
        self.look_at(&line, end).await
    }

    async fn look_at(&self, line: &Line, end: Instant) -> RedisResult<()> {
        let answer = timeout_at(end, self.dialer.look(&line.primaries)).await;
        self.judged(line.number, answer)
    }

    /// Takes over the login of another configuration of the same set-up: at once on connections that are open, which a
    /// server may end when the old one does, and for all that come later.
    pub(super) async fn log_in_as(&self, config: &RedisConfig) -> Result<(), StoreError> {
        if !self.dialer.log_in_as(config)? {
            return Ok(());
        }
        info!("the login for Redis has changed; new connections use it");
        let Some(Ok(line)) = self.state.borrow().clone() else { return Ok(()) };
        let Some(command) = self.dialer.authentication() else { return Ok(()) };
        for node in line.primaries.nodes() {
            if let Err(error) = in_time(RESPONSE_TIMEOUT, node.authenticate(&command)).await {
                warn!(
                    "the Redis at {} does not take the changed login: {error}; open connections keep the one before",
                    node.endpoint
                );
            }
        }
        Ok(())
    }

    /// The servers that hold the data.
    pub(super) async fn primaries(&self) -> RedisResult<Arc<Primaries>> {
        self.line(0, Instant::now() + RESPONSE_TIMEOUT).await.map(|line| line.primaries)
    }

    /// A line that comes after this one.
    async fn line(&self, spent: u64, end: Instant) -> RedisResult<Line> {
        let settled = |known: &RedisResult<Line>| known.as_ref().map_or(true, |line| line.number > spent);
        // Nearly always there is one, and then nothing needs to be set up for waiting.
        if let Some(known) = self.state.borrow().as_ref().filter(|known| settled(known)) {
            return known.clone();
        }
        let mut state = self.state.clone();
        let known = timeout_at(end, state.wait_for(|state| state.as_ref().is_some_and(settled))).await;
        known.ok().and_then(|state| state.ok()?.clone()).unwrap_or_else(|| Err(timed_out()))
    }

    /// Passes an answer on, and has the connections replaced if that is what it calls for.
    fn judged<T>(&self, number: u64, answer: Result<RedisResult<T>, Elapsed>) -> RedisResult<T> {
        let answer = answer.unwrap_or_else(|_| Err(timed_out()));
        if answer.as_ref().is_err_and(wants_another) {
            self.useless.send_if_modified(|worst| std::mem::replace(worst, number.max(*worst)) < number);
        }
        answer
    }
}

async fn first(dialer: &Dialer) -> Result<(Primaries, Pushes), StoreError> {
    let (give_up, mut pause, mut told) = (Instant::now() + OPEN_PATIENCE, FIRST_PAUSE, false);
    let place = dialer.place();
    loop {
        let error = match dialer.dial().await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if let Some(why) = permanent(&error) {
            return Err(StoreError::Open(format!("the Redis at {place} cannot be used: {why}")));
        }
        let last = Instant::now() >= give_up;
        if (!told || last)
            && let Some(why) = dialer.wrong_protocol(last).await
        {
            return Err(StoreError::Open(format!("the Redis at {place} cannot be used: {why} ({error})")));
        }
        if last {
            let waited = OPEN_PATIENCE.as_secs();
            return Err(StoreError::Unavailable(format!(
                "the Redis at {place} was not reached within {waited} s: {error}; is it running, and is store.url right?"
            )));
        }
        if !std::mem::replace(&mut told, true) {
            warn!("cannot reach the Redis at {place}: {error}; trying again for {} s", OPEN_PATIENCE.as_secs());
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// Whether another connection may lead further: to the server that takes writes now, behind the same address or by
/// the word of those who know it.
fn wants_another(error: &RedisError) -> bool {
    if is_absence(error) {
        return false;
    }
    let elsewhere = ["READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "MOVED", "UNBLOCKED"];
    error.code().is_some_and(|code| elsewhere.contains(&code))
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::InvalidClientConfig
}

/// An error of Redis in our words. It carries no arguments, and so no secret.
pub(super) fn unavailable(error: RedisError) -> StoreError {
    match error.code() {
        Some("WRONGTYPE") => StoreError::Unreadable("a key has another type than ours".into()),
        // The scripts' own word.
        Some("UNREADABLE") => StoreError::Unreadable("a field has the wrong form".into()),
        Some(_) | None => StoreError::Unavailable(error.to_string()),
    }
}
