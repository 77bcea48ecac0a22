//! Three replicas with short times, and a network between each of them and Redis, and between all and the provider, that
//! can be made to fail.

use std::{collections::HashSet, path::PathBuf};

use bearerd::proto::Token;
use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    PATIENCE, Provider, Proxy, Redis, eventually,
    replicas::{Replicas, configuration},
};

/// Short, so that tests need not wait long until somebody else takes over; long enough for a busy machine.
const TIMES: &str = r#"
[refresh]
http_timeout = "2s"
commit_budget = "500ms"
lease = "3s"
max_wait = "4s"
"#;

/// How long after an intent nobody is expected to be storing an answer any more, in µs: the lease, and twice the longest
/// pause between two tries at a commit.
pub const TAKEOVER: u64 = 7_000_000;

/// All of it.
pub struct Scene {
    pub replicas: Replicas,
    /// From every replica to the provider. They share it, because a refresh token belongs to the URL that it is sent to.
    pub provider_line: Proxy,
    /// From each replica to Redis.
    pub redis_lines: Vec<Proxy>,
}

/// How a provider treats a refresh token that was used, as bearerd is told.
pub const STRICT: &str = "";
#[cfg(feature = "failpoints")]
const GRACE: &str = "rotation = \"grace\"\nrotation_grace = \"60s\"\n";

impl Scene {
    /// With oidc-provider.
    pub async fn strict(access_ttl: u32) -> Self {
        Self::with(strict_provider(access_ttl).await, "offline_access read", STRICT).await
    }

    /// With django-oauth-toolkit, which gives the same answer again for a while.
    #[cfg(feature = "failpoints")]
    pub async fn grace() -> Self {
        let provider = Provider::django(&[("REUSE_PROTECTION", "1"), ("GRACE", "60")]).await;
        Self::with(provider, "read", GRACE).await
    }

    async fn with(provider: Provider, scope: &str, rotation: &str) -> Self {
        let redis = Redis::start().await;
        let first = provider.mint_refresh_token("service", scope).await;
        let provider_line = Proxy::start(provider.issuer()).await;
        let url = redis.url();
        let redis_lines = join_all((0..3).map(|_| Proxy::start(&url))).await;
        let configurations = redis_lines
            .iter()
            .map(|line| furnish(&format!("redis://{}", line.address()), &provider_line, rotation))
            .collect();
        let replicas = Replicas::assemble(provider, redis, first, configurations).await;
        Self { replicas, provider_line, redis_lines }
    }

    /// The refresh tokens in the order in which they were presented, each with the status of the answer.
    pub async fn presented(&self) -> Vec<(String, Option<u16>)> {
        let log = self.replicas.provider.log().await;
        log.into_iter().map(|entry| (entry.presented.unwrap_or_default(), entry.status)).collect()
    }

    /// That the grant lives, and that no refresh token was presented twice.
    pub async fn is_unharmed(&self) {
        let presented = self.presented().await;
        let distinct: HashSet<_> = presented.iter().map(|(token, _)| token).collect();
        assert_eq!(distinct.len(), presented.len(), "{presented:?}");
        assert!(presented.iter().all(|(_, status)| *status == Some(200)), "{presented:?}");
        assert!(self.replicas.provider.alive(&self.replicas.first).await);
    }

    /// Asks one replica until it has a token; until then it only says to try again.
    pub async fn token_from(&self, replica: usize) -> Token {
        let mut token = None;
        eventually(PATIENCE, async || {
            match self.replicas.get(replica).await {
                Ok(got) => token = Some(got),
                Err(status) => assert!(is_retryable(&status), "{status:?}"),
            }
            token.is_some()
        })
        .await;
        let token = token.unwrap();
        assert!(self.replicas.provider.introspect(&token.access_token).await, "the provider does not know this token");
        token
    }

    /// Waits until nobody holds the lease.
    #[cfg(feature = "failpoints")]
    pub async fn lease_is_over(&self) {
        eventually(PATIENCE, async || !self.replicas.redis.keys().await.iter().any(|key| key.ends_with(":lease")))
            .await;
    }

    /// The answers in a replica's spool.
    pub fn spooled(&self, replica: usize) -> Vec<PathBuf> {
        let spool = self.replicas.each[replica].directory().join("spool");
        let files = spool.read_dir().unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "answer")).collect()
    }
}

/// One that ends a grant when a rotated refresh token is used twice.
pub async fn strict_provider(access_ttl: u32) -> Provider {
    let ttl = access_ttl.to_string();
    Provider::start(&[("ACCESS_TTL", ttl.as_str()), ("ROTATE", "1")]).await
}

/// What a replica is configured with: short times, and a spool of its own.
pub fn furnish(redis: &str, provider_line: &Proxy, rotation: &str) -> String {
    configuration(redis, &format!("{}/token", provider_line.url()))
        .replace("[seal]", &format!("spool = \"@DIR@/spool\"\n{TIMES}\n[seal]"))
        .replace("[store]", "shutdown_timeout = \"8s\"\n\n[store]")
        + rotation
}

/// The reason of an error, and its cause where one is told.
pub fn why(status: &Status) -> (String, Option<String>) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    (info.reason, info.metadata.get("cause").cloned())
}

/// Whether an error says that the same call may be repeated, when, and why it has to be.
pub fn is_retryable(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status.get_details_error_info().is_some()
        && status.get_details_retry_info().is_some()
}

/// Whether an error says that the grant ended because an answer was lost.
#[cfg(feature = "failpoints")]
pub fn is_lost(status: &Status) -> bool {
    let lost = (String::from("REAUTHORIZATION_REQUIRED"), Some(String::from("REFRESH_OUTCOME_LOST")));
    status.code() == Code::FailedPrecondition && why(status) == lost
}
