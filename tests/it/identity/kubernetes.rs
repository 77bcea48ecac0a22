//! Tokens of Kubernetes ServiceAccounts that are verified with their issuer's keys.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa, signature,
};
use axum::{Router, extract::State, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Door,
    authority::{Authority, Shown},
    is_another, is_unproven,
};
use crate::support::{PATIENCE, eventually};

pub const ACCOUNT: &str = "system:serviceaccount:billing:api";

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A key of an issuer.
pub struct Signer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn es256(id: &str) -> Self {
        let pair = signature::EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { id: id.to_owned(), algorithm: Algorithm::ES256, key }
    }

    pub fn rs256(id: &str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(pkcs8.as_ref())
        );
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { id: id.to_owned(), algorithm: Algorithm::RS256, key }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).unwrap()
    }
}

/// The key set of these keys.
pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What stands in a good token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": ACCOUNT, "aud": ["bearerd", "vault"],
        "exp": now() + 600, "nbf": now() - 5, "iat": now() - 5,
        "kubernetes.io": { "namespace": "billing", "serviceaccount": { "name": "api", "uid": "1" } },
    })
}

/// The same with one claim changed, or taken away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name)
    } else {
        claims[name] = value;
        None
    };
    claims
}

/// The table of the issuer, with more lines.
pub fn table(lines: &str) -> String {
    format!("---\n[identity.kubernetes]\nissuer = \"{ISSUER}\"\naudience = \"bearerd\"\n{lines}\n")
}

const GIVEN: &str = "jwks = { file = \"@DIR@/jwks.json\" }";

#[tokio::test]
async fn a_pod_is_called_by_its_service_account() {
    let (rsa, ec) = (Signer::rs256("rsa"), Signer::es256("ec"));
    let door = Door::open(ACCOUNT, &table(GIVEN), &[("jwks.json", &jwks(&[&rsa, &ec]))]).await;
    let client = door.plain().await;
    for signer in [&rsa, &ec] {
        client.get_as(&signer.sign(&claims())).await.unwrap();
        client.get_as(&signer.sign(&with("aud", json!("bearerd")))).await.unwrap();
        client.get_as(&signer.sign(&with("nbf", Value::Null))).await.unwrap();
        let other = signer.sign(&with("sub", json!("system:serviceaccount:billing:batch")));
        is_another(client.get_as(&other).await, "another account");
    }
}

#[tokio::test]
async fn case_24_every_other_token_is_refused() {
    let (rsa, ec, stranger) = (Signer::rs256("rsa"), Signer::es256("ec"), Signer::es256("ec"));
    let door = Door::open("*", &table(GIVEN), &[("jwks.json", &jwks(&[&rsa, &ec]))]).await;
    let client = door.plain().await;
    for signer in [&rsa, &ec] {
        for (what, claims) in [
            ("another audience", with("aud", json!(["vault"]))),
            ("an audience that begins alike", with("aud", json!(["bearerd2", "bearer"]))),
            ("no audience", with("aud", Value::Null)),
            ("an empty audience", with("aud", json!([]))),
            ("another issuer", with("iss", json!("https://kubernetes.default.svc.cluster.local.evil"))),
            ("no issuer", with("iss", Value::Null)),
            ("expired", with("exp", json!(now() - 60))),
            ("no end", with("exp", Value::Null)),
            ("an end that is no number", with("exp", json!("never"))),
            ("not valid yet", with("nbf", json!(now() + 60))),
            ("no subject", with("sub", Value::Null)),
            ("a node", with("sub", json!("system:node:a"))),
            ("an administrator", with("sub", json!("system:admin"))),
            ("too few names", with("sub", json!("system:serviceaccount:billing"))),
            ("too many names", with("sub", json!("system:serviceaccount:billing:api:x"))),
            ("a caller of another kind", with("sub", json!("token:ci"))),
        ] {
            is_unproven(client.get_as(&signer.sign(&claims)).await, what);
        }
    }
    is_unproven(client.get_as(&stranger.sign(&claims())).await, "another key under a known name");
    is_unproven(client.get_as(&Signer::es256("new").sign(&claims())).await, "an unknown key");
}

