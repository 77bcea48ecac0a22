//! One process of the real bearerd.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bearerd::{
    proto::{
        GetTokenRequest, GetTokenResponse, ImportGrantRequest, InvalidateTokenRequest, Token,
        grant_admin_client::GrantAdminClient, import_grant_request::Secret, invalidate_token_request::Rejected,
        token_service_client::TokenServiceClient,
    },
    sandbox::DEMO_SECRET,
};
use tokio::runtime::Handle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{
    Answered, How,
    certificates::Certificates,
    free_port,
    process::Process,
    settings::{CREDENTIAL, Settings},
};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// A running `bearerd serve`.
pub struct Replica {
    process: Process,
    runtime: Handle,
    tls: Option<Certificates>,
    grpc: u16,
    admin: u16,
}

impl Replica {
    /// Starts one and waits until it is ready.
    pub fn start(bench: &Bench, how: &How, settings: &Settings) -> Result<Self, Error> {
        let home = Home::make(bench, settings)?;
        let process = home.serve(bench, how)?;
        let (runtime, tls) = (bench.runtime.handle().clone(), settings.tls.cloned());
        let mut replica = Self { process, runtime, tls, grpc: home.grpc, admin: home.admin };
        replica.wait_until_ready().map_err(|why| {
            let log = fs::read_to_string(home.directory.join("log")).unwrap_or_default();
            failed(format!("{why}\n{log}"))
        })?;
        Ok(replica)
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let probe = format!("http://127.0.0.1:{}/readyz", self.admin);
        let runtime = self.runtime.clone();
        self.process.wait_until(|| {
            runtime.block_on(reqwest::get(&probe)).is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
        })
    }

