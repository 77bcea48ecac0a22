//! Replicas of an older build and of this one on one Redis: an upgrade, a mix of both, and a step back, under load, with a
//! provider that ends a grant when a refresh token is used twice. `make versions` builds the older one.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bearerd::proto::{
    GetTokenRequest, InvalidateTokenRequest, Token, invalidate_token_request::Rejected,
    token_service_client::TokenServiceClient,
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{BUILT, Bearerd, PATIENCE, Provider, Redis, eventually, replicas::SEAL_KEY};

/// In seconds: with the skew and the jitter of refreshes ahead of time, each stage sees several refreshes.
const ACCESS_TTL: u32 = 4;
const CALLERS: usize = 12;
const PAUSE: Duration = Duration::from_millis(15);

/// One call in so many reports the token that the caller has.
const REPORT_EVERY: usize = 100;

/// How many refreshes each stage waits for.
const REFRESHES: usize = 4;

/// How often a caller asks the next replica after an error that allows it, as a client behind a Kubernetes Service does.
const TRIES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a build of another version: make versions"]
async fn an_upgrade_and_a_step_back_fail_no_call_and_lose_no_grant() {
    let other = PathBuf::from(env::var("OTHER_BEARERD").expect("OTHER_BEARERD names another build: make versions"));
    let this = Path::new(BUILT);
    let mut fleet = Fleet::start(&other).await;
    let load = Load::start(&fleet.clients);
    fleet.refreshes(REFRESHES).await;
    // The upgrade, a step back in the middle of it, the rest, and all the way back.
    for (replica, program) in
        [(0, this), (1, this), (1, &other), (1, this), (2, this), (2, &other), (0, &other), (1, &other)]
    {
        fleet.replace(replica, program).await;
        fleet.refreshes(REFRESHES).await;
    }
    let (calls, failed) = load.stop().await;
    println!("{calls} calls, {} refreshes, failed: {failed:?}", fleet.asked().await);
    assert!(calls > 1000, "{calls}");
    assert!(failed.is_empty(), "{failed:#?}");
    fleet.is_unharmed().await;
}

struct Fleet {
    provider: Provider,
    redis: Redis,
    each: Vec<Bearerd>,
    clients: Clients,
    configuration: String,
    first: String,
}

type Clients = Arc<Vec<Mutex<TokenServiceClient<Channel>>>>;

impl Fleet {
    /// Three replicas of one build.
    async fn start(program: &Path) -> Self {
        let ttl = ACCESS_TTL.to_string();
        let provider = Provider::start(&[("ACCESS_TTL", ttl.as_str()), ("ROTATE", "1")]).await;
        let redis = Redis::start().await;
        let first = provider.mint_refresh_token("service", "offline_access read").await;
        let configuration = configuration(&redis.url(), &provider.token_url());
        let files = [("seal", SEAL_KEY), ("client-secret", "web-secret"), ("refresh-token", first.as_str())];
        let mut each = Vec::new();
        for _ in 0..3 {
            each.push(Bearerd::start_program(program, &configuration, &files).await);
        }
        let mut clients = Vec::new();
        for replica in &each {
            clients.push(Mutex::new(connect(replica).await));
        }
        Self { provider, redis, each, clients: Arc::new(clients), configuration, first }
    }

    /// Stops a replica as Kubernetes does, and starts this build in its place.
    async fn replace(&mut self, replica: usize, program: &Path) {
        let mut ended = self.each.remove(replica);
        ended.process().signal("TERM");
        eventually(PATIENCE, async || ended.process().ended().is_some()).await;
        let started = ended.start_program_again(program, &self.configuration).await;
        *self.clients[replica].lock() = connect(&started).await;
        self.each.insert(replica, started);
    }

    async fn asked(&self) -> usize {
        self.provider.log().await.len()
    }

    /// Waits for so many more refreshes.
    async fn refreshes(&self, more: usize) {
        let before = self.asked().await;
        eventually(PATIENCE, async || self.asked().await >= before + more).await;
    }

