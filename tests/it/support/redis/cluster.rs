//! A Redis Cluster.

use std::{process::Command, sync::Arc};

use ::redis::{FromRedisValue, Value};

use super::Redis;
use crate::support::{PATIENCE, Process, eventually, shared::Shared};

/// Three primaries, each with a replica.
pub struct Cluster {
    /// Its nodes; the first three begin as primaries.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts one and waits until every node knows that it is complete.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one whose nodes have these arguments too.
    pub async fn start_with(settings: &[&str]) -> Self {
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", "@PORT@"];
        let own = [own.as_slice(), &["--repl-diskless-sync-delay", "0"], settings].concat();
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Redis::start_with(&own).await);
        }
        let cluster = Self { nodes };
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut create = Process::start(
            Command::new("redis-cli")
                .args(["--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"])
                .args(addresses),
        );
        eventually(PATIENCE, async || create.ended().is_some()).await;
        assert!(create.ended().is_some_and(|status| status.success()), "{create:?}");
        eventually(PATIENCE, async || cluster.is_complete().await).await;
        cluster
    }

    /// One set-up for all who ask for it at the same time; it is not to be harmed.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Shared<Cluster> = Shared::new();
        SHARED.get(Self::start).await
    }

    /// The address of these nodes of it.
    pub fn url_of(&self, nodes: &[usize]) -> String {
        let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", self.nodes[*node].port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The address of the three that begin as primaries.
    pub fn url(&self) -> String {
        self.url_of(&[0, 1, 2])
    }

    /// Who holds a key.
    pub async fn holder(&self, key: &str) -> usize {
        for (number, node) in self.nodes.iter().enumerate() {
            // All others would send us there.
            if node.try_cli::<i64>(&["EXISTS", key]).await.is_ok() {
                return number;
            }
        }
        panic!("nobody holds {key}");
    }

    /// The replica of a node.
    pub async fn replica_of(&self, node: usize) -> usize {
        let rows = self.replicas_of(node).await;
        let is_in = |redis: &Redis| rows.iter().any(|row| row.contains(&format!(":{}@", redis.port())));
        self.nodes.iter().position(is_in).expect("a replica")
    }

    /// Runs one command on every primary.
    pub async fn on_primaries<T: FromRedisValue>(&self, words: &[&str]) -> Vec<T> {
        let mut answers = Vec::new();
        for node in &self.nodes {
            let role: Vec<Value> = node.cli(&["ROLE"]).await;
            if role[0] == Value::BulkString(b"master".to_vec()) {
                answers.push(node.cli(words).await);
            }
        }
        answers
    }

    async fn is_complete(&self) -> bool {
        for (number, node) in self.nodes.iter().enumerate() {
            let info: String = node.cli(&["CLUSTER", "INFO"]).await;
            let known = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6");
            // A primary has to know its replica; `CLUSTER SLOTS` would tell of it only after the first write.
            let paired = match number < 3 {
                true => self.replicas_of(number).await.len() == 1,
                false => node.is_in_sync().await,
            };
            if !known || !paired {
                return false;
            }
        }
        true
    }

    async fn replicas_of(&self, node: usize) -> Vec<String> {
        let id: String = self.nodes[node].cli(&["CLUSTER", "MYID"]).await;
        self.nodes[node].cli(&["CLUSTER", "REPLICAS", &id]).await
    }
}
