//! A provider that wants a rest gets it from every grant of the client, on every replica, and no other provider does.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bearerd::{
    proto::{GetTokenRequest, Token},
    sandbox::{Fault, Options, Sandbox},
};
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, Redis, eventually,
    house::{House, reason},
};

/// Two grants of one client, one of another client, and one of the same client at another provider.
const FOUR: &str = r#"
[credentials.one]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo-confidential"
client_secret = { env = "CLIENT_SECRET" }
[credentials.two]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "demo-confidential"
client_secret = { env = "CLIENT_SECRET" }
refresh_token = { env = "REFRESH_TOKEN" }
[credentials.client]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "demo awkward:client"
client_secret = { env = "AWKWARD_SECRET" }
[credentials.provider]
grant = "client_credentials"
token_url = "{token_url}?tenant=other"
client_id = "demo-confidential"
client_secret = { env = "CLIENT_SECRET" }
"#;

/// Two replicas on one Redis, before one sandbox.
async fn two_replicas() -> (Redis, Arc<Sandbox>, House, House) {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let text = FOUR.replace("demo awkward:client", bearerd::sandbox::DEMO_AWKWARD);
    let (here, there) = (House::beside(&redis, &sandbox, &text).await, House::beside(&redis, &sandbox, &text).await);
    (redis, sandbox, here, there)
}

fn in_seconds(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_grant_is_told_holds_for_all_of_the_client_on_every_replica() {
    for (fault, code, word) in [
        (Fault::Wait { status: 429, retry_after: "60".to_owned() }, Code::ResourceExhausted, "PROVIDER_RATE_LIMITED"),
        (Fault::Wait { status: 429, retry_after: in_seconds(60) }, Code::ResourceExhausted, "PROVIDER_RATE_LIMITED"),
        (Fault::Wait { status: 503, retry_after: in_seconds(60) }, Code::Unavailable, "PROVIDER_UNAVAILABLE"),
    ] {
        let (redis, sandbox, here, there) = two_replicas().await;
        sandbox.fail_next(fault.clone());
        let told = |answer: Result<Token, Status>| reason(&answer.unwrap_err());
        for (house, credential) in [(&here, "one"), (&there, "two"), (&here, "two"), (&there, "one"), (&there, "two")] {
            let (got, reason, wait) = told(house.get(credential).await);
            assert_eq!((got, reason.as_str()), (code, word), "{fault:?} {credential}");
            let wait = wait.unwrap();
            assert!(
                wait > Duration::from_secs(20) && wait < Duration::from_secs(90),
                "{fault:?} {credential} {wait:?}"
            );
        }
        assert_eq!(sandbox.journal().len(), 1, "{fault:?}: nobody else reached the provider");
        // Whose client or endpoint is another one is not concerned.
        for credential in ["client", "provider"] {
            there.get(credential).await.unwrap();
        }
        // No failure is noted of a grant that only waited with the others, and no lease is left behind.
        let leases = redis.keys().await.into_iter().filter(|key| key.ends_with(":lease")).count();
        assert_eq!(leases, 0);
        let grant = bearerd::proto::DescribeGrantRequest {
            credential: "two".to_owned(),
            ..bearerd::proto::DescribeGrantRequest::default()
        };
        let described = here.grants.clone().describe_grant(grant).await.unwrap().into_inner();
        assert!(described.last_error.is_empty() && !described.outcome_unknown, "{described:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_is_served_meanwhile_and_afterwards_all_is_as_before() {
    let (_redis, sandbox, here, there) = two_replicas().await;
    let valid = there.get("two").await.unwrap();
    sandbox.fail_next(Fault::Wait { status: 429, retry_after: "3".to_owned() });
    assert_eq!(reason(&here.get("one").await.unwrap_err()).1, "PROVIDER_RATE_LIMITED");
    let longer =
        GetTokenRequest { credential: "two".to_owned(), scopes: vec!["read".to_owned()], ..GetTokenRequest::default() };
    assert_eq!(reason(&there.ask(longer.clone()).await.unwrap_err()).1, "PROVIDER_RATE_LIMITED");
    assert_eq!(there.get("two").await.unwrap().generation, valid.generation);
    assert_eq!(sandbox.journal().len(), 2);
    eventually(PATIENCE, async || there.ask(longer.clone()).await.is_ok() && here.get("one").await.is_ok()).await;
    assert_eq!(sandbox.journal().len(), 4);
}
