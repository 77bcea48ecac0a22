//! Between requests and the place where records go: bounded, and never in a request's way.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{record, sink::Sink};
use crate::telemetry::Telemetry;

/// How many bytes may wait to be written.
const CAPACITY: usize = 8 * 1024 * 1024;

/// How many of them refusals may take: whoever is allowed nothing must not be able to crowd out the others' records.
const FOR_REFUSALS: usize = CAPACITY / 2;

/// How many bytes are written at once.
const BATCH: usize = 64 * 1024;

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
    sender: Sender<Message>,
    load: Arc<Load>,
    telemetry: Arc<Telemetry>,
}

enum Message {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// What both ends know.
#[derive(Default)]
struct Load {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The far end.
struct Writer {
    sink: Sink,
    load: Arc<Load>,
    telemetry: Arc<Telemetry>,
    /// The last write failed, perhaps in the middle of a line.
    broken: bool,
}

impl Queue {
    /// Starts the thread that writes.
    pub fn start(sink: Sink, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let load = Arc::<Load>::default();
        let mut writer = Writer { sink, load: Arc::clone(&load), telemetry: Arc::clone(&telemetry), broken: false };
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, load, telemetry })
    }

    /// Takes a line, or counts it as lost.
    pub fn put(&self, line: Vec<u8>, urgency: Urgency) {
        let room = match urgency {
            Urgency::Use => CAPACITY,
            Urgency::Refusal => FOR_REFUSALS,
        };
        let length = line.len();
        let before = self.load.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length <= room && self.sender.send(Message::Line(line)).is_ok() {
            return;
        }
        self.load.bytes.fetch_sub(length, Ordering::Relaxed);
        self.load.lost.fetch_add(1, Ordering::Relaxed);
        self.telemetry.audit_lost.inc();
    }

    /// Has it told when everything before is written.
    pub fn flush(&self, done: oneshot::Sender<()>) {
        // Without a thread there is nobody to tell, which the other end of `done` sees.
        let _ = self.sender.send(Message::Flush(done));
    }
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Message>) {
        while let Ok(first) = receiver.recv() {
            let mut batch = Batch::default();
            batch.take(first);
            while batch.bytes.len() < BATCH
                && let Ok(next) = receiver.try_recv()
            {
                batch.take(next);
            }
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Batch) {
        let taken = batch.bytes.len();
        let lost = self.load.lost.swap(0, Ordering::Relaxed);
        let mut bytes = if self.broken { [b"\n", batch.bytes.as_slice()].concat() } else { batch.bytes };
        if lost > 0 {
            bytes.extend(record::lost(lost));
        }
        match self.sink.write(&bytes) {
            Ok(()) => self.succeeded(lost),
            Err(error) => {
                self.failed(&error, batch.lines);
                // The gap that was to be told is not told yet.
                self.load.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        self.load.bytes.fetch_sub(taken, Ordering::Relaxed);
        for done in batch.waiting {
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
        self.load.lost.fetch_add(lines, Ordering::Relaxed);
        self.telemetry.audit_lost.inc_by(lines);
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                self.bytes.extend(line);
                self.lines += 1;
            }
            Message::Flush(done) => self.waiting.push(done),
        }
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
    fn stuck() -> (Queue, Receiver<Message>) {
        let (sender, receiver) = channel();
        (Queue { sender, load: Arc::default(), telemetry: Arc::default() }, receiver)
    }

    #[test]
    fn a_full_queue_takes_nothing_and_refusals_leave_room_for_uses() {
        let (queue, receiver) = stuck();
        let line = vec![b'x'; 1024];
        for _ in 0..20_000 {
            queue.put(line.clone(), Urgency::Refusal);
        }
        assert_eq!(queue.load.bytes.load(Ordering::Relaxed), FOR_REFUSALS);
        for _ in 0..20_000 {
            queue.put(line.clone(), Urgency::Use);
        }
        assert_eq!(queue.load.bytes.load(Ordering::Relaxed), CAPACITY);
        assert_eq!(receiver.try_iter().count(), CAPACITY / 1024);
        assert_eq!(queue.telemetry.audit_lost.get(), 40_000 - (CAPACITY / 1024) as u64);
    }

    #[tokio::test]
    async fn a_gap_is_told_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let queue = Queue::start(Sink::file(&path).unwrap(), Arc::default()).unwrap();
        queue.put(vec![b'x'; CAPACITY + 1], Urgency::Use);
        queue.put(b"next\n".to_vec(), Urgency::Use);
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
        queue.put(b"unwritten\n".to_vec(), Urgency::Use);
        flushed(&queue).await;
        assert_eq!(queue.telemetry.audit_lost.get(), 1);
        fs::rename(&aside, directory.path().join("log")).unwrap();
        queue.put(b"next\n".to_vec(), Urgency::Use);
        flushed(&queue).await;
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("\nnext\n") && text.contains("\"records\":1}"), "{text}");
    }
}
