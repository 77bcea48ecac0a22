//! The real bearerd, as its operators run it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{
    PATIENCE, Process, eventually,
    free_port::{ATTEMPTS, free_port},
    metric, replace,
};

const FAILPOINTS: &str = "failpoints";

/// The build under test.
pub const BUILT: &str = env!("CARGO_BIN_EXE_bearerd");

/// A file of this name holds the system's authorities, as this process is told.
pub const AUTHORITIES: &str = "authorities.pem";

/// A running `bearerd serve`.
pub struct Bearerd {
    program: PathBuf,
    directory: TempDir,
    grpc: String,
    admin: String,
    process: Process,
}

impl Bearerd {
    /// Starts a replica and waits until it is ready. In the configuration `@LISTEN@` and `@ADMIN@` become free
    /// addresses, and `@DIR@` a directory of this replica's own, in which these files (name, content) stand.
    pub async fn start(config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_program(Path::new(BUILT), config, files).await
    }

    /// The same with another build of bearerd.
    pub async fn start_program(program: &Path, config: &str, files: &[(&str, &str)]) -> Self {
        let directory = TempDir::with_prefix("bearerd-").unwrap();
        fs::create_dir(directory.path().join(FAILPOINTS)).unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        Self::start_in(program.to_owned(), directory, config).await
    }

    /// Starts it again, after it ended, in the same directory: as a restart of the same machine would.
    pub async fn start_again(self, config: &str) -> Self {
        let program = self.program.clone();
        self.start_program_again(&program, config).await
    }

    /// Starts another build in the same directory, as an upgrade or a rollback would.
    pub async fn start_program_again(self, program: &Path, config: &str) -> Self {
        let Self { directory, mut process, .. } = self;
        process.kill();
        Self::start_in(program.to_owned(), directory, config).await
    }

    /// Where it serves gRPC, as a URL.
    pub fn grpc(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Where it serves probes and metrics, as a URL.
    pub fn admin(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The directory of this replica.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where tests lay the files that hold it in the middle of a refresh.
    pub fn failpoints(&self) -> PathBuf {
        self.directory().join(FAILPOINTS)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.err()
    }

    /// Writes another configuration, in which the same words are replaced, and nothing else.
    pub fn write_config(&self, config: &str) {
        write_config(self.directory(), config, &self.grpc, &self.admin);
    }

    /// The value of a metric, as [`super::metric`] tells it.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(&self.admin(), series).await
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_in(program: PathBuf, mut directory: TempDir, config: &str) -> Self {
        for _ in 0..ATTEMPTS {
            let (grpc, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
            let process = spawn(&program, directory.path(), config, &grpc, &admin);
            let mut bearerd = Self { program: program.clone(), process, directory, grpc, admin };
            if bearerd.is_ready().await {
                return bearerd;
            }
            let log = bearerd.log();
            assert!(log.contains("in use"), "bearerd ended: {log}");
            directory = bearerd.directory;
        }
        panic!("no ports for bearerd in {ATTEMPTS} attempts");
    }

    /// Waits for the readiness probe. False if the process ended instead.
    async fn is_ready(&mut self) -> bool {
        let probe = format!("{}/readyz", self.admin());
        let client = reqwest::Client::new();
        eventually(PATIENCE, async || {
            let answer = client.get(&probe).send().await;
            answer.is_ok_and(|answer| answer.status() == 200) || self.process.ended().is_some()
        })
        .await;
        self.process.ended().is_none()
    }
}

fn spawn(program: &Path, directory: &Path, config: &str, grpc: &str, admin: &str) -> Process {
    let file = write_config(directory, config, grpc, admin);
    let authorities = directory.join(AUTHORITIES);
    Process::start(
        Command::new(program)
            .args(["serve", "--config"])
            .arg(file)
            .env("BEARERD_FAILPOINTS", directory.join(FAILPOINTS))
            .envs(authorities.exists().then_some(("SSL_CERT_FILE", authorities))),
    )
}

fn write_config(directory: &Path, config: &str, grpc: &str, admin: &str) -> PathBuf {
    let config =
        config.replace("@LISTEN@", grpc).replace("@ADMIN@", admin).replace("@DIR@", directory.to_str().unwrap());
    let file = directory.join("bearerd.toml");
    replace(&file, &config);
    file
}

#[tokio::test]
async fn it_ends_when_it_is_asked_to_and_starts_again() {
    let config = r#"
        [server]
        listen = "@LISTEN@"
        admin_listen = "@ADMIN@"

        [store]
        path = "@DIR@/bearerd.redb"

        [credentials.maps]
        grant = "static"
        secret = { file = "@DIR@/secret" }
        scheme = "bearer"
    "#;
    let mut bearerd = Bearerd::start(config, &[("secret", "value")]).await;
    assert!(tonic::transport::Endpoint::new(bearerd.grpc()).unwrap().connect().await.is_ok());
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.process().ended().is_some_and(|status| status.success())).await;
    let database = bearerd.directory().join("bearerd.redb");
    assert!(database.exists());

    let bearerd = bearerd.start_again(config).await;
    assert_eq!(bearerd.directory(), database.parent().unwrap());
    let alive = reqwest::get(format!("{}/livez", bearerd.admin())).await.unwrap();
    assert_eq!(alive.status(), 200);
    eventually(PATIENCE, async || bearerd.log().contains("bearerd is ready")).await;
}
