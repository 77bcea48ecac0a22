//! Several real processes on one Redis, and a real authorization server.

use std::{collections::HashSet, sync::Arc};

use bearerd::proto::{
    GetTokenRequest, InvalidateTokenOutcome, InvalidateTokenRequest, Token, invalidate_token_request::Rejected,
    token_service_client::TokenServiceClient,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tonic::{Status, transport::Channel};

use super::{Bearerd, Provider, Redis};

/// The key that all replicas seal with.
pub const SEAL_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How to reach each replica; one that was started again is reached in a new way by everybody who has a clone of this.
#[derive(Clone)]
pub struct Clients(Arc<Vec<Mutex<TokenServiceClient<Channel>>>>);

impl Clients {
    async fn of(replicas: &[Bearerd]) -> Self {
        let connected = join_all(replicas.iter().map(connect)).await;
        Self(Arc::new(connected.into_iter().map(Mutex::new).collect()))
    }

    /// A client of one replica.
    pub fn to(&self, replica: usize) -> TokenServiceClient<Channel> {
        self.0[replica].lock().clone()
    }

    /// Asks one replica for a token.
    pub async fn get(&self, replica: usize) -> Result<Token, Status> {
        let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
        self.to(replica).get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
    }

    /// Reports a generation to one replica.
    pub async fn report(&self, replica: usize, generation: u64) -> Result<(InvalidateTokenOutcome, Token), Status> {
        let request = InvalidateTokenRequest {
            credential: "crm".to_owned(),
            rejected: Some(Rejected::Generation(generation)),
            ..InvalidateTokenRequest::default()
        };
        let answer = self.to(replica).invalidate_token(request).await?.into_inner();
        Ok((answer.outcome(), answer.token.unwrap()))
    }
}

async fn connect(replica: &Bearerd) -> TokenServiceClient<Channel> {
    TokenServiceClient::connect(replica.grpc()).await.unwrap()
}

/// Replicas, their Redis, which may be several servers, and their provider.
pub struct Replicas<R = Redis> {
    pub provider: Provider,
    pub redis: R,
    pub each: Vec<Bearerd>,
    pub clients: Clients,
    /// The refresh token that they were configured with.
    pub first: String,
    configurations: Vec<String>,
}

impl Replicas {
    /// Three replicas and a provider that ends a grant when a rotated refresh token is used twice.
    pub async fn start(access_ttl: u32) -> Self {
        let ttl = access_ttl.to_string();
        let provider = Provider::start(&[("ACCESS_TTL", ttl.as_str()), ("ROTATE", "1")]).await;
        let redis = Redis::start().await;
        let first = provider.mint_refresh_token("service", "offline_access read").await;
        let configuration = configuration(&redis.url(), &provider.token_url());
        Self::assemble(provider, redis, first, vec![configuration; 3]).await
    }
}

impl<R> Replicas<R> {
    /// One replica for each of these configurations.
    pub async fn assemble(provider: Provider, redis: R, first: String, configurations: Vec<String>) -> Self {
        let files = files(&first);
        let each = join_all(configurations.iter().map(|text| Bearerd::start(text, &files))).await;
        let clients = Clients::of(&each).await;
        Self { provider, redis, each, clients, first, configurations }
    }

    /// Starts a replica again, in its own directory, after it was killed or not.
    pub async fn restart(&mut self, replica: usize) {
        let ended = self.each.remove(replica);
        let started = ended.start_again(&self.configurations[replica]).await;
        *self.clients.0[replica].lock() = connect(&started).await;
        self.each.insert(replica, started);
    }

    pub async fn get(&self, replica: usize) -> Result<Token, Status> {
        self.clients.get(replica).await
    }

    /// Asks in the background.
    pub fn ask(&self, replica: usize) -> JoinHandle<Result<Token, Status>> {
        let clients = self.clients.clone();
        tokio::spawn(async move { clients.get(replica).await })
    }

    pub async fn report(&self, replica: usize, generation: u64) -> Result<(InvalidateTokenOutcome, Token), Status> {
        self.clients.report(replica, generation).await
    }

    /// How often the provider was asked, and that it never refused.
    pub async fn refreshes(&self) -> usize {
        let log = self.provider.log().await;
        let bad: Vec<_> = log.iter().filter(|entry| entry.status.is_some_and(|status| status != 200)).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let presented: HashSet<_> = log.iter().filter_map(|entry| entry.presented.as_ref()).collect();
        assert_eq!(presented.len(), log.len(), "no refresh token is presented twice");
        log.len()
    }
}

/// The secrets that [`configuration`] names.
pub fn files(first: &str) -> [(&str, &str); 3] {
    [("seal", SEAL_KEY), ("client-secret", "web-secret"), ("refresh-token", first)]
}

/// What a replica is configured with; more keys of the credential can follow. Sentinels and clusters of tests have no
/// passwords, and no other host knows them.
pub fn configuration(redis: &str, token_url: &str) -> String {
    format!(
        r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
kind = "redis"
url = "{redis}"
allow_insecure = true

[seal]
keys = [{{ id = "test", file = "seal" }}]

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
