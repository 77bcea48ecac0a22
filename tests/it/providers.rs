//! bearerd against a real authorization server: every way of client authentication that it takes, JWT access tokens.

use std::process::Command;

use bearerd::proto::{GetTokenRequest, Token, token_service_client::TokenServiceClient};
use tonic::Status;

use crate::support::{Bearerd, Provider};

/// An ES256 key pair: the private key as PEM, the public one as JWK.
fn key_pair() -> (String, String) {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(pair.to_pkcs8v1().unwrap().as_ref())
    );
    // An uncompressed point: 4, x, y.
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(32);
    let jwk = serde_json::json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    (pem, jwk.to_string())
}

async fn start(provider: &Provider, key: &str) -> Bearerd {
    let token_url = provider.token_url();
    let issuer = provider.issuer();
    let config = format!(
        r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
path = "@DIR@/bearerd.redb"

[credentials.basic]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "svc-basic"
client_secret = {{ file = "basic" }}
scopes = ["read"]

[credentials.post]
grant = "client_credentials"
token_url = "{token_url}"
client_id = "svc-post"
client_auth = "client_secret_post"
client_secret = {{ file = "post" }}
scopes = ["read"]

[credentials.key]
grant = "client_credentials"
token_url = "{token_url}"
issuer = "{issuer}"
client_id = "svc-jwt"
client_auth = "private_key_jwt"
client_key = {{ file = "key" }}
client_key_id = "k1"
client_key_algorithm = "ES256"
scopes = ["read"]
"#
    );
    let files = [("basic", r##"p@ss:w/rd +&=%2B~*"\?#;"##), ("post", "post+secret&=%20"), ("key", key)];
    Bearerd::start(&config, &files).await
}

async fn get(bearerd: &Bearerd, credential: &str, resources: &[&str]) -> Result<Token, Status> {
    let request = GetTokenRequest {
        credential: credential.to_owned(),
        resources: resources.iter().map(|&resource| resource.to_owned()).collect(),
        ..GetTokenRequest::default()
    };
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    client.get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
}

#[tokio::test]
async fn every_way_of_client_authentication_gets_a_valid_token() {
    let (pem, jwk) = key_pair();
    let provider = Provider::start(&[("ACCESS_TTL", "60"), ("CLIENT_JWK", &jwk)]).await;
    let bearerd = start(&provider, &pem).await;
    for credential in ["basic", "post", "key"] {
        let token = get(&bearerd, credential, &[]).await.unwrap_or_else(|status| panic!("{credential}: {status:?}"));
        assert!(provider.introspect(&token.access_token).await, "{credential}");
        assert_eq!(token.scopes, ["read"]);
        assert_eq!(get(&bearerd, credential, &[]).await.unwrap().generation, token.generation);
    }
    assert_eq!(provider.log().await.len(), 3);
}

#[tokio::test]
async fn a_token_for_a_resource_is_a_token_of_its_own() {
    let (pem, jwk) = key_pair();
    let provider = Provider::start(&[("ACCESS_TTL", "60"), ("CLIENT_JWK", &jwk)]).await;
    let bearerd = start(&provider, &pem).await;
    let opaque = get(&bearerd, "basic", &[]).await.unwrap();
    let jwt = get(&bearerd, "basic", &["urn:test:api"]).await.unwrap();
    assert!(!opaque.access_token.contains('.'));
    assert_eq!(jwt.access_token.split('.').count(), 3);
    let status = get(&bearerd, "basic", &["urn:test:unknown"]).await.unwrap_err();
    let reason = tonic_types::StatusExt::get_details_error_info(&status).unwrap().reason;
    assert_eq!(reason, "CLIENT_CONFIGURATION_REJECTED");
}

#[tokio::test]
async fn check_asks_each_provider_when_told_to() {
    let (pem, jwk) = key_pair();
    let provider = Provider::start(&[("ACCESS_TTL", "60"), ("CLIENT_JWK", &jwk)]).await;
    let bearerd = start(&provider, &pem).await;
    let file = bearerd.directory().join("bearerd.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "--probe", "--config"]).arg(file).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("a token was granted for 60 s").count(), 3, "{text}");
}
