//! The sandbox as its clients see it: real requests to real ports.

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::*;
use crate::secret::ExposeSecret;

mod api;
mod provider;

/// A sandbox with a client beside it.
struct Stage {
    sandbox: Sandbox,
    http: reqwest::Client,
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn text_of(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Stage {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { sandbox: Sandbox::start(options).await.unwrap(), http: http.build().unwrap() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    fn form(&self, url: String, parameters: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        self.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
    }

    async fn token(&self, parameters: &[(&str, &str)]) -> Answer {
        self.send(self.form(self.sandbox.token_url(), parameters)).await.unwrap()
    }

    async fn refresh(&self, refresh_token: &str) -> Answer {
        let client = ("client_id", DEMO_PUBLIC);
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token), client]).await
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let request = self.http.get(format!("{}{path}", self.sandbox.api_url()));
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        self.send(request).await.unwrap()
    }

    /// An access token of the confidential client.
    async fn access_token(&self, scope: &str) -> String {
        let client = [("client_id", DEMO_CONFIDENTIAL), ("client_secret", DEMO_SECRET)];
        let answer = self.token(&[("grant_type", "client_credentials"), client[0], client[1], ("scope", scope)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text_of("access_token")
    }

    /// An assertion that the demo key signed.
    fn assertion(&self, subject: &str, audience: &str, id: &str) -> String {
        let claims = json!({
            "iss": DEMO_JWT, "sub": subject, "aud": audience, "exp": get_current_timestamp() + 60, "jti": id,
        });
        let pem = self.sandbox.demo_key().private_pem.expose_secret();
        encode(&Header::new(Algorithm::ES256), &claims, &EncodingKey::from_ec_pem(pem.as_bytes()).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn stopping_cuts_what_is_under_way_and_frees_the_ports() {
    let stage = Stage::with(Options { latency: Duration::from_secs(3600), ..Options::default() }).await;
    let first = stage.sandbox.mint_refresh_token("ada");
    let addresses = [stage.sandbox.token_url(), stage.sandbox.api_url()];
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", &first), ("client_id", DEMO_PUBLIC)];
    let waiting = tokio::spawn(stage.form(stage.sandbox.token_url(), &parameters).send());
    // The endpoint has acted long before it answers.
    while stage.sandbox.journal().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.sandbox.journal()[0].outcome, Outcome::Issued);
    stage.sandbox.stop().await;
    assert!(waiting.await.unwrap().is_err());
    for address in addresses {
        assert!(stage.http.get(address).send().await.unwrap_err().is_connect());
    }
}

#[tokio::test]
async fn only_loopback_is_served() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = Options { api_listen: everywhere, ..Options::default() };
    let refused = Sandbox::start(options).await.err().map(|error| error.kind());
    assert_eq!(refused, Some(io::ErrorKind::InvalidInput));
}
