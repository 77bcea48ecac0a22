//! What a stored grant belongs to, and what makes other tokens: a changed endpoint, issuer or parameter.

use std::sync::Arc;

use bearerd::{
    proto::{
        DescribeGrantRequest, DescribeGrantResponse, GetTokenRequest, grant_admin_client::GrantAdminClient,
        token_service_client::TokenServiceClient,
    },
    sandbox::{Options, Outcome, Sandbox},
};
use tonic::Status;

use crate::support::{
    Bearerd, PATIENCE, Provider, Redis, eventually,
    house::{House, ROTATING, reason},
};

const CONFIGURATION: &str = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
kind = "embedded"
path = "@DIR@/bearerd.redb"

[credentials.crm]
grant = "refresh_token"
client_id = "web"
client_secret = { file = "client-secret" }
refresh_token = { file = "refresh-token" }
min_age = "0s"
"#;

const ELSEWHERE: &str = "the stored grant belongs to another token_url or client_id";

struct Desk {
    provider: Provider,
    bearerd: Bearerd,
    changes: f64,
}

impl Desk {
    async fn open() -> Self {
        let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
        let first = provider.mint_refresh_token("service", "offline_access read").await;
        let config = format!("{CONFIGURATION}token_url = \"{}\"\n", provider.token_url());
        let files = [("client-secret", "web-secret"), ("refresh-token", first.as_str())];
        let bearerd = Bearerd::start(&config, &files).await;
        Self { provider, bearerd, changes: 0.0 }
    }

    /// Has another configuration in force.
    async fn configure(&mut self, lines: &str) {
        self.bearerd.write_config(&[CONFIGURATION, lines].concat());
        self.changes += 1.0;
        eventually(PATIENCE, async || {
            self.bearerd.metric("bearerd_reloads_total{result=\"ok\"}").await >= self.changes
        })
        .await;
    }

    async fn newer_than(&self, refused_generation: u64) -> Result<u64, Status> {
        let mut client = TokenServiceClient::connect(self.bearerd.grpc()).await.unwrap();
        let request =
            GetTokenRequest { credential: "crm".to_owned(), refused_generation, ..GetTokenRequest::default() };
        client.get_token(request).await.map(|answer| answer.into_inner().token.unwrap().generation)
    }

    /// Has the refresh token used.
    async fn refresh(&self) {
        let current = self.newer_than(0).await.unwrap();
        self.newer_than(current).await.unwrap();
    }

    async fn describe(&self) -> DescribeGrantResponse {
        let mut client = GrantAdminClient::connect(self.bearerd.grpc()).await.unwrap();
        let request = DescribeGrantRequest { credential: "crm".to_owned(), ..DescribeGrantRequest::default() };
        client.describe_grant(request).await.unwrap().into_inner()
    }

    async fn is_unharmed(&self) {
        assert!(self.provider.log().await.iter().all(|entry| entry.status == Some(200)));
    }
}

/// P-K7, row 49.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_not_sent_to_another_endpoint_unless_the_former_one_is_named() {
    let mut desk = Desk::open().await;
    desk.refresh().await;
    let (old, asked) = (desk.provider.token_url(), desk.provider.log().await.len());
    let moved = format!("token_url = \"{old}?moved=1\"\n");
    desk.configure(&moved).await;
    // Told when the configuration was read, and not with each call.
    eventually(PATIENCE, async || desk.bearerd.log().contains(ELSEWHERE)).await;
    for _ in 0..3 {
        assert_eq!(reason(&desk.newer_than(0).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    }
    let log = desk.bearerd.log();
    assert_eq!(log.matches(ELSEWHERE).count(), 1, "{log}");
    assert!(log.contains("`formerly`") && log.contains("`bearerd grant import crm`"), "{log}");
    let described = desk.describe().await;
    assert_eq!((described.stored_token_url.as_str(), described.stored_client_id.as_str()), (old.as_str(), "web"));
    assert_eq!(desk.provider.log().await.len(), asked, "nothing is sent");

    desk.configure(&format!("{moved}formerly = [\"{old}\"]\n")).await;
    desk.refresh().await;
    assert_eq!(desk.describe().await.stored_token_url, "");
    // From now on it belongs to the new endpoint.
    desk.configure(&moved).await;
    desk.refresh().await;
    desk.configure(&format!("token_url = \"{old}\"\n")).await;
    assert_eq!(reason(&desk.newer_than(0).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    desk.is_unharmed().await;
}

/// The identity of a credential: add `issuer` to a living grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_follows_its_issuer_and_stays_when_one_is_added() {
    let mut desk = Desk::open().await;
    desk.refresh().await;
    let (url, issuer) = (desk.provider.token_url(), desk.provider.issuer().to_owned());
    let issuer = format!("issuer = \"{issuer}\"\n");
    desk.configure(&format!("token_url = \"{url}\"\n{issuer}")).await;
    desk.refresh().await;
    desk.configure(&format!("token_url = \"{url}?moved=1\"\n{issuer}")).await;
    desk.refresh().await;
    desk.configure(&format!("token_url = \"{url}?moved=1\"\nissuer = \"https://another.example\"\n")).await;
    desk.refresh().await;
    assert!(!desk.bearerd.log().contains(ELSEWHERE), "{}", desk.bearerd.log());
    desk.is_unharmed().await;
}

/// The identity of a credential: parameters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_parameters_make_other_tokens_of_the_same_grant() {
    let mut desk = Desk::open().await;
    let url = format!("token_url = \"{}\"\n", desk.provider.token_url());
    let before = desk.newer_than(0).await.unwrap();
    desk.configure(&format!("{url}parameters = {{ audience = \"a\" }}\n")).await;
    let after = desk.newer_than(0).await.unwrap();
    assert!(after > before, "the token in memory and store is not served");
    assert_eq!(desk.newer_than(0).await.unwrap(), after);
    desk.configure(&format!("{url}parameters = {{ audience = \"b\" }}\n")).await;
    assert!(desk.newer_than(0).await.unwrap() > after);
    assert_eq!(desk.provider.log().await.len(), 3);
    desk.is_unharmed().await;
}

/// The identity of a credential, as during a roll-out.
#[tokio::test]
async fn replicas_with_different_parameters_do_not_replace_each_others_tokens() {
    let redis = Redis::start().await;
    let sandbox = Arc::new(Sandbox::start(Options::default()).await.unwrap());
    let old = House::beside(&redis, &sandbox, ROTATING).await;
    let new = House::beside(&redis, &sandbox, &[ROTATING, "parameters = { audience = \"a\" }\n"].concat()).await;
    let yesterdays = old.get("demo").await.unwrap();
    let todays = new.get("demo").await.unwrap();
    assert_ne!(yesterdays.access_token, todays.access_token);
    for _ in 0..20 {
        assert_eq!(old.get("demo").await.unwrap().access_token, yesterdays.access_token);
        assert_eq!(new.get("demo").await.unwrap().access_token, todays.access_token);
    }
    assert!(sandbox.journal().iter().all(|entry| entry.outcome == Outcome::Issued));
    assert_eq!(old.asked(), 2, "each replica asks once");
}