#[tokio::test]
async fn case_24_no_header_leads_to_another_key_or_algorithm() {
    let (rsa, ec) = (Signer::rs256("rsa"), Signer::es256("ec"));
    let set = jwks(&[&rsa, &ec]);
    let door = Door::open("*", &table(GIVEN), &[("jwks.json", &set)]).await;
    let client = door.plain().await;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let good = ec.sign(&claims());
    let (body, signature) = good.split_once('.').unwrap().1.split_once('.').unwrap();

    for alg in ["none", "None", "NONE", "", "HS256", "ES384", "RS256"] {
        for end in ["", signature] {
            let header = part(&json!({ "alg": alg, "typ": "JWT", "kid": "ec" }));
            is_unproven(client.get_as(&format!("{header}.{body}.{end}")).await, alg);
        }
    }
    // What the issuer publishes is no secret, so nothing of it may serve as one.
    let modulus = serde_json::from_str::<Value>(&set).unwrap()["keys"][0]["n"].as_str().unwrap().to_owned();
    for secret in [set.as_bytes(), modulus.as_bytes(), &URL_SAFE_NO_PAD.decode(&modulus).unwrap()] {
        for algorithm in [Algorithm::HS256, Algorithm::HS512] {
            let header = Header { kid: Some("rsa".to_owned()), ..Header::new(algorithm) };
            let forged = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
            is_unproven(client.get_as(&forged).await, "signed with what is public");
        }
    }
    let evil = Signer::es256("ec");
    let brought = serde_json::to_value(evil.jwk()).unwrap();
    let signed = |change: &dyn Fn(&mut Header), signer: &Signer| {
        let mut header = Header { kid: Some("ec".to_owned()), ..Header::new(Algorithm::ES256) };
        change(&mut header);
        jsonwebtoken::encode(&header, &claims(), &signer.key).unwrap()
    };
    client.get_as(&signed(&|_| {}, &ec)).await.unwrap();
    for signer in [&ec, &evil] {
        for (what, token) in [
            ("jku", signed(&|header| header.jku = Some("https://evil.example/jwks".to_owned()), signer)),
            ("x5u", signed(&|header| header.x5u = Some("https://evil.example/crt".to_owned()), signer)),
            ("x5c", signed(&|header| header.x5c = Some(vec!["AQAB".to_owned()]), signer)),
            ("jwk", signed(&|header| header.jwk = Some(serde_json::from_value(brought.clone()).unwrap()), signer)),
            ("crit", signed(&|header| header.crit = Some(vec!["exp".to_owned()]), signer)),
            ("no kid", signed(&|header| header.kid = None, signer)),
        ] {
            is_unproven(client.get_as(&token).await, what);
        }
    }
    let json_form = json!({ "payload": body, "signatures": [{ "signature": signature }] }).to_string();
    for (what, value) in [
        ("JSON form", format!("Bearer {json_form}")),
        ("four parts", format!("Bearer {good}.{signature}")),
        ("two parts", format!("Bearer {}", good.rsplit_once('.').unwrap().0)),
        ("no parts", "Bearer ..".to_owned()),
    ] {
        is_unproven(client.get_with(&[("authorization", &value)]).await, what);
    }
}

#[tokio::test]
async fn given_keys_are_read_again() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let door = Door::open(ACCOUNT, &table(GIVEN), &[("jwks.json", &jwks(&[&old]))]).await;
    let client = door.plain().await;
    client.get_as(&old.sign(&claims())).await.unwrap();
    is_unproven(client.get_as(&new.sign(&claims())).await, "not yet");
    fs::write(door.path("next"), jwks(&[&new])).unwrap();
    fs::rename(door.path("next"), door.path("jwks.json")).unwrap();
    eventually(PATIENCE, async || client.get_as(&new.sign(&claims())).await.is_ok()).await;
    is_unproven(client.get_as(&old.sign(&claims())).await, "withdrawn");
}

