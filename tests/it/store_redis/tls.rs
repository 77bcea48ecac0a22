//! An encrypted connection to a server whose certificate a private authority signed.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use bearerd::secret::ExposeSecret;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server that has a certificate for this host, with the directory of its files.
    async fn serve(&self, host: &str) -> (Redis, TempDir) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let directory = TempDir::with_prefix("bearerd-tls-").unwrap();
        let put = |name: &str, content: String| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key, ca) =
            (put("tls.crt", certificate.pem()), put("tls.key", key.serialize_pem()), put("ca.crt", self.0.pem()));
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let tls = ["--tls-port", "@PORT@", "--tls-auth-clients", "no"];
        (Redis::start_with(&[tls.as_slice(), &files].concat()).await, directory)
    }

    fn settings(&self, redis: &Redis) -> RedisConfig {
        let url = format!("rediss://127.0.0.1:{}", redis.setting("--tls-port"));
        RedisConfig { ca: Some(self.0.pem()), ..settings(&url) }
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (redis, _files) = ours.serve("127.0.0.1").await;
    let config = ours.settings(&redis);
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    Desk::new(&store).refresh("first").await;
    for (ca, whose) in [(Some(other.0.pem()), "another authority"), (None, "the system's authorities")] {
        let why = refusal(&RedisConfig { ca, ..config.clone() }).await;
        assert!(why.contains("invalid peer certificate"), "{whose}: {why}");
    }
    // Several may stand in one file, as while one takes over from another.
    let both = RedisConfig { ca: Some(other.0.pem() + &ours.0.pem()), ..config };
    RedisStore::open(&both, ring("a", 1)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new();
    let (redis, _files) = authority.serve("redis.example").await;
    let why = refusal(&authority.settings(&redis)).await;
    assert!(why.contains("not valid for"), "{why}");
}

#[tokio::test]
async fn what_is_no_authority_is_a_mistake_in_the_configuration() {
    let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned();
    let why = refusal(&RedisConfig { ca: Some(pem), ..settings("rediss://127.0.0.1:1") }).await;
    assert!(why.contains("store.ca"), "{why}");
    // A setting that would silently do nothing.
    let why = refusal(&RedisConfig { ca: Some(String::new()), ..settings("redis://127.0.0.1:1") }).await;
    assert!(why.contains("rediss://"), "{why}");
}

/// C-K13: what a server speaks does not change by itself.
#[tokio::test]
async fn a_server_that_speaks_something_else_is_a_mistake_in_the_configuration() {
    let authority = Authority::new();
    let (redis, _files) = authority.serve("127.0.0.1").await;
    let encrypted = authority.settings(&redis);
    let plain = RedisConfig { ca: None, ..settings(&encrypted.url.expose_secret().replace("rediss", "redis")) };
    let why = refusal(&plain).await;
    assert!(why.contains("it speaks TLS: write rediss") && why.contains("127.0.0.1:"), "{why}");

    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let why = refusal(&RedisConfig { url: url.as_str().into(), ..encrypted }).await;
    assert!(why.contains("it speaks without TLS: write redis"), "{why}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_told() {
    let authority = Authority::new();
    let (redis, _files) = authority.serve("127.0.0.1").await;
    let _: () = redis.cli(&["CONFIG", "SET", "tls-auth-clients", "yes"]).await;
    let why = refusal(&authority.settings(&redis)).await;
    assert!(why.contains("asks clients for a certificate"), "{why}");
}