    /// Where gRPC is served, with its scheme.
    pub fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.grpc)
    }

    /// Where `GetToken` is.
    pub fn get_token_url(&self) -> String {
        format!("{}/bearerd.v1.TokenService/GetToken", self.address())
    }

    /// Where `InvalidateToken` is.
    pub fn invalidate_token_url(&self) -> String {
        format!("{}/bearerd.v1.TokenService/InvalidateToken", self.address())
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Channel, Error> {
        self.endpoint()?.connect().await.map_err(|why| failed(format!("cannot connect to bearerd: {why:?}")))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::new(self.address()).map_err(|why| failed(why.to_string()))?;
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let client = Identity::from_pem(tls.read("client")?, tls.read("client.key")?);
        let authority = Certificate::from_pem(tls.read("ca")?);
        let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(authority).identity(client);
        endpoint.tls_config(tls).map_err(|why| failed(why.to_string()))
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> Result<Metrics, Error> {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        let text = self.runtime.block_on(async { reqwest::get(url).await?.text().await });
        text.map(Metrics).map_err(|why| failed(format!("bearerd shows no metrics: {why}")))
    }

    /// The calls that it answered, whatever they were.
    pub fn answered(&self) -> Result<Answered, Error> {
        let metrics = self.metrics()?;
        let (refused, unrecorded) = (metrics.refused(), metrics.unrecorded());
        let well = metrics.sum(|series| series.starts_with("bearerd_requests_total{")) - refused;
        Ok(Answered { well, elsewhere: 0, refused, unrecorded })
    }

    /// The tokens that were looked up; well are those that came from `memory`, or from the `store`.
    pub fn lookups(&self, source: &str) -> Result<Answered, Error> {
        let metrics = self.metrics()?;
        let (lookups, result) = ("bearerd_token_lookups_total{", format!("result=\"{source}\""));
        let well = metrics.sum(|series| series.starts_with(lookups) && series.contains(&result));
        let elsewhere = metrics.sum(|series| series.starts_with(lookups)) - well;
        Ok(Answered { well, elsewhere, refused: metrics.refused(), unrecorded: metrics.unrecorded() })
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to end, and waits for that.
    pub fn stop(self) -> Result<(), Error> {
        self.process.stop()
    }
}

/// A directory with a configuration, from which processes are started.
pub struct Home {
    directory: PathBuf,
    /// Where it will serve gRPC.
    pub grpc: u16,
    admin: u16,
}

impl Home {
    /// Writes the files.
    pub fn make(bench: &Bench, settings: &Settings) -> Result<Self, Error> {
        let (grpc, admin) = (free_port()?, free_port()?);
        let directory = bench.scratch().join(format!("bearerd-{grpc}"));
        fs::create_dir(&directory).map_err(cannot("make a directory for bearerd"))?;
        written(&directory.join("bearerd.toml"), &settings.file((grpc, admin)))?;
        written(&directory.join("client-secret"), DEMO_SECRET)?;
        written(&directory.join("seal"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
        Ok(Self { directory, grpc, admin })
    }

    /// Starts a process, and does not wait for it.
    pub fn serve(&self, bench: &Bench, how: &How) -> Result<Process, Error> {
        let log = fs::File::create(self.directory.join("log")).map_err(cannot("make a file for bearerd's log"))?;
        let program = bench.bearerd()?.to_string_lossy().into_owned();
        let mut command = how.command(bench, &program);
        command.args(["serve", "--config"]).arg(self.directory.join("bearerd.toml"));
        command.current_dir(&self.directory).stderr(log);
        bench.note(&command, &[(&*program, "bearerd"), (&*self.directory.to_string_lossy(), "$DIR")]);
        Process::start(&mut command, "bearerd")
    }
}

fn written(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(cannot(format!("write {}", file.display())))
}

/// What a process counts, in the text format of OpenMetrics.
pub struct Metrics(String);

impl Metrics {
    /// The sum of the series that are meant.
    pub fn sum(&self, meant: impl Fn(&str) -> bool) -> u64 {
        let series = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        series.filter(|(series, _)| meant(series)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// How many requests ended with an error.
    pub fn refused(&self) -> u64 {
        self.sum(|series| series.starts_with("bearerd_requests_total{") && !series.contains(r#"result="OK""#))
    }

    /// How many audit records were lost.
    pub fn unrecorded(&self) -> u64 {
        self.sum(|series| series == "bearerd_audit_lost_total")
    }
}

/// The request for a subject's token.
pub fn token_of(subject: &str) -> GetTokenRequest {
    GetTokenRequest { credential: CREDENTIAL.to_owned(), subject: subject.to_owned(), ..GetTokenRequest::default() }
}

/// The report that this generation of a subject's token was rejected.
pub fn report_of(subject: &str, generation: u64) -> InvalidateTokenRequest {
    InvalidateTokenRequest {
        credential: CREDENTIAL.to_owned(),
        subject: subject.to_owned(),
        rejected: Some(Rejected::Generation(generation)),
        ..InvalidateTokenRequest::default()
    }
}

/// Reports a generation, and gets the next token.
pub async fn report(channel: Channel, subject: &str, generation: u64) -> Result<Token, Error> {
    let answer = TokenServiceClient::new(channel).invalidate_token(report_of(subject, generation)).await;
    let answer = answer.map_err(|status| failed(format!("a report was refused: {status:?}")))?.into_inner();
    let next = answer.token.as_ref().filter(|token| token.generation > generation).cloned();
    next.ok_or_else(|| failed(format!("a report led to no new token: {:?}", answer.outcome())))
}

/// Asks for a subject's token.
pub async fn get_token(channel: Channel, subject: &str) -> Result<GetTokenResponse, Error> {
    let answer = TokenServiceClient::new(channel).get_token(token_of(subject)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| failed(format!("bearerd gives no token: {status:?}")))
}

/// Imports a subject's grant, with the first refresh token that [`super::provider`] knows for it.
pub async fn import(channel: Channel, subject: &str) -> Result<(), Error> {
    let request = ImportGrantRequest {
        credential: CREDENTIAL.to_owned(),
        subject: subject.to_owned(),
        secret: Some(Secret::RefreshToken(super::provider::first_refresh_token(subject))),
        scopes: Vec::new(),
        no_verify: true,
    };
    let answer = GrantAdminClient::new(channel).import_grant(request).await;
    answer.map(|_| ()).map_err(|status| failed(format!("bearerd imports no grant: {status:?}")))
}
