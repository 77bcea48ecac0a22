//! Who used what: one record for each rpc whose message could be read, whatever came of it, as a line of JSON.
//!
//! A record is written when the rpc is over, also when its caller went away in the middle. It is handed to a thread of
//! its own, so that a slow disk holds up no request; what that thread cannot take is counted and told.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use self::{
    queue::{Queue, Urgency},
    record::Record,
    refusals::{Refusals, Sender},
    sink::Sink,
};
use crate::{
    caller::Caller,
    identity::Address,
    policy::{Denied, Permit, Request, StorePermit},
    store::Names,
    telemetry::Telemetry,
    trace::TraceId,
};

mod line;
mod queue;
mod record;
mod refusals;
mod sink;
mod time;

pub use self::record::CANCELLED;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, between the lines of the log.
    Stderr,
    /// A file that is appended to, and opened again when it was moved away.
    File(PathBuf),
}

/// What is done while records cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Requests are served; records that are missing are counted.
    Serve,
    /// New requests are refused. Records wait until they can be written.
    Refuse,
}

/// The audit log's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where records go.
    pub output: Output,
    /// What is done while they cannot go there.
    pub on_failure: OnFailure,
}

/// What came of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configured {
    /// The process was started with it.
    Started,
    /// It replaced the one before.
    Reloaded,
    /// It was refused; the one before stays in force.
    Refused,
}

/// No audit log can be kept.
#[derive(Debug, thiserror::Error)]
#[error("audit.output: {0}")]
pub struct AuditError(String);

/// The audit log. Cloning it is cheap.
#[derive(Clone)]
pub struct Audit {
    on: Option<Arc<On>>,
}

struct On {
    queue: Queue,
    names: Names,
    refusals: Refusals,
    under_way: TaskTracker,
}

/// The record of one rpc, which is still under way. Clones are the same record; it is written when the last one goes.
#[derive(Clone)]
pub struct Entry {
    draft: Option<Arc<Draft>>,
}

struct Draft {
    on: Arc<On>,
    record: Mutex<Record>,
    address: Option<IpAddr>,
    _under_way: TaskTrackerToken,
}

impl Audit {
    /// Opens the audit log. Subjects appear by the names that this store has for them.
    ///
    /// # Errors
    ///
    /// [`AuditError`], if the file cannot be opened for appending, or no thread can be had.
    pub fn start(config: &AuditConfig, names: &Names, telemetry: Arc<Telemetry>) -> Result<Self, AuditError> {
        let sink = match &config.output {
            Output::Off => return Ok(Self { on: None }),
            Output::Stdout => Sink::Stdout,
            Output::Stderr => Sink::Stderr,
            Output::File(path) => {
                Sink::file(path).map_err(|error| AuditError(format!("{}: {error}", path.display())))?
            }
        };
        let queue = Queue::start(sink, config.on_failure, telemetry).map_err(|error| AuditError(error.to_string()))?;
        let (names, refusals) = (names.clone(), Refusals::default());
        Ok(Self { on: Some(Arc::new(On { queue, names, refusals, under_way: TaskTracker::new() })) })
    }

    /// Whether new requests have to be refused, because their records could not be written.
    pub fn refuses(&self) -> bool {
        self.on.as_ref().is_some_and(|on| on.queue.refuses())
    }

    /// Begins the record of an rpc.
    pub fn begin(&self, rpc: &'static str, from: Option<&Address>, trace: TraceId) -> Entry {
        let draft = |on: &Arc<On>| {
            let record = Mutex::new(Record::new(rpc, from.map(|from| Arc::clone(&from.shown)), trace));
            let address = from.map(|from| from.ip);
            Arc::new(Draft { on: Arc::clone(on), record, address, _under_way: on.under_way.token() })
        };
        Entry { draft: self.on.as_ref().map(draft) }
    }

    /// Notes what came of a configuration; `digest` is the SHA-256 of its text, where it could be read.
    pub fn configured(&self, what: Configured, digest: Option<&str>) {
        if let Some(on) = &self.on {
            on.queue.put(&record::configured(what, digest), Urgency::Use);
        }
    }

    /// Writes the counts of refusals whose time is over. To be called every few seconds.
    pub fn tick(&self) {
        self.on.iter().for_each(|on| on.tell_refusals(false));
    }

    /// Waits, at the very end, until every rpc that was begun is over and its record written, at most this long. Tells
    /// whether all are. Half of the time is left for writing, also if an rpc does not end.
    pub async fn flush(&self, limit: Duration) -> bool {
        let Some(on) = &self.on else { return true };
        let since = Instant::now();
        on.under_way.close();
        let over = timeout_at(since + limit / 2, on.under_way.wait()).await.is_ok();
        on.tell_refusals(true);
        let (done, written) = oneshot::channel();
        on.queue.flush(done);
        matches!(timeout_at(since + limit, written).await, Ok(Ok(()))) && over
    }
}

impl On {
    fn tell_refusals(&self, all: bool) {
        for line in self.refusals.take(all) {
            self.queue.put(&line, Urgency::Use);
        }
    }
}

impl Entry {
    /// Notes who calls.
    pub fn calls(&self, caller: &Caller) {
        self.note(|record| record.caller(caller));
    }

    /// Notes what is asked for, before it is decided.
    pub fn asks(&self, request: &Request) {
        if let Some(draft) = &self.draft {
            draft.record.lock().asked(request, &draft.on.names);
        }
    }

    /// Notes that the policy allows it.
    pub fn allowed(&self, permit: &Permit) {
        self.note(|record| record.allowed(permit));
    }

    /// Notes that it is about the store as a whole, before it is decided.
    pub fn asks_for_the_store(&self) {
        self.note(Record::asked_for_the_store);
    }

    /// Notes that the policy allows it.
    pub fn allowed_the_store(&self, permit: &StorePermit) {
        self.note(|record| record.allowed_by(permit.row()));
    }

    /// Notes that the policy denies it.
    pub fn denied(&self, denied: &Denied) {
        self.note(|record| record.denied(denied));
    }

    /// Notes the generation that was used, or made.
    pub fn used(&self, generation: u64) {
        self.note(|record| record.generation = Some(generation));
    }

    /// Notes what the upstream answered, and how often it was asked.
    pub fn answered(&self, status: u16, attempts: u32) {
        self.note(|record| (record.status, record.attempts) = (Some(status), Some(attempts)));
    }

    /// Notes how it ended: `OK`, or the reason of the error.
    pub fn ends(&self, result: &'static str) {
        self.note(|record| record.result = result);
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        if let Some(draft) = &self.draft {
            change(&mut draft.record.lock());
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let record = self.record.get_mut();
        if record.is_allowed() {
            self.on.queue.put(&record.line(), Urgency::Use);
            return;
        }
        let sender = record.proven().map_or_else(|| Sender::unproven(self.address), |name| Sender::Caller(name.into()));
        if self.on.refusals.admits(sender) {
            self.on.queue.put(&record.line(), Urgency::Refusal);
        }
    }
}
