//! Redis servers that Sentinels watch over.

use std::{fs, process::Command, sync::Arc};

use ::redis::{FromRedisValue, RedisError};
use tempfile::TempDir;

use super::{Redis, command};
use crate::support::{
    PATIENCE, Process, eventually,
    free_port::{ATTEMPTS, free_port},
    shared::Shared,
};

/// The name under which the primary is watched.
pub const PRIMARY: &str = "mymaster";

/// A primary, its replica, and three Sentinels, of which two have to agree.
pub struct Watched {
    /// The servers; the first one begins as the primary.
    pub servers: Vec<Redis>,
    /// Those who watch.
    pub sentinels: Vec<Sentinel>,
}

impl Watched {
    /// Starts all of them and waits until they know each other.
    pub async fn start() -> Self {
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let primary = Redis::start_with(&at_once).await;
        let follow = ["--replicaof", "127.0.0.1", &primary.port().to_string()];
        let replica = Redis::start_with(&[at_once.as_slice(), &follow].concat()).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::start(&primary, 2, &[]).await);
        }
        let watched = Self { servers: vec![primary, replica], sentinels };
        eventually(PATIENCE, async || watched.is_ready().await).await;
        watched
    }

    /// One set-up for all who ask for it at the same time; it is not to be harmed.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Shared<Watched> = Shared::new();
        SHARED.get(Self::start).await
    }

    /// The address of the Sentinels.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/{PRIMARY}", hosts.join(","))
    }

    async fn is_ready(&self) -> bool {
        for sentinel in &self.sentinels {
            let Ok(facts) = sentinel.try_cli::<Vec<String>>(&["SENTINEL", "MASTER", PRIMARY]).await else {
                return false;
            };
            let fact = |name: &str| facts.iter().position(|fact| fact == name).map(|at| facts[at + 1].as_str());
            if (fact("num-slaves"), fact("num-other-sentinels")) != (Some("1"), Some("2")) {
                return false;
            }
        }
        self.servers[1].is_in_sync().await
    }
}

/// A Sentinel that watches one primary.
pub struct Sentinel {
    /// It writes its configuration anew here.
    _directory: TempDir,
    port: u16,
    password: Option<String>,
    process: Process,
}

impl Sentinel {
    /// Starts one with these lines of configuration too, and waits until it answers.
    pub async fn start(primary: &Redis, quorum: u32, lines: &[&str]) -> Self {
        let password = lines.iter().find_map(|line| line.strip_prefix("requirepass ")).map(str::to_owned);
        for _ in 0..ATTEMPTS {
            let directory = TempDir::with_prefix("bearerd-sentinel-").unwrap();
            let port = free_port();
            let text = format!(
                "bind 127.0.0.1\nport {port}\nsentinel monitor {PRIMARY} 127.0.0.1 {} {quorum}\n\
                 sentinel down-after-milliseconds {PRIMARY} 1000\nsentinel failover-timeout {PRIMARY} 5000\n{}\n",
                primary.port(),
                lines.join("\n")
            );
            fs::write(directory.path().join("sentinel.conf"), text).unwrap();
            let process = Process::start(
                Command::new("redis-server").current_dir(&directory).args(["sentinel.conf", "--sentinel"]),
            );
            let mut sentinel = Self { _directory: directory, port, password: password.clone(), process };
            if sentinel.answers().await {
                return sentinel;
            }
        }
        panic!("no port for a Sentinel in {ATTEMPTS} attempts");
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Runs one command.
    pub async fn cli<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_cli(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn try_cli<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, RedisError> {
        let login = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        command(&format!("redis://{login}127.0.0.1:{}", self.port), words).await
    }

    async fn answers(&mut self) -> bool {
        let ours = format!("process_id:{}\r\n", self.process.id());
        eventually(PATIENCE, async || {
            let answer = self.try_cli::<String>(&["INFO", "server"]).await;
            answer.is_ok_and(|info| info.contains(&ours)) || self.process.ended().is_some()
        })
        .await;
        self.process.ended().is_none()
    }
}
