//! Between requests and the place where records go: bounded, and never in a request's way.

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{OnFailure, record, sink::Sink};
use crate::telemetry::Telemetry;

/// How many bytes may wait to be written.
const CAPACITY: usize = 8 * 1024 * 1024;

/// How many of them refusals may take: whoever is allowed nothing must not be able to crowd out the others' records.
const FOR_REFUSALS: usize = CAPACITY / 2;

/// With more than this, new requests are refused where the audit log may not miss any. What is left is for those that are under way.
/// Refusals do not reach it.
const FULL: usize = CAPACITY / 4 * 3;

/// How long to wait before records that could not be written are written again.
const AGAIN: Duration = Duration::from_secs(1);

/// How many bytes are written at once as soon as they are there.
const BATCH: usize = 64 * 1024;

/// How long fewer wait for more: to wake a thread for each record would cost more than the record itself.
const LINGER: Duration = Duration::from_millis(10);

/// Which records are worth more where there is no room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A credential was used.
    Use,
    /// It was not.
    Refusal,
}

/// The near end of the queue.
pub(super) struct Queue {
    shared: Arc<Shared>,
    on_failure: OnFailure,
    telemetry: Arc<Telemetry>,
}

/// What both ends know.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// What was written last could not be.
    failing: AtomicBool,
    full: AtomicBool,
}

/// What waits to be written, or is being written.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// How many bytes the far end has taken and not written yet.
    taken: usize,
    /// How many lines are missing behind what waits.
    lost: u64,
    told: Vec<oneshot::Sender<()>>,
    /// The near end is gone.
    over: bool,
}

/// The far end.
struct Writer {
    sink: Sink,
    shared: Arc<Shared>,
    on_failure: OnFailure,
    telemetry: Arc<Telemetry>,
    /// The last write failed, perhaps in the middle of a line.
    broken: bool,
}

impl Queue {
    /// Starts the thread that writes.
    pub fn start(sink: Sink, on_failure: OnFailure, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (near, counted) = (Arc::clone(&shared), Arc::clone(&telemetry));
        telemetry.audit_up.set(1);
        let mut writer = Writer { sink, shared, on_failure, telemetry, broken: false };
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared: near, on_failure, telemetry: counted })
    }

    /// Whether new requests have to be refused.
    pub fn refuses(&self) -> bool {
        let (failing, full) = (&self.shared.failing, &self.shared.full);
        self.on_failure == OnFailure::Refuse && (failing.load(Ordering::Relaxed) || full.load(Ordering::Relaxed))
    }

    /// Takes a line, or counts it as lost.
    pub fn put(&self, line: &[u8], urgency: Urgency) {
        let room = match urgency {
            Urgency::Use => CAPACITY,
            Urgency::Refusal => FOR_REFUSALS,
        };
        let mut waiting = self.shared.waiting.lock();
        let before = waiting.bytes.len();
        if waiting.taken + before + line.len() > room {
            waiting.lost += 1;
            drop(waiting);
            self.telemetry.audit_lost.inc();
            return;
        }
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
        if waiting.taken + waiting.bytes.len() > FULL {
            self.shared.full.store(true, Ordering::Relaxed);
        }
        drop(waiting);
        // In between nobody waits for this: the far end looks by itself.
        let worth_writing = before < BATCH && before + line.len() >= BATCH;
        if before == 0 || worth_writing {
            self.shared.changed.notify_one();
        }
    }

    /// Has it told when everything before is written.
    pub fn flush(&self, done: oneshot::Sender<()>) {
        self.shared.waiting.lock().told.push(done);
        self.shared.changed.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.waiting.lock().over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// The next batch, as soon as it is worth writing; `None` when there will be no other.
    fn next(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.lock();
        while waiting.bytes.is_empty() && waiting.told.is_empty() && !waiting.over {
            self.changed.wait(&mut waiting);
        }
        let few = |waiting: &mut Waiting| waiting.bytes.len() < BATCH && waiting.told.is_empty() && !waiting.over;
        self.changed.wait_while_for(&mut waiting, few, LINGER);
        if waiting.bytes.is_empty() && waiting.told.is_empty() {
            return None;
        }
        let over = waiting.over;
        let batch = mem::take(&mut *waiting);
        (waiting.taken, waiting.over) = (batch.bytes.len(), over);
        Some(batch)
    }
}

impl Shared {
    /// Waits so long. False if somebody waits for all to be written, or no more will come: the process ends.
    fn goes_on(&self, wait: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        self.changed.wait_while_for(&mut waiting, |waiting| waiting.told.is_empty() && !waiting.over, wait);
        waiting.told.is_empty() && !waiting.over
    }
}

