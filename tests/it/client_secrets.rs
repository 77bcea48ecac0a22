//! While a client secret is replaced, the old and the new one are configured, and the provider knows one of them.

use bearerd::{
    proto::{DescribeGrantRequest, GetTokenRequest, token_service_client::TokenServiceClient},
    sandbox::Outcome,
};
use tonic::Code;

use crate::support::{
    Bearerd, Provider, fingerprint,
    house::{House, ROTATING, reason},
};

const ONE: &str = "client_secret = { env = \"CLIENT_SECRET\" }";

/// The words of the sandbox's answers, in order.
fn answers(house: &House) -> Vec<&'static str> {
    let word = |outcome: Outcome| match outcome {
        Outcome::Issued => "issued",
        Outcome::Refused(word) => word,
        Outcome::Faulted => "faulted",
    };
    house.sandbox.journal().into_iter().map(|entry| word(entry.outcome)).collect()
}

fn with(secrets: &[&str], rest: &str) -> String {
    let secrets: Vec<_> = secrets.iter().map(|name| format!("{{ env = \"{name}\" }}")).collect();
    ROTATING.replace(ONE, &format!("client_secret = [{}]\n{rest}", secrets.join(", ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_secret_is_tried_at_once_and_then_first() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let auth = format!("client_auth = \"{method}\"");
        let house = House::with(&with(&["AWKWARD_SECRET", "API_KEY", "CLIENT_SECRET"], &auth)).await;
        let token = house.get("demo").await.unwrap();
        assert_eq!(answers(&house), ["invalid_client", "invalid_client", "issued"], "{method}");
        house.report("demo", token.generation).await.unwrap();
        assert_eq!(answers(&house)[3..], ["issued"], "{method}");
        let presented: Vec<_> = house.sandbox.journal().iter().map(|entry| entry.presented.unwrap().rotation).collect();
        assert_eq!(presented, [0, 0, 0, 1], "only what was not accepted is sent again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_none_is_right_the_grant_is_as_it_was() {
    let house = House::with(&with(&["AWKWARD_SECRET", "API_KEY"], "")).await;
    let status = house.get("demo").await.unwrap_err();
    let (code, word, _) = reason(&status);
    assert_eq!((code, word.as_str()), (Code::FailedPrecondition, "CLIENT_CONFIGURATION_REJECTED"));
    assert_eq!(answers(&house), ["invalid_client", "invalid_client"]);
    let ask = DescribeGrantRequest { credential: "demo".to_owned(), ..DescribeGrantRequest::default() };
    let grant = house.grants.clone().describe_grant(ask).await.unwrap().into_inner();
    assert!(!grant.outcome_unknown, "nothing is open: the refresh token was not used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_answer_is_followed_by_the_next_secret() {
    use bearerd::sandbox::Fault;
    for fault in [
        Fault::ErrorWord("unauthorized_client".to_owned()),
        Fault::ErrorWord("invalid_request".to_owned()),
        Fault::Status(401),
        Fault::Status(500),
        Fault::DropAfterHandling,
    ] {
        let house = House::with(&with(&["CLIENT_SECRET", "AWKWARD_SECRET"], "")).await;
        house.sandbox.fail_next(fault.clone());
        assert!(house.get("demo").await.is_err(), "{fault:?}");
        assert_eq!(house.asked(), 1, "{fault:?}");
    }
}

/// node-oidc-provider ends a grant whose refresh token is used twice; to be refused is no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_provider_takes_the_refresh_token_with_the_next_secret() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let config = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
path = "@DIR@/bearerd.redb"

[credentials.crm]
grant = "refresh_token"
token_url = "@TOKEN_URL@"
client_id = "web"
client_secret = [{ file = "new-secret" }, { file = "client-secret" }]
refresh_token = { file = "refresh-token" }
"#;
    let config = config.replace("@TOKEN_URL@", &provider.token_url());
    let files = [("new-secret", "not-yet"), ("client-secret", "web-secret"), ("refresh-token", first.as_str())];
    let bearerd = Bearerd::start(&config, &files).await;
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let ask = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
    let token = client.get_token(ask).await.unwrap().into_inner().token.unwrap();
    assert!(provider.introspect(&token.access_token).await);
    let log = provider.log().await;
    let statuses: Vec<_> = log.iter().map(|entry| (entry.status, entry.error.as_deref())).collect();
    assert_eq!(statuses, [(Some(401), Some("invalid_client")), (Some(200), None)]);
    assert_eq!(log[1].presented, Some(fingerprint(&first)));
    assert!(provider.alive(&first).await);
    assert!(!bearerd.log().contains("web-secret") && !bearerd.log().contains("not-yet"), "{}", bearerd.log());
}
