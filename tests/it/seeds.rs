//! The refresh token in the configuration is only a grant's first one: it counts while the store has no living grant.

use std::{fs, process::Command};

use bearerd::proto::{
    DescribeGrantRequest, GetTokenRequest, GrantState, grant_admin_client::GrantAdminClient,
    token_service_client::TokenServiceClient,
};
use tonic::Status;

use crate::support::{Bearerd, PATIENCE, Provider, eventually, fingerprint, house::reason, replace};

const CONFIGURATION: &str = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
kind = "embedded"
path = "@DIR@/bearerd.redb"

[credentials.crm]
grant = "refresh_token"
token_url = "@TOKEN_URL@"
client_id = "web"
client_secret = { file = "client-secret" }
refresh_token = { file = "refresh-token" }
min_age = "0s"
"#;

const IGNORED: &str = "the configured refresh_token is ignored";

/// Asks for a token newer than this generation, and returns its own.
async fn newer_than(bearerd: &Bearerd, refused_generation: u64) -> Result<u64, Status> {
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let request = GetTokenRequest { credential: "crm".to_owned(), refused_generation, ..GetTokenRequest::default() };
    client.get_token(request).await.map(|answer| answer.into_inner().token.unwrap().generation)
}

/// Has the refresh token used.
async fn refresh(bearerd: &Bearerd) {
    let current = newer_than(bearerd, 0).await.unwrap();
    newer_than(bearerd, current).await.unwrap();
}

async fn state(bearerd: &Bearerd) -> GrantState {
    let mut client = GrantAdminClient::connect(bearerd.grpc()).await.unwrap();
    let request = DescribeGrantRequest { credential: "crm".to_owned(), ..DescribeGrantRequest::default() };
    client.describe_grant(request).await.unwrap().into_inner().state()
}

/// Ends the grant of a refresh token, as a second use of it does at this provider.
async fn end(provider: &Provider, used: &str) {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("grant_type", "refresh_token"), ("refresh_token", used)])
        .finish();
    let request = reqwest::Client::new().post(provider.token_url()).basic_auth("web", Some("web-secret"));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert!(!provider.alive(used).await);
}

async fn presented(provider: &Provider, token: &str) -> usize {
    let print = fingerprint(token);
    provider.log().await.iter().filter(|entry| entry.presented.as_ref() == Some(&print)).count()
}

async fn provider() -> (Provider, String) {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let config = CONFIGURATION.replace("@TOKEN_URL@", &provider.token_url());
    (provider, config)
}

/// N2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_grant_ignores_every_other_configured_refresh_token_and_says_so_once() {
    let (provider, config) = provider().await;
    let yesterday = provider.mint_refresh_token("service", "offline_access read").await;
    let today = provider.mint_refresh_token("service", "offline_access read").await;
    let files = [("client-secret", "web-secret"), ("refresh-token", yesterday.as_str())];
    let mut bearerd = Bearerd::start(&config, &files).await;
    refresh(&bearerd).await;
    // The same file again, a wrong one, a new one, and the one of before, as while replicas are rolled out.
    for (file, ignored) in [(&yesterday, false), (&"dummy".to_owned(), true), (&today, true), (&yesterday, false)] {
        fs::write(bearerd.directory().join("refresh-token"), file).unwrap();
        bearerd = bearerd.start_again(&config).await;
        if ignored {
            // Told when the configuration was read, before a token is due, and not again then.
            eventually(PATIENCE, async || bearerd.log().contains(IGNORED)).await;
            eventually(PATIENCE, async || bearerd.log().contains("`bearerd grant import crm`")).await;
        }
        refresh(&bearerd).await;
        assert_eq!(bearerd.log().matches(IGNORED).count(), usize::from(ignored), "{}", bearerd.log());
    }
    assert_eq!(presented(&provider, &yesterday).await, 1);
    assert_eq!(presented(&provider, &today).await, 0);
    assert!(provider.log().await.iter().all(|entry| entry.status == Some(200)));
    assert!(provider.alive(&yesterday).await);
}

