//! Answers of a provider that get lost after it has acted. What can be saved depends on how it rotates refresh tokens.

use std::time::Duration;

use bearerd::{
    proto::{GetTokenRequest, Token, token_service_client::TokenServiceClient},
    sandbox::{Fault, Options, Rotation},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{
    Bearerd, PATIENCE, Provider, Proxy, eventually, fingerprint,
    house::{House, ROTATING, reason},
};

/// bearerd, a provider, and a network between them that loses answers.
struct Line {
    provider: Provider,
    proxy: Proxy,
    bearerd: Bearerd,
    config: String,
    first: String,
}

impl Line {
    /// `rotation` is what bearerd is told about the provider.
    async fn to(provider: Provider, scope: &str, rotation: &str) -> Self {
        let proxy = Proxy::start(provider.issuer()).await;
        let first = provider.mint_refresh_token("service", scope).await;
        let config = format!(
            r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
path = "@DIR@/bearerd.redb"

[credentials.crm]
grant = "refresh_token"
token_url = "{}/token"
client_id = "web"
client_secret = {{ file = "client-secret" }}
refresh_token = {{ file = "refresh-token" }}
{rotation}
"#,
            proxy.url()
        );
        let files = [("client-secret", "web-secret"), ("refresh-token", first.as_str())];
        let bearerd = Bearerd::start(&config, &files).await;
        Self { provider, proxy, bearerd, config, first }
    }

    async fn client(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::connect(self.bearerd.grpc()).await.unwrap()
    }

    async fn get(&self) -> Result<Token, Status> {
        let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
        self.client().await.get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
    }

    /// Has the answer to the first token request lost.
    async fn lose_the_first_answer(&self) {
        self.proxy.lose_next_answer();
        let status = self.get().await.unwrap_err();
        let (code, word, wait) = reason(&status);
        assert_eq!((code, word.as_str()), (Code::Unavailable, "REFRESH_OUTCOME_UNKNOWN"));
        assert!(wait.is_some());
    }

    /// Asks until there is a token.
    async fn recovered(&self) -> Token {
        let mut token = None;
        eventually(PATIENCE, async || {
            token = self.get().await.ok();
            token.is_some()
        })
        .await;
        token.unwrap()
    }

    /// Asks until the grant is said to be lost.
    async fn lost(&self) {
        eventually(PATIENCE, async || is_lost(&self.get().await.unwrap_err())).await;
    }

    /// The statuses of the provider's answers.
    async fn answers(&self) -> Vec<Option<u16>> {
        self.provider.log().await.iter().map(|entry| entry.status).collect()
    }
}

fn is_lost(status: &Status) -> bool {
    let info = status.get_details_error_info().unwrap();
    let lost = info.metadata.get("cause").is_some_and(|cause| cause == "REFRESH_OUTCOME_LOST");
    assert!(!lost || reason(status) == (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED".to_owned(), None));
    lost
}

/// The provider takes the second use for theft. That this is why the grant ended is told apart from a consent that was
/// taken back.
async fn a_strict_provider_ends_the_grant(provider: Provider, scope: &str, rotation: &str) {
    let line = Line::to(provider, scope, rotation).await;
    line.lose_the_first_answer().await;
    assert!(line.provider.alive(&line.first).await);
    line.lost().await;
    assert!(!line.provider.alive(&line.first).await);
    // The refresh token was presented twice and then never again.
    assert!(is_lost(&line.get().await.unwrap_err()));
    assert_eq!(line.answers().await, [Some(200), Some(400)]);
}

#[tokio::test]
async fn node_oidc_provider_ends_the_grant() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    a_strict_provider_ends_the_grant(provider, "offline_access read", "provider = \"node-oidc-provider\"").await;
}

#[tokio::test]
async fn django_with_reuse_protection_ends_the_grant() {
    let provider = Provider::django(&[("REUSE_PROTECTION", "1")]).await;
    a_strict_provider_ends_the_grant(provider, "read", "").await;
}

#[tokio::test]
async fn django_without_rotation_answers_again() {
    let provider = Provider::django(&[("ROTATE", "0")]).await;
    let line = Line::to(provider, "read", "rotation = \"none\"").await;
    line.lose_the_first_answer().await;
    let token = line.recovered().await;
    assert!(line.provider.introspect(&token.access_token).await);
    assert_eq!(line.answers().await, [Some(200), Some(200)]);
}

const GRACE: &str = "rotation = \"grace\"\nrotation_grace = \"30s\"";

#[tokio::test]
async fn django_gives_the_same_pair_in_its_grace_period_also_to_a_refresh_ahead_of_time() {
    let settings = [("REUSE_PROTECTION", "1"), ("GRACE", "30"), ("ACCESS_TTL", "4")];
    let line = Line::to(Provider::django(&settings).await, "read", GRACE).await;
    line.lose_the_first_answer().await;
    let first = line.recovered().await;
    assert!(line.provider.introspect(&first.access_token).await);

    // Used once more, so that it is replaced ahead of time. Nobody asks for a token after that.
    line.get().await.unwrap();
    line.proxy.lose_next_answer();
    eventually(PATIENCE, async || line.answers().await == [Some(200); 4]).await;
    // The answer that was logged is stored a moment later.
    eventually(PATIENCE, async || line.get().await.is_ok_and(|token| token.generation > first.generation)).await;
    let log = line.provider.log().await;
    for (lost, again) in [(&log[0], &log[1]), (&log[2], &log[3])] {
        assert_eq!((&lost.presented, &lost.issued), (&again.presented, &again.issued));
        assert_ne!(lost.presented, lost.issued);
    }
    assert_eq!(log[0].presented, Some(fingerprint(&line.first)));
    assert_eq!(log[2].presented, log[0].issued);
    assert!(line.provider.alive(&line.first).await);
}

#[tokio::test]
async fn a_process_that_was_killed_before_it_stored_the_answer_gets_it_again_in_the_grace_period() {
    let provider = Provider::django(&[("REUSE_PROTECTION", "1"), ("GRACE", "30")]).await;
    let mut line = Line::to(provider, "read", GRACE).await;
    line.proxy.hold_next_answer();
    let mut client = line.client().await;
    let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
    let asking = tokio::spawn(async move { client.get_token(request).await });
    eventually(PATIENCE, async || line.answers().await == [Some(200)]).await;
    line.bearerd = line.bearerd.start_again(&line.config).await;
    assert!(asking.await.unwrap().is_err());

    let token = line.recovered().await;
    assert!(line.provider.introspect(&token.access_token).await);
    let log = line.provider.log().await;
    assert_eq!(log.len(), 2);
    assert_eq!((&log[0].presented, &log[0].issued), (&log[1].presented, &log[1].issued));
    assert!(line.provider.alive(&line.first).await);
}

#[tokio::test]
async fn a_refresh_token_that_does_not_rotate_is_used_again_before_anybody_needs_it() {
    let options =
        Options { access_token_lifetime: Duration::from_secs(4), rotation: Rotation::Off, ..Options::default() };
    let house = House::furnished(options, &format!("{ROTATING}rotation = \"none\"\nkeep_alive = true\n")).await;
    house.sandbox.fail_next(Fault::DropAfterHandling);
    assert_eq!(reason(&house.get("demo").await.unwrap_err()).1, "REFRESH_OUTCOME_UNKNOWN");
    let mut first = None;
    eventually(PATIENCE, async || {
        first = house.get("demo").await.ok();
        first.is_some()
    })
    .await;
    assert_eq!(house.asked(), 2);

    // From here on no caller asks, so whatever is asked for is asked for ahead of time.
    house.sandbox.fail_next(Fault::DropAfterHandling);
    eventually(PATIENCE, async || house.asked() >= 4).await;
    // The provider has answered; the answer may still be on its way into the store.
    let first = first.unwrap().generation;
    eventually(PATIENCE, async || house.get("demo").await.unwrap().generation > first).await;
}
