//! Where names may lead, over gRPC: bearerd with a lookup of the test's own. And which connections are made at all.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bearerd::{
    api::{Api, Live},
    audit::Audit,
    broker::{Broker, Parts},
    cache::CacheConfig,
    clock::Clock,
    config, http,
    identity::Identity,
    limit::Limits,
    policy::Policy,
    proto::token_service_client::TokenServiceClient,
    provider::Provider,
    sandbox::{DEMO_API_KEY, Options, Sandbox},
    server::{self, Listeners, ServerConfig},
    store::{Ring, Store, embedded::Embedded},
    telemetry::Telemetry,
    upstream::Upstream,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch};
use tonic::{Code, Status, transport::Channel};

use super::{calling, raw::Raw};
use crate::support::{PATIENCE, Process, eventually, house::reason};

/// bearerd, and what its names lead to.
struct Named {
    sandbox: Sandbox,
    tokens: TokenServiceClient<Channel>,
    leads_to: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    lookups: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
    _ready: watch::Sender<server::Readiness>,
}

/// Two credentials for one API; only the second one's name may lead to private addresses.
const TWO: &str = r#"
[credentials.public]
grant = "static"
scheme = "api_key"
header = "X-Api-Key"
secret = { env = "API_KEY" }
allow_http = true
base_url = "http://api.internal.example:@PORT@/"

[credentials.private]
grant = "static"
scheme = "api_key"
header = "X-Api-Key"
secret = { env = "API_KEY" }
allow_http = true
base_url = "http://api.internal.example:@PORT@/"
allow_private_addresses = true
"#;

impl Named {
    async fn start(text: &str) -> Self {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let port = sandbox.api_url().rsplit(':').next().unwrap().to_owned();
        let environment = |_: &str| Some(DEMO_API_KEY.to_owned());
        let config = config::parse("test.toml", &text.replace("@PORT@", &port), &environment, Path::new(""));
        let config = config.unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        let leads_to = Arc::<Mutex<BTreeMap<String, Vec<IpAddr>>>>::default();
        let lookups = Arc::<AtomicUsize>::default();
        let ring = Ring::new([("test", [7; 32].as_slice())]).unwrap();
        let telemetry = Arc::new(Telemetry::default());
        let store = Embedded::open(&directory.path().join("test.redb"), ring).unwrap();
        let names = store.names().clone();
        let broker = Broker::start(Parts {
            store: Arc::new(store),
            credentials: config.credentials,
            timing: config.refresh,
            cache: CacheConfig { max_tokens: 100, max_age: None },
            provider: Arc::new(Provider::new(http::for_token_endpoints().unwrap())),
            upstream: Upstream::new(http::for_upstreams_found_by(&lookup(&leads_to, &lookups)).unwrap()),
            spool: None,
            telemetry: Arc::clone(&telemetry),
            clock: Clock::default(),
            seed: 0,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = ServerConfig {
            reflection: false,
            max_message_bytes: 4 << 20,
            max_connections: 10,
            max_connections_per_address: 10,
            max_connection_age: Duration::from_secs(600),
            max_concurrent_streams: 100,
        };
        let (ready, is_ready) = watch::channel(server::Readiness::Ready);
        let (limits, audit) =
            (Limits::new(&config.limits), Audit::start(&config.audit, &names, Arc::clone(&telemetry)));
        let identity = Identity::new(config.identity.config).unwrap();
        let (policy, told) = (Policy::local_only(), Arc::clone(&telemetry));
        let api = Live::new(Api::new(broker, identity, policy, limits, audit.unwrap(), telemetry));
        let listeners = Listeners { tcp: Some((listener, None)), unix: None };
        tokio::spawn(server::grpc(listeners, api, settings, told, is_ready, std::future::pending()));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let tokens = TokenServiceClient::new(channel);
        Self { sandbox, tokens, leads_to, lookups, _directory: directory, _ready: ready }
    }

    fn lead(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.leads_to.lock().insert(name.to_owned(), addresses);
    }

    async fn call(&self, credential: &str) -> Result<u32, Status> {
        let mut request = calling("GET", "/key");
        request.credential = credential.to_owned();
        self.tokens.clone().call_through(request).await.map(|answer| answer.into_inner().status)
    }
}

fn lookup(leads_to: &Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>, lookups: &Arc<AtomicUsize>) -> http::Lookup {
    let (leads_to, lookups) = (Arc::clone(leads_to), Arc::clone(lookups));
    Arc::new(move |name| {
        lookups.fetch_add(1, Ordering::Relaxed);
        let found = leads_to.lock().get(&name).cloned().unwrap_or_default();
        Box::pin(async move { Ok(found) })
    })
}

const NAME: &str = "api.internal.example";

#[track_caller]
fn not_allowed(answer: Result<u32, Status>, address: &str) {
    let status = answer.expect_err(address);
    assert_eq!(reason(&status), (Code::PermissionDenied, "TARGET_NOT_ALLOWED".to_owned(), None), "{address}");
    assert!(!format!("{status:?}").contains(address), "{status:?}");
}

#[tokio::test]
async fn e006_e007_a_name_that_leads_to_a_private_address_is_not_connected_to() {
    let named = Named::start(TWO).await;
    for address in ["127.0.0.1", "10.0.0.1", "100.64.0.1", "::1", "::ffff:127.0.0.1", "fd00::1", "64:ff9b::7f00:1"] {
        named.lead(NAME, &[address]);
        not_allowed(named.call("public").await, address);
    }
    for address in ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "::", "224.0.0.1", "::ffff:169.254.169.254"] {
        named.lead(NAME, &[address]);
        not_allowed(named.call("public").await, address);
        not_allowed(named.call("private").await, address);
    }
    assert_eq!(named.sandbox.requests("/key"), 0);
    named.lead(NAME, &["127.0.0.1"]);
    assert_eq!(named.call("private").await.unwrap(), 200);
}

#[tokio::test]
async fn e007_the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let named = Named::start(TWO).await;
    // Whatever else the name leads to is left out, and nobody asks twice.
    named.lead(NAME, &["169.254.169.254", "127.0.0.1"]);
    assert_eq!(named.call("private").await.unwrap(), 200);
    assert_eq!(named.lookups.load(Ordering::Relaxed), 1);
    // The connection that is still open does not serve the credential that may not have it.
    not_allowed(named.call("public").await, "127.0.0.1");
    assert_eq!(named.sandbox.requests("/key"), 1);
}

