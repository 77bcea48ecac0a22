//! Envoy with the filter that does what bearerd's calls through do: it gets a token by client credentials and puts it into
//! each request.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bearerd::sandbox::{DEMO_CONFIDENTIAL, DEMO_SECRET};
use tokio::runtime::Handle;

use super::{Answered, Protocol, Server, free_port, nginx::PATH, process::Process};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// A running Envoy with one worker.
pub struct Envoy {
    process: Process,
    runtime: Handle,
    listen: u16,
    admin: u16,
}

impl Envoy {
    /// Starts one before this upstream, and waits until it has a token.
    pub fn start(bench: &Bench, token_url: &str, upstream: u16) -> Result<Self, Error> {
        let (listen, admin) = (free_port()?, free_port()?);
        let directory = bench.scratch().join(format!("envoy-{listen}"));
        fs::create_dir(&directory).map_err(cannot("make a directory for Envoy"))?;
        let config = directory.join("envoy.yaml");
        let text = configuration(token_url, (listen, admin), upstream)?;
        fs::write(&config, text).map_err(cannot("configure Envoy"))?;
        let log = fs::File::create(directory.join("log")).map_err(cannot("make a file for Envoy's log"))?;
        let program = program().to_string_lossy().into_owned();
        let mut command = bench.cores.server(&program);
        command.arg("-c").arg(&config).args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]);
        bench.note(&command, &[(&*program, "envoy"), (&*config.to_string_lossy(), "envoy.yaml")]);
        let process = Process::start(command.stderr(log), "Envoy")?;
        let mut envoy = Self { process, runtime: bench.runtime.handle().clone(), listen, admin };
        envoy.wait_for_a_token().map_err(|why| told(&directory, &why))?;
        Ok(envoy)
    }

    fn wait_for_a_token(&mut self) -> Result<(), Error> {
        let (runtime, url) = (self.runtime.clone(), self.url());
        self.process.wait_until(|| {
            runtime.block_on(reqwest::get(&url)).is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
        })
    }
}

fn told(directory: &Path, why: &Error) -> Error {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    failed(format!("{why}\n{log}"))
}

/// Where `scripts/bench-setup` puts it.
fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.tools/envoy/envoy")
}

impl Server for Envoy {
    fn protocol(&self) -> Protocol {
        Protocol::Get(None)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.listen)
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// As the statistics of its cluster say it.
    fn answered(&self) -> Result<Answered, Error> {
        let url = format!("http://127.0.0.1:{}/stats?filter=cluster.upstream.upstream_rq", self.admin);
        let text = self.runtime.block_on(async { reqwest::get(url).await?.text().await });
        let text = text.map_err(|why| failed(format!("Envoy does not count: {why}")))?;
        let counter = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
            value.unwrap_or(0_u64)
        };
        let (all, well) =
            (counter("cluster.upstream.upstream_rq_completed"), counter("cluster.upstream.upstream_rq_2xx"));
        Ok(Answered { well, refused: all - well, ..Answered::default() })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.process.cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.process.stop()
    }
}

fn configuration(token_url: &str, (listen, admin): (u16, u16), upstream: u16) -> Result<String, Error> {
    let provider = token_url.split(['/', ':']).nth(4).ok_or_else(|| failed("the token endpoint has no port"))?;
    let address = |port: &str| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    let cluster = |name: &str, port: &str| {
        format!(
            "{{ name: {name}, type: STATIC, load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: \
             [{{ endpoint: {{ address: {} }} }}] }}] }} }}",
            address(port)
        )
    };
    let (provider, upstream) = (cluster("provider", provider), cluster("upstream", &upstream.to_string()));
    let (listen, admin) = (address(&listen.to_string()), address(&admin.to_string()));
    let kind = "type.googleapis.com/envoy.extensions";
    Ok(format!(
        r#"admin: {{ address: {admin} }}
static_resources:
  secrets:
  - name: client-secret
    generic_secret: {{ secret: {{ inline_string: "{DEMO_SECRET}" }} }}
  clusters:
  - {provider}
  - {upstream}
  listeners:
  - name: ingress
    address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {kind}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: upstream }} }}] }}
          http_filters:
          - name: envoy.filters.http.credential_injector
            typed_config:
              "@type": {kind}.filters.http.credential_injector.v3.CredentialInjector
              overwrite: true
              credential:
                name: envoy.http.injected_credentials.oauth2
                typed_config:
                  "@type": {kind}.http.injected_credentials.oauth2.v3.OAuth2
                  token_endpoint: {{ uri: "{token_url}", cluster: provider, timeout: 5s }}
                  client_credentials:
                    client_id: "{DEMO_CONFIDENTIAL}"
                    client_secret: {{ name: client-secret }}
                    auth_type: BASIC_AUTH
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {kind}.filters.http.router.v3.Router }}
"#
    ))
}
