//! The refresh token in the configuration is only a grant's first one: each is taken over once.

use std::fs;

use bearerd::proto::{GetTokenRequest, token_service_client::TokenServiceClient};

use crate::support::{Bearerd, Provider, fingerprint};

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

async fn refresh(bearerd: &Bearerd) {
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let mut ask = async |refused_generation| {
        let request =
            GetTokenRequest { credential: "crm".to_owned(), refused_generation, ..GetTokenRequest::default() };
        client.get_token(request).await.unwrap().into_inner().token.unwrap().generation
    };
    let current = ask(0).await;
    ask(current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yesterdays_configuration_does_not_bring_its_refresh_token_back() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let config = CONFIGURATION.replace("@TOKEN_URL@", &provider.token_url());
    let yesterday = provider.mint_refresh_token("service", "offline_access read").await;
    let today = provider.mint_refresh_token("service", "offline_access read").await;
    let files = [("client-secret", "web-secret"), ("refresh-token", yesterday.as_str())];
    let mut bearerd = Bearerd::start(&config, &files).await;
    refresh(&bearerd).await;
    // The same file again, a new one, and the one of before, as while replicas are rolled out.
    for file in [&yesterday, &today, &yesterday, &today] {
        fs::write(bearerd.directory().join("refresh-token"), file).unwrap();
        bearerd = bearerd.start_again(&config).await;
        refresh(&bearerd).await;
    }
    let log = provider.log().await;
    for token in [&yesterday, &today] {
        let print = fingerprint(token);
        let times = log.iter().filter(|entry| entry.presented.as_ref() == Some(&print)).count();
        assert_eq!(times, 1, "a refresh token of a file is used once: {log:?}");
    }
    assert!(log.iter().all(|entry| entry.status == Some(200)), "{log:?}");
    assert!(provider.alive(&today).await);
}
