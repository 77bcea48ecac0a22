//! Asks the nodes of a cluster who holds which slots.

use std::collections::HashSet;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{
    ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection, from_redis_value, pipe,
};

use crate::store::redis::{
    address::{Endpoint, Kind},
    contact::{CONNECT_TIMEOUT, Contact, greet, in_time, passing},
    primaries::Primaries,
};

/// Nodes that can be asked for the others.
pub(super) struct Seeds {
    configured: Vec<Endpoint>,
    /// The primaries of last time: those that are configured may be gone by now.
    known: Mutex<Vec<Endpoint>>,
}

/// The first slot and the last one, and who holds them.
type Row = (u16, u16, Endpoint);

/// The cluster as one of its nodes sees it.
struct View {
    /// Whether the cluster takes commands.
    sound: bool,
    /// Grows with every failover: of two views the higher is the newer one.
    epoch: u64,
    rows: Vec<Row>,
}

impl Seeds {
    pub(super) fn new(configured: Vec<Endpoint>) -> Self {
        Self { configured, known: Mutex::default() }
    }

    /// Who holds which slots. All are asked, because one that was cut off from the others may still name the former.
    pub(super) async fn find(&self, contact: &Contact) -> RedisResult<Vec<Row>> {
        let seeds: HashSet<Endpoint> = self.configured.iter().chain(self.known.lock().iter()).cloned().collect();
        let views = seeds.iter().map(|seed| in_time(CONNECT_TIMEOUT, ask(contact, seed)));
        let rows = newest(join_all(views).await)?.rows;
        let primaries: HashSet<&Endpoint> = rows.iter().map(|(_, _, endpoint)| endpoint).collect();
        *self.known.lock() = primaries.into_iter().cloned().collect();
        Ok(rows)
    }

    /// Looks whether the cluster takes commands, every node that was there still is, and nobody took over from one:
    /// the last writes of whoever is replaced may be lost.
    pub(super) async fn look(&self, primaries: &Primaries) -> RedisResult<()> {
        let asked = primaries.present().map(async |(node, mut connection)| view(&mut connection, &node.endpoint).await);
        let views: Vec<View> = join_all(asked).await.into_iter().collect::<RedisResult<_>>()?;
        let now = newest(views.into_iter().map(Ok))?;
        let now: HashSet<&Endpoint> = now.rows.iter().map(|(_, _, endpoint)| endpoint).collect();
        let before: HashSet<&Endpoint> = primaries.nodes().iter().map(|node| &node.endpoint).collect();
        if now == before { Ok(()) } else { Err(passing("the cluster has other primaries now")) }
    }
}

async fn ask(contact: &Contact, seed: &Endpoint) -> RedisResult<View> {
    let mut connection = contact.connect(seed, None).await?;
    greet(&mut connection, &Kind::Cluster).await?;
    view(&mut connection, seed).await
}

async fn view(connection: &mut MultiplexedConnection, from: &Endpoint) -> RedisResult<View> {
    let mut questions = pipe();
    questions.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let (info, rows): (String, Vec<Vec<Value>>) = questions.query_async(connection).await?;
    let field = |name| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
    Ok(View {
        sound: field("cluster_state:") == Some("ok"),
        epoch: field("cluster_current_epoch:").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        rows: rows.into_iter().filter_map(|row| read(row, from)).collect(),
    })
}

/// A row of `CLUSTER SLOTS`: first slot, last slot, the primary, replicas. A host that is not said is the one that was
/// asked; one that is "?" is not known.
fn read(row: Vec<Value>, from: &Endpoint) -> Option<Row> {
    let mut row = row.into_iter();
    let (first, last) = (from_redis_value(row.next()?).ok()?, from_redis_value(row.next()?).ok()?);
    let mut primary = from_redis_value::<Vec<Value>>(row.next()?).ok()?.into_iter();
    let host: Option<String> = from_redis_value(primary.next()?).ok()?;
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| from.host.clone());
    let port = from_redis_value(primary.next()?).ok()?;
    (host != "?").then_some((first, last, Endpoint { host, port }))
}

/// The newest view of those in which the cluster takes commands; else why there is none.
fn newest(views: impl IntoIterator<Item = RedisResult<View>>) -> RedisResult<View> {
    let (seen, failed): (Vec<_>, Vec<_>) = views.into_iter().partition(Result::is_ok);
    match seen.into_iter().flatten().max_by_key(|view| (view.sound, view.epoch)) {
        Some(view) if view.sound => Ok(view),
        Some(_) => Err((ErrorKind::Server(ServerErrorKind::ClusterDown), "the cluster takes no commands").into()),
        None => {
            // What a node says is worth more than that another does not answer.
            let told = failed.into_iter().filter_map(Result::err).max_by_key(|error: &RedisError| !error.is_io_error());
            Err(told.unwrap_or_else(|| passing("there is no node to ask")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sound: bool, epoch: u64) -> RedisResult<View> {
        Ok(View { sound, epoch, rows: Vec::new() })
    }

    #[test]
    fn the_newest_sound_view_counts() {
        let away = || Err(passing("refused"));
        let misfit = || Err((ErrorKind::InvalidClientConfig, "no cluster").into());
        for (views, expected) in [
            (vec![seen(true, 3), seen(true, 5), seen(true, 4)], Ok(5)),
            (vec![seen(true, 3), seen(false, 9), away()], Ok(3)),
            (vec![away(), seen(false, 9)], Err("takes no commands")),
            (vec![away(), misfit(), away()], Err("no cluster")),
            (vec![away()], Err("refused")),
            (vec![], Err("no node to ask")),
        ] {
            match (newest(views), expected) {
                (Ok(view), Ok(epoch)) => assert_eq!(view.epoch, epoch),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (other, expected) => panic!("{:?} is not {expected:?}", other.map(|view| view.epoch)),
            }
        }
    }

    #[test]
    fn rows_of_slots_are_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let row =
            |host: Value| vec![Value::Int(0), Value::Int(5460), Value::Array(vec![host, Value::Int(7000), text("id")])];
        let from = Endpoint { host: "asked".into(), port: 1 };
        for (host, expected) in [
            (text("10.0.0.1"), Some("10.0.0.1:7000")),
            (text("::1"), Some("[::1]:7000")),
            (text(""), Some("asked:7000")),
            (Value::Nil, Some("asked:7000")),
            (text("?"), None),
        ] {
            let read = read(row(host.clone()), &from).map(|(first, last, node)| (first, last, node.to_string()));
            assert_eq!(read, expected.map(|node| (0, 5460, node.to_owned())), "{host:?}");
        }
        for damaged in [vec![], vec![Value::Int(0)], vec![Value::Int(0), Value::Int(99_999), text("a")]] {
            assert_eq!(read(damaged, &from), None);
        }
    }
}
