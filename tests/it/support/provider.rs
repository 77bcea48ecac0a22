//! Real authorization servers: `tests/provider/server.mjs` and `tests/django/server.py`. What they can do is told at the
//! head of these files.

use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use super::{PATIENCE, Process, eventually};

/// The running authorization server.
pub struct Provider {
    desk: Desk,
    _process: Process,
}

/// Where the running authorization server is asked. Cloning it is cheap.
#[derive(Clone)]
pub struct Desk {
    issuer: String,
    client: reqwest::Client,
}

/// One token request, in order of arrival. Tokens appear by their [`fingerprint`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry {
    /// Its number, from 1.
    pub n: u64,
    /// `grant_type`; absent while the request is being handled, as all that follows.
    pub grant_type: Option<String>,
    /// The client.
    pub client_id: Option<String>,
    /// The refresh token that was presented.
    pub presented: Option<String>,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// The word of a refusal.
    pub error: Option<String>,
    /// The refresh token that was given.
    pub issued: Option<String>,
}

/// How a token appears in the log of the server.
pub fn fingerprint(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Provider {
    /// Starts node-oidc-provider with these settings (ACCESS_TTL, ROTATE, LATENCY_MS, CLIENT_JWK).
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/provider/server.mjs");
        Self::run(Command::new("node").arg(server).envs(settings.iter().copied())).await
    }

    /// Starts django-oauth-toolkit with these settings (ACCESS_TTL, ROTATE, GRACE, REUSE_PROTECTION).
    pub async fn django(settings: &[(&str, &str)]) -> Self {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/django/bin/python");
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django/server.py");
        Self::run(Command::new(python).arg(server).envs(settings.iter().copied())).await
    }

    async fn run(command: &mut Command) -> Self {
        #[derive(Deserialize)]
        struct Started {
            issuer: String,
        }

        let mut process = Process::start(command);
        eventually(PATIENCE, async || {
            assert!(process.ended().is_none(), "run scripts/setup once: {process:?}");
            process.out().ends_with('\n')
        })
        .await;
        let Started { issuer } = serde_json::from_str(&process.out()).unwrap();
        Self { desk: Desk { issuer, client: reqwest::Client::new() }, _process: process }
    }

    /// Where it is asked, for a task that outlives a borrow.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.desk.issuer
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.desk.issuer)
    }

    /// A refresh token of the client `web`, as if this person had just consented.
    pub async fn mint_refresh_token(&self, sub: &str, scope: &str) -> String {
        let wish = json!({ "client": "web", "sub": sub, "scope": scope });
        self.desk.post("refresh-token", &wish).await["refresh_token"].as_str().unwrap().to_owned()
    }

    /// Every token request so far.
    pub async fn log(&self) -> Vec<Entry> {
        self.desk.get("log").await
    }

    /// Whether the grant of a refresh token lives, be the token itself used up or not.
    pub async fn alive(&self, refresh_token: &str) -> bool {
        let query = Url::parse_with_params("http://x/alive", [("refresh", refresh_token)]).unwrap();
        let answer: Value = self.desk.get(&format!("alive?{}", query.query().unwrap())).await;
        answer["alive"].as_bool().unwrap()
    }

    /// Whether an access token is valid.
    pub async fn introspect(&self, access_token: &str) -> bool {
        self.desk.introspect(access_token).await
    }
}

impl Desk {
    /// Whether an access token is valid.
    pub async fn introspect(&self, access_token: &str) -> bool {
        self.post("introspect", &json!({ "token": access_token })).await["active"].as_bool().unwrap()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        read(self.client.get(format!("{}/_test/{path}", self.issuer))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        read(self.client.post(format!("{}/_test/{path}", self.issuer)).body(body.to_string())).await
    }
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> T {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_refresh_token_is_good_for_one_use() {
    let provider = Provider::start(&[("ACCESS_TTL", "60")]).await;
    assert!(provider.issuer().starts_with("http://127.0.0.1:"));
    let first = provider.mint_refresh_token("jane", "offline_access read").await;
    let refresh = async || {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("grant_type", "refresh_token"), ("refresh_token", &first)])
            .finish();
        let request = provider.desk.client.post(provider.token_url()).basic_auth("web", Some("web-secret"));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        serde_json::from_str::<Value>(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };

    let answer = refresh().await;
    assert!(provider.introspect(answer["access_token"].as_str().unwrap()).await);
    assert!(provider.alive(&first).await);
    let second = answer["refresh_token"].as_str().unwrap();

    // Presenting it again revokes the whole grant.
    assert_eq!(refresh().await["error"], "invalid_grant");
    assert!(!provider.alive(second).await);
    assert!(!provider.introspect(answer["access_token"].as_str().unwrap()).await);
    let entry = |n, status, error: Option<&str>, issued: Option<&str>| Entry {
        n,
        grant_type: Some("refresh_token".to_owned()),
        client_id: Some("web".to_owned()),
        presented: Some(fingerprint(&first)),
        status: Some(status),
        error: error.map(str::to_owned),
        issued: issued.map(fingerprint),
    };
    let expected = [entry(1, 200, None, Some(second)), entry(2, 400, Some("invalid_grant"), None)];
    assert_eq!(provider.log().await, expected);
}
