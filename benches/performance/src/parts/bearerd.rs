//! The real bearerd, configured as a user would: several rows of policy, a rate limit, an audit log in a file, metrics
//! and tracing at `info`. Its provider is the sandbox, whose tokens live for a day here, so that no refresh is measured.

use std::{fs, path::PathBuf, time::Duration};

use bearerd::{
    proto::{GetTokenRequest, token_service_client::TokenServiceClient},
    sandbox::{DEMO_CONFIDENTIAL, DEMO_SECRET, Options, Sandbox},
};
use prost::Message;
use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{
    Answered, How, Server, Sizes,
    certificates::{Certificates, TRUST_DOMAIN},
    free_port,
    process::Process,
};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// Where a token comes from in the calls that are measured.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The cache, as it is by default, before the embedded store.
    Memory,
    /// This port's Redis, every time: the cache believes nothing.
    Redis(u16),
}

/// A running `bearerd serve`.
pub struct Bearerd {
    process: Process,
    runtime: Handle,
    _provider: Sandbox,
    source: Source,
    tls: Option<Certificates>,
    grpc: u16,
    admin: u16,
}

const CREDENTIAL: &str = "salesforce";

const PATH: &str = "/bearerd.v1.TokenService/GetToken";

impl Bearerd {
    /// Starts one and waits until it is ready; with certificates, callers must show theirs.
    pub fn start(bench: &Bench, how: &How, source: Source, tls: Option<&Certificates>) -> Result<Self, Error> {
        let options = Options { access_token_lifetime: Duration::from_secs(86_400), ..Options::default() };
        let provider = bench.runtime.block_on(Sandbox::start(options)).map_err(cannot("start the sandbox"))?;
        let (grpc, admin) = (free_port()?, free_port()?);
        let directory = bench.scratch().join(format!("bearerd-{grpc}"));
        fs::create_dir(&directory).map_err(cannot("make a directory for bearerd"))?;
        let text = configuration((grpc, admin), source, tls, &provider.token_url());
        let config = written(directory.join("bearerd.toml"), &text)?;
        written(directory.join("client-secret"), DEMO_SECRET)?;
        written(directory.join("seal"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
        let log = fs::File::create(directory.join("log")).map_err(cannot("make a file for bearerd's log"))?;
        let program = bench.bearerd()?.to_string_lossy().into_owned();
        let mut command = how.command(bench, &program);
        command.args(["serve", "--config"]).arg(config).current_dir(&directory).stderr(log);
        bench.note(&command, &[(&*program, "bearerd"), (&*directory.to_string_lossy(), "$DIR")]);
        let process = Process::start(&mut command, "bearerd")?;
        let (runtime, tls) = (bench.runtime.handle().clone(), tls.cloned());
        let mut bearerd = Self { process, runtime, _provider: provider, source, tls, grpc, admin };
        bearerd.wait_until_ready().map_err(|why| {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            failed(format!("{why}\n{log}"))
        })?;
        Ok(bearerd)
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let probe = format!("http://127.0.0.1:{}/readyz", self.admin);
        let runtime = self.runtime.clone();
        self.process.wait_until(|| {
            runtime.block_on(reqwest::get(&probe)).is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
        })
    }

    /// Has it get its token, by a call that is not measured, and tells how long that call's messages were.
    pub fn prime(&self) -> Result<Sizes, Error> {
        let request = asked();
        let size = request.encoded_len();
        let answer = self.runtime.block_on(async {
            let channel = self.endpoint()?.connect().await.map_err(|why| failed(format!("{why:?}")))?;
            let answer = TokenServiceClient::new(channel).get_token(request).await;
            answer.map_err(|status| failed(format!("bearerd gives no token: {status:?}")))
        })?;
        Ok(Sizes { request: size, response: answer.into_inner().encoded_len() })
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::new(self.address()).map_err(|why| failed(why.to_string()))?;
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let client = Identity::from_pem(tls.read("client")?, tls.read("client.key")?);
        let authority = Certificate::from_pem(tls.read("ca")?);
        let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(authority).identity(client);
        endpoint.tls_config(tls).map_err(|why| failed(why.to_string()))
    }

    fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.grpc)
    }
}