    /// The provider never refused, and no refresh token was presented twice.
    async fn is_unharmed(&self) {
        let log = self.provider.log().await;
        let refused: Vec<_> = log.iter().filter(|entry| entry.status.is_some_and(|status| status != 200)).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        let mut presented: Vec<_> = log.iter().filter_map(|entry| entry.presented.as_ref()).collect();
        let requests = presented.len();
        presented.sort();
        presented.dedup();
        assert_eq!(presented.len(), requests, "a refresh token was presented twice");
        assert!(self.provider.alive(&self.first).await);
        assert!(!self.redis.keys().await.is_empty());
    }
}

async fn connect(replica: &Bearerd) -> TokenServiceClient<Channel> {
    TokenServiceClient::connect(replica.grpc()).await.unwrap()
}

/// What both versions understand.
fn configuration(redis: &str, token_url: &str) -> String {
    format!(
        r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
kind = "redis"
url = "{redis}"

[seal]
keys = [{{ id = "test", file = "seal" }}]

[[allow]]
caller = "local"
credentials = ["*"]
actions = ["get", "invalidate", "administer"]

[credentials.crm]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "web"
client_secret = {{ file = "client-secret" }}
refresh_token = {{ file = "refresh-token" }}
min_age = "0s"
"#
    )
}

/// Callers that never stop until they are told to.
struct Load {
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(clients: &Clients) -> Self {
        let (stop, stopped) = watch::channel(false);
        let callers = (0..CALLERS).map(|number| tokio::spawn(call(number, Arc::clone(clients), stopped.clone())));
        Self { stop, callers: callers.collect() }
    }

    /// How many calls there were, and what was wrong.
    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.send_replace(true);
        let (mut calls, mut failed) = (0, Vec::new());
        for caller in self.callers {
            let (more, wrong) = caller.await.unwrap();
            calls += more;
            failed.extend(wrong);
        }
        (calls, failed)
    }
}

async fn call(number: usize, clients: Clients, stopped: watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut calls, mut failed, mut known) = (0, Vec::new(), 0);
    while !*stopped.borrow() {
        calls += 1;
        let asked = SystemTime::now();
        let report = calls % REPORT_EVERY == REPORT_EVERY / 2 && known != 0;
        match somewhere(&clients, number + calls, report.then_some(known)).await {
            Ok(token) => {
                known = token.generation;
                if token.expires_at.is_some_and(|end| SystemTime::try_from(end).unwrap() <= asked) {
                    failed.push(format!("an expired token of generation {}", token.generation));
                }
            }
            Err(status) => failed.push(format!("{status:?}")),
        }
        sleep(PAUSE).await;
    }
    (calls, failed)
}

/// Asks one replica after the other until one answers.
async fn somewhere(clients: &Clients, first: usize, report: Option<u64>) -> Result<Token, Status> {
    let mut last = Status::unavailable("not asked");
    for turn in 0..TRIES {
        let client = clients[(first + turn) % clients.len()].lock().clone();
        match timeout(PATIENCE, ask(client, report)).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(status)) if may_ask_another(&status) => last = status,
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::deadline_exceeded("no answer")),
        }
        sleep(PAUSE * 10).await;
    }
    Err(last)
}

async fn ask(mut client: TokenServiceClient<Channel>, report: Option<u64>) -> Result<Token, Status> {
    if let Some(generation) = report {
        let request = InvalidateTokenRequest {
            credential: "crm".to_owned(),
            rejected: Some(Rejected::Generation(generation)),
            ..InvalidateTokenRequest::default()
        };
        client.invalidate_token(request).await?;
    }
    let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
    client.get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
}

/// `UNAVAILABLE`, and what a connection that broke looks like from this side.
fn may_ask_another(status: &Status) -> bool {
    let broke = [Code::Cancelled, Code::Unknown, Code::Internal].contains(&status.code());
    status.code() == Code::Unavailable || (broke && status.get_details_error_info().is_none())
}
