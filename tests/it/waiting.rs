//! Waiting for somebody else's refresh: it ends, it does no harm, and it is not taken for a failure of the grant.

use bearerd::proto::{
    DescribeGrantRequest, GetTokenRequest, Token, grant_admin_client::GrantAdminClient,
    token_service_client::TokenServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    Bearerd, Provider, Redis,
    house::reason,
    replicas::{configuration, files},
};

/// Times that a test can wait out.
const TIMES: &str = r#"[refresh]
http_timeout = "800ms"
commit_budget = "200ms"
lease = "1500ms"
max_wait = "2s"

[seal]"#;

async fn get(client: &TokenServiceClient<Channel>, refused_generation: u64) -> Result<Token, Status> {
    let request = GetTokenRequest { credential: "crm".to_owned(), refused_generation, ..GetTokenRequest::default() };
    client.clone().get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_vain_is_told_to_come_back_and_the_grant_is_untouched() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let redis = Redis::start().await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let config = configuration(&redis.url(), &provider.token_url()).replace("[seal]", TIMES);
    let bearerd = Bearerd::start(&config, &files(&first)).await;
    let client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let token = get(&client, 0).await.unwrap();

    // Somebody holds the lease and neither comes to an end nor goes.
    let keys = redis.keys().await;
    let lease = keys.iter().find_map(|key| key.strip_suffix(":grant")).map(|unit| format!("{unit}:lease")).unwrap();
    redis.cli::<()>(&["SET", &lease, "somebody-else"]).await;

    let (code, word, wait) = reason(&get(&client, token.generation).await.unwrap_err());
    assert_eq!((code, word.as_str()), (Code::Unavailable, "REFRESH_IN_PROGRESS"));
    assert!(wait.is_some());
    assert_eq!(provider.log().await.len(), 1, "nobody goes on without the lease");
    let mut admin = GrantAdminClient::connect(bearerd.grpc()).await.unwrap();
    let ask = DescribeGrantRequest { credential: "crm".to_owned(), ..DescribeGrantRequest::default() };
    let grant = admin.describe_grant(ask).await.unwrap().into_inner();
    assert_eq!(grant.last_error, "", "to wait in vain is no failure of the grant");

    redis.cli::<()>(&["DEL", &lease]).await;
    let newer = get(&client, token.generation).await.unwrap();
    assert!(newer.generation > token.generation);
    assert!(provider.alive(&first).await);
}
