//! A real Redis server, and several of them together.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ::redis::{AsyncConnectionConfig, Client, FromRedisValue, PushInfo, PushKind, RedisError, cmd};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{
    PATIENCE, Process, eventually,
    free_port::{ATTEMPTS, free_port},
};

pub use self::{
    cluster::Cluster,
    sentinel::{Sentinel, Watched},
};

mod cluster;
mod sentinel;

/// A Redis server on a port of its own. Every write is in its append-only file before it is acknowledged, so that the
/// server can be killed and started again as it was.
pub struct Redis {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Process,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with these arguments too, in which `@PORT@` becomes one more free port, the same one everywhere.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::run("redis-server".into(), settings).await
    }

    /// Starts a Valkey server with these arguments too; it is newer than the Redis of Debian.
    pub async fn start_valkey(settings: &[&str]) -> Self {
        Self::run(valkey(), settings).await
    }

    async fn run(program: PathBuf, settings: &[&str]) -> Self {
        for _ in 0..ATTEMPTS {
            let directory = TempDir::with_prefix("bearerd-redis-").unwrap();
            let (port, second) = (free_port(), free_port().to_string());
            let settings: Vec<String> = settings.iter().map(|word| word.replace("@PORT@", &second)).collect();
            let process = spawn(&program, &directory, port, &settings);
            let mut redis = Self { program: program.clone(), directory, port, settings, process };
            if redis.answers().await {
                return redis;
            }
        }
        panic!("no port for {program:?} in {ATTEMPTS} attempts");
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What follows one of the arguments that it was started with.
    pub fn setting(&self, name: &str) -> &str {
        let at = self.settings.iter().position(|word| word == name);
        &self.settings[at.unwrap_or_else(|| panic!("{name} was not given")) + 1]
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs one command on a connection of its own, as `redis-cli` does.
    pub async fn cli<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_cli(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Likewise, of a server that may be away or busy; nobody is told.
    pub async fn attempt(&self, words: &[&str]) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.try_cli::<::redis::Value>(words)).await;
    }

    /// The names of all keys.
    pub async fn keys(&self) -> Vec<String> {
        self.cli(&["KEYS", "*"]).await
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts a killed server again, on the same port and with what it had stored.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.program, &self.directory, self.port, &self.settings);
        assert!(self.answers().await, "the port is taken: {:?}", self.process);
    }

    /// A copy of the server's files, which must not be changing: of a server that is killed.
    pub fn snapshot(&self) -> TempDir {
        let copy = TempDir::with_prefix("bearerd-redis-then-").unwrap();
        copy_all(self.directory.path(), copy.path());
        copy
    }

    /// Puts a killed server's files back to what they were.
    pub fn roll_back(&mut self, then: &TempDir) {
        let directory = TempDir::with_prefix("bearerd-redis-").unwrap();
        copy_all(then.path(), directory.path());
        self.directory = directory;
    }

    /// All that stands in the server's files: everything that was ever written to it, key names included.
    pub fn files(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in directory.read_dir().unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => directories.push(entry.path()),
                    false => bytes.append(&mut std::fs::read(entry.path()).unwrap()),
                }
            }
        }
        bytes
    }

    /// Every command that changed something since the server was first started, in order.
    pub fn changes(&self) -> Vec<Vec<String>> {
        let directory = self.directory.path().join("appendonlydir");
        let mut files: Vec<_> = directory.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
        files.sort();
        // One that begins to follow another server throws its files away.
        let bytes: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap_or_default()).collect();
        let mut rest = bytes.as_slice();
        std::iter::from_fn(|| next_command(&mut rest)).collect()
    }

    /// Waits for an answer of this very process; another may have been quicker to take the port. False if the process
    /// ended instead.
    async fn answers(&mut self) -> bool {
        let ours = format!("process_id:{}\r\n", self.process.id());
        eventually(PATIENCE, async || {
            let answer: Result<String, RedisError> = self.try_cli(&["INFO"]).await;
            // It answers this one while it still reads its files.
            let is_there = |info: String| info.contains(&ours) && info.contains("\nloading:0\r\n");
            answer.is_ok_and(is_there) || self.process.ended().is_some()
        })
        .await;
        self.process.ended().is_none()
    }

    /// Whether it is a primary, also while others may not know it yet. False of one that does not answer.
    pub async fn is_primary(&self) -> bool {
        let info = self.try_cli::<String>(&["INFO", "replication"]).await.unwrap_or_default();
        info.contains("role:master")
    }

    /// Whether this replica has what its primary has.
    pub async fn is_in_sync(&self) -> bool {
        let info = self.try_cli::<String>(&["INFO", "replication"]).await.unwrap_or_default();
        info.contains("master_link_status:up") && info.contains("master_sync_in_progress:0")
    }

    /// What is said on a channel from here on.
    pub async fn listen(&self, channel: &str) -> mpsc::UnboundedReceiver<String> {
        let (sender, mut pushes) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let client = Client::open(format!("{}?protocol=resp3", self.url())).unwrap();
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        connection.subscribe(channel).await.unwrap();
        let (heard, messages) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(PushInfo { kind, data }) = pushes.recv().await {
                if kind == PushKind::Message && heard.send(::redis::from_redis_value_ref(&data[1]).unwrap()).is_err() {
                    break;
                }
            }
            drop(connection);
        });
        messages
    }

    /// Runs one command, which the server may refuse.
    pub async fn try_cli<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, RedisError> {
        command(&self.url(), words).await
    }
}

async fn command<T: FromRedisValue>(url: &str, words: &[&str]) -> Result<T, RedisError> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
}

fn copy_all(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where `scripts/setup` puts it; the directories in between have versions and platforms in their names.
fn valkey() -> PathBuf {
    let mut directories = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/valkey/lib"))];
    while let Some(directory) = directories.pop() {
        for path in directory.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => directories.push(path),
                false if path.ends_with("valkey-server") => return path,
                false => {}
            }
        }
    }
    panic!("there is no valkey-server; run scripts/setup once");
}

fn spawn(program: &Path, directory: &TempDir, port: u16, settings: &[String]) -> Process {
    Process::start(
        Command::new(program)
            .current_dir(directory)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(settings),
    )
}

/// Takes one command off an append-only file, if a whole one is there.
fn next_command(rest: &mut &[u8]) -> Option<Vec<String>> {
    let words = number(rest, b'*')?;
    let mut word = || {
        let length = number(rest, b'$')?;
        let text = rest.get(..length)?;
        *rest = rest.get(length + 2..)?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    (0..words).map(|_| word()).collect()
}

/// Takes a line with one number off.
fn number(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let number = std::str::from_utf8(rest.get(..end)?.strip_prefix(&[kind])?).ok()?.parse().ok()?;
    *rest = &rest[end + 2..];
    Some(number)
}

#[tokio::test]
async fn a_killed_server_comes_back_as_it_was() {
    let mut redis = Redis::start().await;
    let _: () = redis.cli(&["SET", "name", "value-in-the-file"]).await;
    redis.kill();
    assert!(redis.try_cli::<String>(&["PING"]).await.is_err());
    redis.start_again().await;
    assert_eq!(redis.cli::<String>(&["GET", "name"]).await, "value-in-the-file");
    assert_eq!(redis.keys().await, ["name"]);
    assert!(String::from_utf8_lossy(&redis.files()).contains("value-in-the-file"));
    let changes: Vec<String> = redis.changes().into_iter().map(|words| words.join(" ")).collect();
    assert_eq!(changes.last().unwrap(), "SET name value-in-the-file", "{changes:?}");
}