impl Server for Bearerd {
    fn url(&self) -> String {
        format!("{}{PATH}", self.address())
    }

    fn request(&self) -> Vec<u8> {
        asked().encode_to_vec()
    }

    /// As `/metrics` says it.
    fn answered(&self) -> Result<Answered, Error> {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        let metrics = self.runtime.block_on(async { reqwest::get(url).await?.text().await });
        let metrics = metrics.map_err(|why| failed(format!("bearerd shows no metrics: {why}")))?;
        let source = match self.source {
            Source::Memory => r#"result="memory""#,
            Source::Redis(_) => r#"result="store""#,
        };
        let lookups = "bearerd_token_lookups_total{";
        let well = sum(&metrics, |series| series.starts_with(lookups) && series.contains(source));
        let elsewhere = sum(&metrics, |series| series.starts_with(lookups)) - well;
        let refused =
            sum(&metrics, |series| series.starts_with("bearerd_requests_total{") && !series.contains(r#"result="OK""#));
        let unrecorded = sum(&metrics, |series| series == "bearerd_audit_lost_total");
        Ok(Answered { well, elsewhere, refused, unrecorded })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.process.cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.process.stop()
    }
}

fn asked() -> GetTokenRequest {
    GetTokenRequest { credential: CREDENTIAL.to_owned(), ..GetTokenRequest::default() }
}

/// The sum of the series that are meant, in the text format of OpenMetrics.
fn sum(metrics: &str, meant: impl Fn(&str) -> bool) -> u64 {
    let series = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    series.filter(|(series, _)| meant(series)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

fn written(file: PathBuf, text: &str) -> Result<PathBuf, Error> {
    fs::write(&file, text).map_err(cannot(format!("write {}", file.display())))?;
    Ok(file)
}

fn configuration(ports: (u16, u16), source: Source, tls: Option<&Certificates>, token_url: &str) -> String {
    let (grpc, admin) = ports;
    let store = match source {
        Source::Memory => "[store]\nkind = \"embedded\"\npath = \"bearerd.redb\"\n".to_owned(),
        Source::Redis(port) => format!(
            "[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n\n\
             [seal]\nkeys = [{{ id = \"bench\", file = \"seal\" }}]\n\n\
             [cache]\nmax_age = \"0s\"\n"
        ),
    };
    let tls = tls.map_or_else(String::new, |certificates| {
        let directory = certificates.directory().display();
        format!(
            "[server.tls]\ncertificate = {{ file = \"{directory}/server\" }}\nkey = {{ file = \"{directory}/server.key\" }}\n\
             client_ca = {{ file = \"{directory}/ca\" }}\ntrust_domain = \"{TRUST_DOMAIN}\"\n"
        )
    });
    format!(
        r#"[server]
listen = "127.0.0.1:{grpc}"
admin_listen = "127.0.0.1:{admin}"

{tls}
{store}
[audit]
output = "./audit.jsonl"

[limits]
requests_per_second = 1_000_000

[log]
filter = "info"

[[allow]]
name = "reports"
caller = "spiffe://{TRUST_DOMAIN}/ns/reports/sa/*"
credentials = ["{CREDENTIAL}"]
actions = ["call"]
methods = ["GET"]

[[allow]]
name = "billing"
caller = "spiffe://{TRUST_DOMAIN}/ns/billing/sa/*"
credentials = ["{CREDENTIAL}", "static-*"]
actions = ["get", "invalidate", "call"]

[[allow]]
name = "this-host"
caller = "local"
credentials = ["{CREDENTIAL}", "static-*"]
actions = ["get", "invalidate", "call"]

[credentials.{CREDENTIAL}]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "{DEMO_CONFIDENTIAL}"
client_secret = {{ file = "client-secret" }}
scopes = ["read", "write"]
"#
    )
}