/// A server that publishes keys.
struct Publisher {
    url: String,
    asked: Arc<AtomicUsize>,
    keys: Arc<Mutex<String>>,
}

impl Publisher {
    async fn start(keys: String) -> Self {
        let keys = Arc::new(Mutex::new(keys));
        let asked = Arc::new(AtomicUsize::new(0));
        let state = (Arc::clone(&keys), Arc::clone(&asked));
        let page = async |State((keys, asked)): State<(Arc<Mutex<String>>, Arc<AtomicUsize>)>| {
            asked.fetch_add(1, SeqCst);
            keys.lock().clone()
        };
        let router = Router::new().route("/jwks", get(page)).with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { url, asked, keys }
    }
}

#[tokio::test]
async fn case_26_keys_are_fetched_and_unknown_ones_do_not_flood_the_issuer() {
    let (one, two) = (Signer::es256("one"), Signer::es256("two"));
    let publisher = Publisher::start(jwks(&[&one])).await;
    let door = Door::open(ACCOUNT, &table(&format!("jwks_url = \"{}\"", publisher.url)), &[]).await;
    let client = door.plain().await;
    eventually(PATIENCE, async || client.get_as(&one.sign(&claims())).await.is_ok()).await;
    for number in 0..50 {
        let made_up = Signer::es256(&format!("made-up-{number}"));
        is_unproven(client.get_as(&made_up.sign(&claims())).await, "made up");
    }
    assert_eq!(publisher.asked.load(SeqCst), 1, "the first fetch was a moment ago");
    // A new key is found as soon as asking is allowed again.
    *publisher.keys.lock() = jwks(&[&one, &two]);
    eventually(PATIENCE, async || client.get_as(&two.sign(&claims())).await.is_ok()).await;
    assert_eq!(publisher.asked.load(SeqCst), 2);
    // What was fetched goes on when the issuer has nothing good to say any more.
    *publisher.keys.lock() = "gone".to_owned();
    client.get_as(&one.sign(&claims())).await.unwrap();
}

/// A server that publishes keys, or says anything else, over TLS; it gives one answer to each connection.
pub async fn publish(keys: String, shown: &Shown) -> u16 {
    let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}", keys.len());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // With a body left unread, the connection would be reset and the answer perhaps lost.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    port
}

#[tokio::test]
async fn keys_are_fetched_from_whom_the_authority_vouches_for() {
    let signer = Signer::es256("one");
    let (authority, other) = (Authority::new("cluster"), Authority::new("other"));
    let port = publish(jwks(&[&signer]), &authority.server()).await;
    for (ca, believed) in [(&authority, true), (&other, false)] {
        let lines = format!("jwks_url = \"https://localhost:{port}/jwks\"\nca = {{ file = \"@DIR@/ca.crt\" }}");
        let door = Door::open(ACCOUNT, &table(&lines), &[("ca.crt", ca.pem())]).await;
        let answer = door.plain().await.get_as(&signer.sign(&claims())).await;
        if believed { answer.unwrap() } else { is_unproven(answer, "another authority") }
    }
}

#[tokio::test]
async fn case_26_without_keys_nobody_is_believed() {
    let signer = Signer::es256("one");
    let publisher = Publisher::start("down".to_owned()).await;
    let door = Door::open("*", &table(&format!("jwks_url = \"{}\"", publisher.url)), &[]).await;
    let client = door.plain().await;
    for _ in 0..20 {
        is_unproven(client.get_as(&signer.sign(&claims())).await, "nobody can tell");
    }
    assert!(publisher.asked.load(SeqCst) <= 2);
    client.get().await.expect("others are not concerned");
}