impl Writer {
    fn run(&mut self) {
        while let Some(batch) = self.shared.next() {
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Waiting) {
        let Waiting { bytes, lines, taken: _, lost, told, over: _ } = batch;
        let mut bytes = if self.broken { [b"\n", bytes.as_slice()].concat() } else { bytes };
        if lost > 0 {
            bytes.extend(record::lost(lost));
        }
        let missing = if self.try_to_write(&bytes, told.is_empty()) {
            self.succeeded(lost);
            0
        } else {
            self.telemetry.audit_lost.inc_by(lines);
            // The gap that was to be told is not told yet.
            lost + lines
        };
        let mut waiting = self.shared.waiting.lock();
        waiting.taken = 0;
        waiting.lost += missing;
        self.shared.full.store(waiting.bytes.len() > FULL, Ordering::Relaxed);
        drop(waiting);
        for done in told {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }

    /// Whether it could be written. Where none may be missing it is tried until it can be, or until the process ends: `patient` says
    /// that nobody waits for the end of this yet. What was written in part is written again as a whole.
    fn try_to_write(&mut self, bytes: &[u8], patient: bool) -> bool {
        let mut result = self.sink.write(bytes);
        while let Err(error) = &result {
            self.failed(error);
            if self.on_failure == OnFailure::Serve || !patient || !self.shared.goes_on(AGAIN) {
                return false;
            }
            result = self.sink.write(&[b"\n", bytes].concat());
        }
        true
    }

    /// Tells what was lost, once the gap stands in the audit log, with the cause: only where writes succeeded all along did
    /// records come too fast.
    fn succeeded(&mut self, lost: u64) {
        if self.broken {
            info!(records = lost, "the audit log can be written again; these records were lost");
        } else if lost > 0 {
            warn!(records = lost, "audit records were lost: they come faster than they can be written");
        }
        self.is_broken(false);
    }

    fn failed(&mut self, error: &io::Error) {
        if !self.broken {
            match self.on_failure {
                OnFailure::Serve => {
                    warn!(%error, "the audit log cannot be written; its records are lost until it can be");
                }
                OnFailure::Refuse => {
                    warn!(%error, "the audit log cannot be written; requests are refused until it can be");
                }
            }
        }
        self.is_broken(true);
    }

    fn is_broken(&mut self, broken: bool) {
        self.broken = broken;
        self.shared.failing.store(broken, Ordering::Relaxed);
        self.telemetry.audit_up.set(i64::from(!broken));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn flushed(queue: &Queue) {
        let (done, written) = oneshot::channel();
        queue.flush(done);
        written.await.unwrap();
    }

    /// A queue whose thread stands still, as one does behind a disk that does not answer.
    fn stuck() -> Queue {
        Queue { shared: Arc::default(), on_failure: OnFailure::Refuse, telemetry: Arc::default() }
    }

    #[test]
    fn a_full_queue_takes_nothing_and_refusals_leave_room_for_uses() {
        let queue = stuck();
        let line = [b'x'; 1024];
        for _ in 0..20_000 {
            queue.put(&line, Urgency::Refusal);
        }
        assert_eq!(queue.shared.waiting.lock().bytes.len(), FOR_REFUSALS);
        assert!(!queue.refuses(), "whoever is allowed nothing makes no other request be refused");
        for _ in 0..20_000 {
            queue.put(&line, Urgency::Use);
        }
        assert!(queue.refuses(), "a full queue takes no record of a new request");
        let taken = queue.shared.next().unwrap();
        assert_eq!((taken.bytes.len(), taken.lines), (CAPACITY, (CAPACITY / 1024) as u64));
        assert_eq!(queue.telemetry.audit_lost.get(), 40_000 - taken.lines);
        queue.put(&line, Urgency::Use);
        assert_eq!(queue.shared.waiting.lock().lines, 0, "what is taken and not written takes its room still");
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let queue = Queue::start(Sink::file(&path).unwrap(), OnFailure::Serve, Arc::default()).unwrap();
        queue.put(b"last\n", Urgency::Use);
        let shared = Arc::downgrade(&queue.shared);
        drop(queue);
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "last\n");
    }

    #[tokio::test]
    async fn a_gap_is_told_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let queue = Queue::start(Sink::file(&path).unwrap(), OnFailure::Serve, Arc::default()).unwrap();
        queue.put(&vec![b'x'; CAPACITY + 1], Urgency::Use);
        queue.put(b"next\n", Urgency::Use);
        flushed(&queue).await;
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("next\n{") && text.contains("\"event\":\"lost\"") && text.contains("\"records\":1}"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_counted_and_the_next_line_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("log/audit"), directory.path().join("aside"));
        fs::create_dir(directory.path().join("log")).unwrap();
        let queue = Queue::start(Sink::file(&path).unwrap(), OnFailure::Serve, Arc::default()).unwrap();
        fs::rename(directory.path().join("log"), &aside).unwrap();
        queue.put(b"unwritten\n", Urgency::Use);
        flushed(&queue).await;
        assert_eq!(queue.telemetry.audit_lost.get(), 1);
        fs::rename(&aside, directory.path().join("log")).unwrap();
        queue.put(b"next\n", Urgency::Use);
        flushed(&queue).await;
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("\nnext\n") && text.contains("\"records\":1}"), "{text}");
    }

    /// S7: a disk that is full took the records, and requests went on.
    #[tokio::test]
    async fn where_none_may_be_missing_records_wait_and_requests_are_refused_until_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("log/audit"), directory.path().join("aside"));
        fs::create_dir(directory.path().join("log")).unwrap();
        let queue = Queue::start(Sink::file(&path).unwrap(), OnFailure::Refuse, Arc::default()).unwrap();
        fs::rename(directory.path().join("log"), &aside).unwrap();
        queue.put(b"first\n", Urgency::Use);
        while !queue.refuses() {
            tokio::task::yield_now().await;
        }
        queue.put(b"second\n", Urgency::Use);
        fs::rename(&aside, directory.path().join("log")).unwrap();
        while queue.refuses() {
            tokio::task::yield_now().await;
        }
        flushed(&queue).await;
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, ["first", "second"], "none is missing");
        assert_eq!((queue.telemetry.audit_lost.get(), queue.telemetry.audit_up.get()), (0, 1));
    }

    #[tokio::test]
    async fn an_end_waits_for_no_audit_log_that_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        let sink = Sink::file(&directory.path().join("log/audit")).unwrap();
        let queue = Queue::start(sink, OnFailure::Refuse, Arc::default()).unwrap();
        fs::rename(directory.path().join("log"), directory.path().join("aside")).unwrap();
        queue.put(b"first\n", Urgency::Use);
        while !queue.refuses() {
            tokio::task::yield_now().await;
        }
        flushed(&queue).await;
        assert_eq!(queue.telemetry.audit_lost.get(), 1, "what is lost is counted");
    }
}