#[tokio::test]
async fn e007_a_name_without_addresses_is_only_not_reachable() {
    let named = Named::start(TWO).await;
    let status = named.call("public").await.unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "UPSTREAM_UNREACHABLE".to_owned(), None));
}

#[tokio::test]
async fn localhost_is_the_operators_own_word_and_leads_nowhere_else() {
    let named = Named::start(&TWO.replace(NAME, "localhost")).await;
    named.lead("localhost", &["127.0.0.1"]);
    assert_eq!(named.call("public").await.unwrap(), 200);
    let named = Named::start(&TWO.replace(NAME, "localhost")).await;
    named.lead("localhost", &["10.0.0.1"]);
    not_allowed(named.call("private").await, "10.0.0.1");
}

#[tokio::test]
async fn e008_proxies_of_the_environment_are_not_used() {
    let (proxy, upstream) = (Raw::saying("", "proxied").await, Raw::saying("", "direct").await);
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[store]\npath = \"{}/test.redb\"\n\
         [credentials.demo]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = {{ env = \"API_KEY\" }}\n\
         base_url = \"{}\"\n",
        directory.path().display(),
        upstream.url()
    );
    let file = directory.path().join("bearerd.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["serve", "--config"]).arg(file).env("API_KEY", DEMO_API_KEY);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, proxy.url());
    }
    let process = Process::start(&mut command);
    eventually(PATIENCE, async || process.err().contains("bearerd is ready")).await;
    let log = process.err();
    let address = log.split("grpc=").nth(1).unwrap().split_whitespace().next().unwrap();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let answer = TokenServiceClient::new(channel).call_through(calling("GET", "/")).await.unwrap().into_inner();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"direct"[..]));
    assert_eq!((proxy.seen().len(), upstream.seen().len()), (0, 1));
}
