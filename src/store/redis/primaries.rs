//! The servers that hold the data, with a connection to each: one, or those of a cluster with their slots.

use std::sync::Arc;

use futures_util::{FutureExt, future::join_all};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::OnceCell;

use super::{
    address::{Endpoint, Kind},
    contact::{Contact, Pusher},
    durable::DurableLine,
    slot::{Slots, slot_of},
};

/// Who holds the data.
pub(super) struct Primaries {
    nodes: Vec<Node>,
    /// Absent where there is one server, which holds everything.
    slots: Option<Slots>,
}

/// One of them.
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    /// A node of a cluster that could not be reached has none yet. It is tried again by every command for its slots;
    /// the others are not disturbed by that.
    joined: OnceCell<Joined>,
    contact: Arc<Contact>,
    kind: Kind,
    pusher: Pusher,
}

/// The connections to one node.
struct Joined {
    connection: MultiplexedConnection,
    /// The one for durable writes, if more is asked of them than the node's own word.
    durable: Option<DurableLine>,
}

/// What is asked of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// The answer of whoever holds the key.
    Plain,
    /// That also the loss of that server, or of its memory, leaves it done, as far as that is configured.
    Durable,
}

impl Primaries {
    /// One server.
    pub(super) async fn one(
        contact: &Arc<Contact>,
        kind: &Kind,
        endpoint: Endpoint,
        pusher: &Pusher,
    ) -> RedisResult<Self> {
        let node = Node::new(contact, kind, endpoint, pusher);
        node.join().await?;
        Ok(Self { nodes: vec![node], slots: None })
    }

    /// The nodes of a cluster, of which some may be away; each row says which slots a node holds.
    pub(super) async fn many(
        contact: &Arc<Contact>,
        rows: &[(u16, u16, Endpoint)],
        pusher: &Pusher,
    ) -> RedisResult<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        let slots = Slots::new(rows.iter().map(|(first, last, endpoint)| {
            let known = nodes.iter().position(|node| node.endpoint == *endpoint);
            let index = known.unwrap_or_else(|| {
                nodes.push(Node::new(contact, &Kind::Cluster, endpoint.clone(), pusher));
                nodes.len() - 1
            });
            (*first, *last, index)
        }));
        let mut last = None;
        for failed in join_all(nodes.iter().map(Node::join)).await.into_iter().filter_map(Result::err) {
            last = Some(failed);
        }
        let none = || Err(last.unwrap_or_else(|| absent("the cluster has no node with slots".into())));
        if nodes.iter().any(|node| node.present().is_some()) { Ok(Self { nodes, slots: Some(slots) }) } else { none() }
    }

    /// All of them.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Those that are connected.
    pub(super) fn present(&self) -> impl DoubleEndedIterator<Item = (&Node, MultiplexedConnection)> {
        self.nodes.iter().filter_map(|node| Some((node, node.present()?)))
    }

    /// Sends a command to whoever holds the key. A slot that was given to another node is followed; nothing was done
    /// where it was before.
    pub(super) async fn send(&self, key: &str, command: &Cmd, care: Care) -> RedisResult<Value> {
        let node = self.holder(key)?;
        match node.send(command, care).await {
            Err(error) if error.code() == Some("MOVED") => match self.moved(key, node, &error) {
                Some(other) => other.send(command, care).await,
                None => Err(error),
            },
            settled => settled,
        }
    }

    fn holder(&self, key: &str) -> RedisResult<&Node> {
        let index = self.slots.as_ref().map_or(Some(0), |slots| slots.holder(slot_of(key)));
        index.and_then(|index| self.nodes.get(index)).ok_or_else(|| absent("no node holds the slot of a key".into()))
    }

    /// The node that a slot was given to, if it is one of these.
    fn moved(&self, key: &str, from: &Node, error: &RedisError) -> Option<&Node> {
        let mut to = Endpoint::read(error.redirect_node()?.0)?;
        if to.host.is_empty() {
            to.host.clone_from(&from.endpoint.host);
        }
        let index = self.nodes.iter().position(|node| node.endpoint == to)?;
        self.slots.as_ref()?.note(slot_of(key), index);
        self.nodes.get(index)
    }
}

impl Node {
    fn new(contact: &Arc<Contact>, kind: &Kind, endpoint: Endpoint, pusher: &Pusher) -> Self {
        let (contact, pusher) = (Arc::clone(contact), pusher.clone());
        Self { endpoint, joined: OnceCell::new(), contact, kind: kind.clone(), pusher }
    }

    /// The connection, if there is one.
    fn present(&self) -> Option<MultiplexedConnection> {
        self.joined.get().map(|joined| joined.connection.clone())
    }

    /// The connections, which are made if there are none.
    async fn join(&self) -> RedisResult<&Joined> {
        self.joined.get_or_try_init(|| self.meet().boxed()).await
    }

    async fn meet(&self) -> RedisResult<Joined> {
        let connection = self.contact.meet(&self.endpoint, &self.kind, &self.pusher).await?;
        let durable = match self.contact.durability() {
            None => None,
            Some(durability) => {
                let own = self.contact.meet(&self.endpoint, &self.kind, &self.pusher).await?;
                Some(DurableLine::new(own, durability))
            }
        };
        Ok(Joined { connection, durable })
    }

    /// Logs in anew on the connections that are open. Those that are made later do so by themselves.
    pub(super) async fn authenticate(&self, command: &Cmd) -> RedisResult<()> {
        let Some(joined) = self.joined.get() else { return Ok(()) };
        joined.connection.clone().send_packed_command(command).await?.extract_error()?;
        if let Some(durable) = &joined.durable {
            durable.send(command.clone()).await?;
        }
        Ok(())
    }

    /// Sends a command to this very node.
    pub(super) async fn send(&self, command: &Cmd, care: Care) -> RedisResult<Value> {
        let joined = match self.joined.get() {
            Some(joined) => joined,
            None => self.join().await.map_err(|error| absent(format!("{}: {error}", self.endpoint)))?,
        };
        match (care, &joined.durable) {
            (Care::Durable, Some(durable)) => durable.send(command.clone()).await,
            (Care::Durable, None) | (Care::Plain, _) => {
                joined.connection.clone().send_packed_command(command).await?.extract_error()
            }
        }
    }
}

/// Whether an error says that a node of a cluster is away.
pub(super) fn is_absence(error: &RedisError) -> bool {
    error.kind() == ErrorKind::ClusterConnectionNotFound
}

/// A node that is away while others are there: no reason to replace the connections to those.
fn absent(why: String) -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, "a node of the cluster is away", why).into()
}
