//! bearerd in this process, between the sandbox provider and the sandbox API, reached over gRPC as any caller reaches it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bearerd::{
    app::App,
    config,
    proto::{
        CallThroughRequest, CallThroughResponse, GetTokenRequest, InvalidateTokenOutcome, InvalidateTokenRequest,
        Token, grant_admin_client::GrantAdminClient, invalidate_token_request::Rejected,
        token_service_client::TokenServiceClient,
    },
    sandbox::{self, Options, Sandbox},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use super::Redis;

/// The three of them, and clients.
pub struct House {
    pub sandbox: Arc<Sandbox>,
    app: App,
    pub tokens: TokenServiceClient<Channel>,
    pub grants: GrantAdminClient<Channel>,
    directory: tempfile::TempDir,
}

/// Where houses are reached from this host alone.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The listener of most houses has no TLS.
const PLAINTEXT: &str = "plaintext = true";

const EMBEDDED: &str = "kind = \"embedded\"\npath = \"{directory}/bearerd.redb\"";

impl House {
    /// A house with these credentials. In the text, `{token_url}`, `{api_url}` and `{issuer}` stand for the sandbox's.
    pub async fn with(credentials: &str) -> Self {
        Self::furnished(Options::default(), credentials).await
    }

    /// A house with a sandbox of these options.
    pub async fn furnished(options: Options, credentials: &str) -> Self {
        let sandbox = Arc::new(Sandbox::start(options).await.unwrap());
        Self::open((HERE, PLAINTEXT), EMBEDDED, &[], sandbox, credentials).await
    }

    /// A house that listens on this address, with these lines of `[server]` and these files; in all lines `{directory}`
    /// is where the files are. Its own clients speak without TLS.
    pub async fn served(address: IpAddr, server: &str, files: &[(&str, &str)], lines: &str) -> Self {
        let sandbox = Arc::new(Sandbox::start(Options::default()).await.unwrap());
        Self::open((address, server), EMBEDDED, files, sandbox, lines).await
    }

    /// One of several houses on one Redis, before one sandbox.
    pub async fn beside(redis: &Redis, sandbox: &Arc<Sandbox>, credentials: &str) -> Self {
        let store = format!(
            "kind = \"redis\"\nurl = \"{}\"\n[seal]\nkeys = [{{ id = \"test\", env = \"SEAL\" }}]",
            redis.url()
        );
        Self::open((HERE, PLAINTEXT), &store, &[], Arc::clone(sandbox), credentials).await
    }

    async fn open(
        (address, server): (IpAddr, &str),
        store: &str,
        files: &[(&str, &str)],
        sandbox: Arc<Sandbox>,
        lines: &str,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| fs::write(directory.path().join(name), content).unwrap());
        let listen = SocketAddr::new(address, 0);
        let text = format!(
            "[server]\nlisten = \"{listen}\"\nadmin_listen = \"127.0.0.1:0\"\n{server}\n\
             [store]\n{store}\n{lines}"
        );
        let text = text
            .replace("{directory}", &directory.path().display().to_string())
            .replace("{token_url}", &sandbox.token_url())
            .replace("{api_url}", &sandbox.api_url())
            .replace("{issuer}", &sandbox.issuer());
        let first = sandbox.mint_refresh_token("demo");
        let environment = environment(&sandbox, first);
        let config = config::parse("test.toml", &text, &environment, Path::new(""))
            .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        let app = App::start(config).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", app.grpc.unwrap())).unwrap().connect_lazy();
        let (tokens, grants) = (TokenServiceClient::new(channel.clone()), GrantAdminClient::new(channel));
        Self { sandbox, app, tokens, grants, directory }
    }

    /// Where gRPC is served, as host and port.
    pub fn address(&self) -> String {
        self.app.grpc.unwrap().to_string()
    }

    /// The port of gRPC.
    pub fn port(&self) -> u16 {
        self.app.grpc.unwrap().port()
    }

    /// Where probes and metrics are served, as host and port.
    pub fn admin(&self) -> String {
        self.app.admin.to_string()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The value of a metric, as [`super::metric`] tells it.
    pub async fn metric(&self, series: &str) -> f64 {
        super::metric(&format!("http://{}", self.app.admin), series).await
    }

    /// How often the provider was asked.
    pub fn asked(&self) -> usize {
        self.sandbox.journal().len()
    }

    pub async fn get(&self, credential: &str) -> Result<Token, Status> {
        self.ask(GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() }).await
    }

    pub async fn ask(&self, request: GetTokenRequest) -> Result<Token, Status> {
        self.tokens.clone().get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
    }

    /// Reports a generation; the outcome and the token to use now.
    pub async fn report(
        &self,
        credential: &str,
        generation: u64,
    ) -> Result<(InvalidateTokenOutcome, Option<Token>), Status> {
        self.report_whole(InvalidateTokenRequest {
            credential: credential.to_owned(),
            rejected: Some(Rejected::Generation(generation)),
            ..InvalidateTokenRequest::default()
        })
        .await
    }

    pub async fn report_whole(
        &self,
        request: InvalidateTokenRequest,
    ) -> Result<(InvalidateTokenOutcome, Option<Token>), Status> {
        let answer = self.tokens.clone().invalidate_token(request).await?.into_inner();
        Ok((answer.outcome(), answer.token))
    }

    pub async fn call(&self, credential: &str, path: &str) -> Result<CallThroughResponse, Status> {
        self.call_whole(CallThroughRequest {
            credential: credential.to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..CallThroughRequest::default()
        })
        .await
    }

    pub async fn call_whole(&self, request: CallThroughRequest) -> Result<CallThroughResponse, Status> {
        self.tokens.clone().call_through(request).await.map(tonic::Response::into_inner)
    }
}

/// The seal key of houses on Redis: 32 bytes from 0 on.
const SEAL_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The secrets that configurations of tests name.
fn environment(sandbox: &Sandbox, first: String) -> impl Fn(&str) -> Option<String> + use<> {
    use bearerd::secret::ExposeSecret;
    let key = sandbox.demo_key().private_pem.expose_secret().to_owned();
    move |name| match name {
        "CLIENT_SECRET" => Some(sandbox::DEMO_SECRET.to_owned()),
        "AWKWARD_SECRET" => Some(sandbox::DEMO_AWKWARD_SECRET.to_owned()),
        "REFRESH_TOKEN" => Some(first.clone()),
        "KEY" => Some(key.clone()),
        "API_KEY" => Some(sandbox::DEMO_API_KEY.to_owned()),
        "SEAL" => Some(SEAL_KEY.to_owned()),
        "PASSWORD" => Some(sandbox::DEMO_PASSWORD.to_owned()),
        _ => None,
    }
}

/// A rotating refresh token at the sandbox, as most tests want it: tokens may be rejected as soon as they were made.
pub const ROTATING: &str = r#"
[credentials.demo]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "demo-confidential"
client_secret = { env = "CLIENT_SECRET" }
refresh_token = { env = "REFRESH_TOKEN" }
scopes = ["read"]
base_url = "{api_url}"
min_age = "0s"
"#;

/// Client credentials at the sandbox.
pub const CLIENT_CREDENTIALS: &str = r#"
[credentials.cc]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo-confidential"
client_secret = { env = "CLIENT_SECRET" }
"#;

/// The code, reason and wait of an error.
pub fn reason(status: &Status) -> (Code, String, Option<Duration>) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "bearerd");
    let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    (status.code(), info.reason, wait)
}
