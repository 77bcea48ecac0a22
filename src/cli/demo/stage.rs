//! What the tour plays on: two sandboxes, and bearerd with a configuration that names them.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    super::output::{Exit, Failure},
    scratch::Scratch,
};
use crate::{
    app::App,
    config::{self, Config},
    sandbox::{DEMO_API_KEY, DEMO_CONFIDENTIAL, DEMO_PUBLIC, DEMO_SECRET, Options, Sandbox},
};

/// The credential whose refresh tokens are good for one use each.
pub const DEMO: &str = "demo";
/// The credential whose tokens end after seconds.
pub const SHORT_LIVED: &str = "short-lived";
/// The credential that is an API key.
pub const API_KEY: &str = "api-key";

/// How long the tokens of [`SHORT_LIVED`] live: long enough for a slow machine to replace them in time.
pub const SHORT_LIFE: Duration = Duration::from_secs(4);

/// How long the provider thinks before it answers, as one on the internet would: what comes from memory is then easy to
/// tell from what does not.
pub const LATENCY: Duration = Duration::from_millis(100);

/// Everything that runs during the demonstration.
pub struct Stage {
    /// The provider and API of [`DEMO`] and [`API_KEY`].
    pub sandbox: Sandbox,
    /// The provider of [`SHORT_LIVED`].
    pub hasty: Sandbox,
    /// The first refresh token of [`DEMO`].
    pub first_refresh_token: String,
    grpc: SocketAddr,
    app: App,
    scratch: Scratch,
}

impl Stage {
    /// Starts everything. What comes out accepts connections.
    pub async fn set() -> Result<Self, Failure> {
        let sandbox = sandbox(Options::default()).await?;
        let hasty = sandbox_of_short_lives().await?;
        let first_refresh_token = sandbox.mint_refresh_token("the demo's owner");
        let scratch = Scratch::new().map_err(|error| cannot("make a temporary directory", &error))?;
        let config = configure(&scratch, &sandbox, &hasty, &first_refresh_token)?;
        let app = App::start(config).await.map_err(|error| cannot("start bearerd", &error))?;
        let grpc = app.grpc.ok_or_else(|| cannot("find bearerd", &"it listens on no address"))?;
        Ok(Self { sandbox, hasty, first_refresh_token, grpc, app, scratch })
    }

    /// Where bearerd serves gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where bearerd serves probes and metrics.
    pub fn admin(&self) -> SocketAddr {
        self.app.admin
    }

    /// The configuration that bearerd runs with.
    pub fn config_file(&self) -> PathBuf {
        self.scratch.path().join(CONFIG_FILE)
    }

    /// Runs on until `end`, then ends everything in order and removes every file.
    pub async fn strike(self, end: impl Future<Output = ()>) -> Result<(), Failure> {
        let ended = self.app.run_until(end).await.map_err(|error| cannot("go on", &error));
        self.sandbox.stop().await;
        self.hasty.stop().await;
        ended
    }
}

async fn sandbox_of_short_lives() -> Result<Sandbox, Failure> {
    sandbox(Options { access_token_lifetime: SHORT_LIFE, ..Options::default() }).await
}

async fn sandbox(options: Options) -> Result<Sandbox, Failure> {
    let started = Sandbox::start(Options { latency: LATENCY, ..options }).await;
    started.map_err(|error| cannot("start the sandbox", &error))
}

const CONFIG_FILE: &str = "bearerd.toml";

/// Writes the configuration and its secrets down and reads them as `bearerd serve` does.
fn configure(
    scratch: &Scratch,
    sandbox: &Sandbox,
    hasty: &Sandbox,
    first_refresh_token: &str,
) -> Result<Config, Failure> {
    let text = text(scratch, sandbox, hasty).map_err(|error| cannot("make a configuration", &error))?;
    for (name, content) in [
        (CONFIG_FILE, text.as_str()),
        ("refresh-token", first_refresh_token),
        ("client-secret", DEMO_SECRET),
        ("api-key", DEMO_API_KEY),
    ] {
        scratch.write(name, content).map_err(|error| cannot("write a temporary file", &error))?;
    }
    let path = scratch.path().join(CONFIG_FILE);
    config::load(Some(&path), &|_| None).map_err(|errors| cannot("read its own configuration", &errors.render(false)))
}

fn text(scratch: &Scratch, sandbox: &Sandbox, hasty: &Sandbox) -> io::Result<String> {
    let database = toml::Value::String(scratch.file("bearerd.redb")?);
    let (token_url, api_url, hasty_url) = (sandbox.token_url(), sandbox.api_url(), hasty.token_url());
    Ok(format!(
        r#"# The configuration of `bearerd demo`. The ports change with each run.

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
shutdown_timeout = "2s"

[store]
kind = "embedded"
path = {database}

[[allow]]
caller = "local"
credentials = ["*"]
actions = ["get", "invalidate", "call", "administer"]

# This provider takes the second use of a refresh token for theft and ends the grant.
[credentials.{DEMO}]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "{DEMO_PUBLIC}"
client_auth = "none"
refresh_token = {{ file = "refresh-token" }}
base_url = "{api_url}"
min_age = "0s"   # the tour rejects tokens that are seconds old; else a token so fresh is not replaced yet

[credentials.{SHORT_LIVED}]
grant = "client_credentials"
token_url = "{hasty_url}"
client_id = "{DEMO_CONFIDENTIAL}"
client_secret = {{ file = "client-secret" }}

[credentials.{API_KEY}]
grant = "static"
scheme = "api_key"
header = "X-Api-Key"
secret = {{ file = "api-key" }}
base_url = "{api_url}"
"#
    ))
}

fn cannot(what: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("the demonstration cannot {what}: {why}"))
}