/// N2, for a process that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_refresh_token_that_changes_while_bearerd_serves_replaces_no_living_grant() {
    let (provider, config) = provider().await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let files = [("client-secret", "web-secret"), ("refresh-token", first.as_str())];
    let bearerd = Bearerd::start(&config, &files).await;
    refresh(&bearerd).await;
    let file = bearerd.directory().join("refresh-token");
    for (times, content) in [(1, "dummy"), (2, "another dummy")] {
        replace(&file, content);
        eventually(PATIENCE, async || bearerd.log().matches(IGNORED).count() == times).await;
        refresh(&bearerd).await;
    }
    fs::remove_file(&file).unwrap();
    eventually(PATIENCE, async || bearerd.log().contains("names a file that does not exist")).await;
    refresh(&bearerd).await;
    assert_eq!(bearerd.log().matches(IGNORED).count(), 2, "{}", bearerd.log());
    assert!(provider.log().await.iter().all(|entry| entry.status == Some(200)));
}

/// N2: a rotated Secret repairs a dead grant, and yesterday's does not kill the one after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_grant_takes_over_a_configured_refresh_token_that_it_never_saw() {
    let (provider, config) = provider().await;
    let yesterday = provider.mint_refresh_token("service", "offline_access read").await;
    let today = provider.mint_refresh_token("service", "offline_access read").await;
    let files = [("client-secret", "web-secret"), ("refresh-token", yesterday.as_str())];
    let mut bearerd = Bearerd::start(&config, &files).await;
    let current = newer_than(&bearerd, 0).await.unwrap();
    end(&provider, &yesterday).await;
    for _ in 0..2 {
        let refused = newer_than(&bearerd, current).await.unwrap_err();
        assert_eq!(reason(&refused).1, "REAUTHORIZATION_REQUIRED");
        assert_eq!(state(&bearerd).await, GrantState::Dead);
        bearerd = bearerd.start_again(&config).await;
    }
    assert_eq!(presented(&provider, &yesterday).await, 2, "once by bearerd");
    replace(&bearerd.directory().join("refresh-token"), &today);
    eventually(PATIENCE, async || newer_than(&bearerd, current).await.is_ok()).await;
    assert_eq!(state(&bearerd).await, GrantState::Active);
    eventually(PATIENCE, async || bearerd.log().contains("the configured secret replaced a dead grant")).await;
    refresh(&bearerd).await;
    replace(&bearerd.directory().join("refresh-token"), &yesterday);
    refresh(&bearerd).await;
    assert!(provider.alive(&today).await);
    assert_eq!((presented(&provider, &yesterday).await, presented(&provider, &today).await), (2, 1));
}

/// N2: a dummy had to be put into the variable, because without one nothing started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_first_refresh_token_bearerd_starts_and_names_what_is_missing() {
    let (provider, config) = provider().await;
    let variable = config.replace("{ file = \"refresh-token\" }", "{ env = \"BEARERD_TEST_NOT_SET\" }");
    let mut bearerd = Bearerd::start(&variable, &[("client-secret", "web-secret")]).await;
    let missing = "`credentials.crm.refresh_token` names a variable that is not set";
    eventually(PATIENCE, async || bearerd.log().contains(missing)).await;
    assert_eq!(reason(&newer_than(&bearerd, 0).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    assert_eq!(state(&bearerd).await, GrantState::Absent);

    let file = bearerd.directory().join("bearerd.toml");
    let check = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "--config"]).arg(file).output().unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    assert!(check.status.success() && told.contains(missing) && told.contains("bearerd grant import"), "{told}");

    // Once a grant is there it goes on without the file, and with an empty one.
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    fs::write(bearerd.directory().join("refresh-token"), first).unwrap();
    bearerd = bearerd.start_again(&config).await;
    refresh(&bearerd).await;
    fs::write(bearerd.directory().join("refresh-token"), "\n").unwrap();
    bearerd = bearerd.start_again(&config).await;
    eventually(PATIENCE, async || bearerd.log().contains("names an empty file")).await;
    refresh(&bearerd).await;
    assert!(provider.log().await.iter().all(|entry| entry.status == Some(200)));
}
