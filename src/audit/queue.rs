//! Between requests and the place where records go: bounded, and never in a request's way.

use std::{io, mem, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{record, sink::Sink};
use crate::telemetry::Telemetry;

/// How many bytes may wait to be written.
const CAPACITY: usize = 8 * 1024 * 1024;

/// How many of them refusals may take: whoever is allowed nothing must not be able to crowd out the others' records.
const FOR_REFUSALS: usize = CAPACITY / 2;

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
    telemetry: Arc<Telemetry>,
}

/// What both ends know.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
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
    telemetry: Arc<Telemetry>,
    /// The last write failed, perhaps in the middle of a line.
    broken: bool,
}

impl Queue {
    /// Starts the thread that writes.
    pub fn start(sink: Sink, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mut writer = Writer { sink, shared: Arc::clone(&shared), telemetry: Arc::clone(&telemetry), broken: false };
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, telemetry })
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
        let missing = match self.sink.write(&bytes) {
            Ok(()) => {
                self.succeeded(lost);
                0
            }
            Err(error) => {
                self.failed(&error, lines);
                // The gap that was to be told is not told yet.
                lost + lines
            }
        };
        let mut waiting = self.shared.waiting.lock();
        waiting.taken = 0;
        waiting.lost += missing;
        drop(waiting);
        for done in told {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }

    /// Tells what was lost, once the gap stands in the audit log, with the cause: only where writes succeeded all along did
    /// records come too fast.
    fn succeeded(&mut self, lost: u64) {
        if self.broken {
            info!(records = lost, "the audit log can be written again; these records were lost");
        } else if lost > 0 {
            warn!(records = lost, "audit records were lost: they come faster than they can be written");
        }
        self.broken = false;
    }

    fn failed(&mut self, error: &io::Error, lines: u64) {
        if !self.broken {
            warn!(%error, "the audit log cannot be written");
        }
        self.broken = true;
        self.telemetry.audit_lost.inc_by(lines);
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
        Queue { shared: Arc::default(), telemetry: Arc::default() }
    }

    #[test]
    fn a_full_queue_takes_nothing_and_refusals_leave_room_for_uses() {
        let queue = stuck();
        let line = [b'x'; 1024];
        for _ in 0..20_000 {
            queue.put(&line, Urgency::Refusal);
        }
        assert_eq!(queue.shared.waiting.lock().bytes.len(), FOR_REFUSALS);
        for _ in 0..20_000 {
            queue.put(&line, Urgency::Use);
        }
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
        let queue = Queue::start(Sink::file(&path).unwrap(), Arc::default()).unwrap();
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
        let queue = Queue::start(Sink::file(&path).unwrap(), Arc::default()).unwrap();
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
        let queue = Queue::start(Sink::file(&path).unwrap(), Arc::default()).unwrap();
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
}
