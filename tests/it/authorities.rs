//! Providers are believed when the system's authorities vouch for them, and when nobody can be found who does, nothing is sent.

use bearerd::proto::{GetTokenRequest, token_service_client::TokenServiceClient};
use tonic::{Code, Status};

use crate::{
    identity::{authority::Authority, kubernetes::publish},
    support::{AUTHORITIES, Bearerd},
};

const TOKEN: &str = r#"{"access_token":"tls-token","token_type":"Bearer","expires_in":600}"#;

/// Starts a replica that takes these for the system's authorities, and asks it for a token of a provider at this port.
async fn token(authorities: &str, port: u16) -> (Bearerd, Result<String, Status>) {
    let config = format!(
        r#"
        [server]
        listen = "@LISTEN@"
        admin_listen = "@ADMIN@"

        [store]
        path = "@DIR@/bearerd.redb"

        [credentials.tls]
        grant = "client_credentials"
        token_url = "https://localhost:{port}/token"
        client_id = "bearerd"
        client_secret = {{ file = "@DIR@/secret" }}
        "#
    );
    let bearerd = Bearerd::start(&config, &[("secret", "s"), (AUTHORITIES, authorities)]).await;
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let request = GetTokenRequest { credential: "tls".to_owned(), ..GetTokenRequest::default() };
    let answer = client.get_token(request).await;
    (bearerd, answer.map(|answer| answer.into_inner().token.unwrap().access_token))
}

#[tokio::test]
async fn a_provider_is_believed_when_an_authority_of_the_system_vouches_for_it() {
    let (authority, other) = (Authority::new("system"), Authority::new("other"));
    let port = publish(TOKEN.to_owned(), &authority.server()).await;
    let (_bearerd, answer) = token(authority.pem(), port).await;
    assert_eq!(answer.unwrap(), "tls-token");
    for authorities in [other.pem(), ""] {
        let (bearerd, answer) = token(authorities, port).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable, "{}", bearerd.log());
        assert!(bearerd.log().to_lowercase().contains("certificate"), "{}", bearerd.log());
    }
}
