//! Writes that count only when they have reached more than one server's memory.
//!
//! `WAIT` and `WAITAOF` speak of what was written before on the same connection, and nothing else is done on it until
//! they answer. So these writes have a connection of their own, on which all that came meanwhile wait together.

use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd, from_redis_value, pipe};
use tokio::sync::{mpsc, oneshot};

use super::contact::{in_time, passing};

/// How long servers may take to get a write to where it has to be. A server that writes to disk every second needs about
/// one.
const WAIT_LIMIT: Duration = Duration::from_millis(1_500);

/// When a write that has no answer is given up: it may have to let others before it go first.
pub(super) const DURABLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The most writes that wait together.
const MOST: usize = 1_024;

/// How far a write must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durability {
    replicas: u32,
    fsync: bool,
}

/// The connection for such writes.
pub(super) struct DurableLine(mpsc::Sender<Ask>);

struct Ask {
    command: Cmd,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Durability {
    /// What is configured; `None` if the server's own word is enough.
    pub(super) fn of(replicas: u32, fsync: bool) -> Option<Self> {
        (replicas > 0 || fsync).then_some(Self { replicas, fsync })
    }

    /// A command that a server answers at once if it can do what is asked for.
    pub(super) fn probe(self) -> Cmd {
        self.wait(0, Duration::from_millis(1))
    }

    fn wait(self, replicas: u32, limit: Duration) -> Cmd {
        let mut command = match self.fsync {
            true => cmd("WAITAOF"),
            false => cmd("WAIT"),
        };
        if self.fsync {
            command.arg(1);
        }
        command.arg(replicas).arg(limit.as_millis().to_string());
        command
    }

    /// Whether the answer says that it was enough.
    fn reached(self, answer: Value) -> RedisResult<()> {
        let (local, replicas): (i64, i64) = match self.fsync {
            true => from_redis_value(answer.extract_error()?)?,
            false => (0, from_redis_value(answer.extract_error()?)?),
        };
        if self.fsync && local < 1 {
            return Err(short("the server has not written it to disk yet".into()));
        }
        if replicas < i64::from(self.replicas) {
            return Err(short(format!("{replicas} of {} replicas have it yet", self.replicas)));
        }
        Ok(())
    }
}

impl DurableLine {
    /// Uses this connection for nothing else.
    pub(super) fn new(connection: MultiplexedConnection, durability: Durability) -> Self {
        let (asks, asked) = mpsc::channel(MOST);
        tokio::spawn(work(connection, durability, asked));
        Self(asks)
    }

    /// Sends a write, and gives its answer when it has come far enough.
    pub(super) async fn send(&self, command: Cmd) -> RedisResult<Value> {
        let gone = || passing("the connection for writes is lost");
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { command, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn work(mut connection: MultiplexedConnection, durability: Durability, mut asked: mpsc::Receiver<Ask>) {
    let mut batch = Vec::new();
    while asked.recv_many(&mut batch, MOST).await > 0 {
        // Whoever has given up does not want it any more.
        batch.retain(|ask: &Ask| !ask.answer.is_closed());
        let mut commands = pipe();
        for ask in &batch {
            commands.add_command(ask.command.clone());
        }
        commands.add_command(durability.wait(durability.replicas, WAIT_LIMIT));
        let sent = connection.send_packed_commands(&commands, 0, batch.len() + 1);
        match in_time(DURABLE_TIMEOUT, sent).await {
            Ok(answers) => settle(batch.drain(..), answers, durability),
            Err(error) => {
                batch.into_iter().for_each(|ask| drop(ask.answer.send(Err(error.clone()))));
                return;
            }
        }
    }
}

/// What a server refused is told as it is; what it did is told only if it came far enough.
fn settle(batch: impl Iterator<Item = Ask>, mut answers: Vec<Value>, durability: Durability) {
    let reached =
        answers.pop().ok_or_else(|| passing("an answer is missing")).and_then(|last| durability.reached(last));
    for (ask, answer) in batch.zip(answers) {
        let told = answer.extract_error().and_then(|answer| reached.clone().map(|()| answer));
        // Nobody may be waiting any more.
        let _ = ask.answer.send(told);
    }
}

/// It is written, and may still get there; the connection is a good one.
fn short(why: String) -> RedisError {
    (ErrorKind::Client, "a write is not durable yet", why).into()
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn durability(replicas: u32, fsync: bool) -> Durability {
        Durability::of(replicas, fsync).unwrap()
    }

    fn text(command: &Cmd) -> String {
        String::from_utf8_lossy(&command.get_packed_command())
            .split("\r\n")
            .skip(2)
            .step_by(2)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_server_is_asked_for_what_is_configured() {
        assert_eq!(Durability::of(0, false), None);
        for (replicas, fsync, command, probe) in [
            (2, false, "WAIT 2 1500", "WAIT 0 1"),
            (0, true, "WAITAOF 1 0 1500", "WAITAOF 1 0 1"),
            (1, true, "WAITAOF 1 1 1500", "WAITAOF 1 0 1"),
        ] {
            let wanted = durability(replicas, fsync);
            assert_eq!(
                (text(&wanted.wait(replicas, WAIT_LIMIT)), text(&wanted.probe())),
                (command.into(), probe.into())
            );
        }
    }

    #[test]
    fn only_enough_is_enough() {
        let aof = |local, replicas| Value::Array(vec![Value::Int(local), Value::Int(replicas)]);
        let refused = parse_redis_value(b"-UNBLOCKED demoted\r\n").unwrap();
        for (wanted, answer, enough) in [
            (durability(1, false), Value::Int(1), true),
            (durability(1, false), Value::Int(5), true),
            (durability(2, false), Value::Int(1), false),
            (durability(1, false), Value::Int(0), false),
            (durability(1, false), Value::Int(-1), false),
            (durability(1, false), Value::Nil, false),
            (durability(1, false), refused.clone(), false),
            (durability(0, true), aof(1, 0), true),
            (durability(0, true), aof(0, 3), false),
            (durability(1, true), aof(1, 1), true),
            (durability(1, true), aof(1, 0), false),
            (durability(1, true), aof(0, 1), false),
            (durability(1, true), Value::Int(1), false),
            (durability(0, true), refused, false),
        ] {
            assert_eq!(wanted.reached(answer.clone()).is_ok(), enough, "{wanted:?} {answer:?}");
        }
    }

    #[test]
    fn each_write_gets_its_own_answer() {
        let told = |last: Value| {
            let answers = vec![Value::Int(7), parse_redis_value(b"-NOSCRIPT none\r\n").unwrap(), Value::Int(9), last];
            let (asks, answered): (Vec<_>, Vec<_>) = (0..3)
                .map(|_| {
                    let (answer, answered) = oneshot::channel();
                    (Ask { command: cmd("X"), answer }, answered)
                })
                .unzip();
            settle(asks.into_iter(), answers, durability(1, false));
            answered.into_iter().map(|mut one| one.try_recv().unwrap().map_err(|error| error.code().map(str::to_owned)))
        };
        let none = Some("NOSCRIPT".to_owned());
        assert!(told(Value::Int(1)).eq([Ok(Value::Int(7)), Err(none.clone()), Ok(Value::Int(9))]));
        assert!(told(Value::Int(0)).eq([Err(None), Err(none), Err(None)]));
    }
}
