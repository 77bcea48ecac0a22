//! Tokens of Kubernetes ServiceAccounts: verified with the issuer's keys, or by its API server, or by both.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};
use url::Url;

use super::{
    IdentityError, JwksError, KeySet,
    jwt::{self, Expected},
    remote::Remote,
    review::{ReviewConfig, Reviewer},
};
use crate::{caller::ServiceAccount, http::ClientError, secret::SecretString};

/// Keys that were fetched are fetched again after this time, when somebody needs one.
const RENEW_AFTER: Duration = Duration::from_secs(10 * 60);

/// Keys older than this are not believed any more: the issuer may have withdrawn them long ago.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Two fetches are this far apart, so that made-up key identifiers cannot flood the issuer.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// A cluster's issuer, and how its tokens are verified. At least one of `keys` and `review` is there.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// The issuer identifier: `iss` of its tokens.
    pub issuer: String,
    /// What must be among a token's audiences.
    pub audience: String,
    /// Where the issuer's keys come from, to verify tokens here.
    pub keys: Option<Keys>,
    /// Whether the API server is asked about each token.
    pub review: bool,
    /// The API server, the only one that gets `token`.
    pub api_server: Url,
    /// The authority (PEM) that may vouch for the servers; else those that the system trusts.
    pub ca: Option<String>,
    /// bearerd's own token for the API server.
    pub token: Option<SecretString>,
}

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// They are given, and may be given anew.
    Given(KeySet),
    /// They are fetched when they are needed.
    Fetched(Url),
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Kubernetes {
    expected: Expected,
    keys: Option<KeyStore>,
    reviewer: Option<Reviewer>,
    remote: Arc<Remote>,
}

#[derive(Debug)]
struct KeyStore {
    held: ArcSwapOption<Held>,
    url: Option<Url>,
    /// When they were last asked for. It is locked by whoever asks, so one asks for all.
    asked: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Held {
    keys: KeySet,
    since: Instant,
}

impl Kubernetes {
    /// A verifier; nothing is fetched yet.
    pub(super) fn new(config: KubernetesConfig) -> Result<Self, ClientError> {
        let remote = Arc::new(Remote::new(config.ca.as_deref(), config.token, config.api_server.clone())?);
        let review = ReviewConfig { audience: config.audience.clone() };
        let reviewer = config.review.then(|| Reviewer::new(review, &config.api_server, Arc::clone(&remote)));
        let expected = Expected { issuer: config.issuer, audience: config.audience };
        Ok(Self { expected, keys: config.keys.map(KeyStore::new), reviewer, remote })
    }

    /// Takes other keys from now on, where they are given.
    pub fn replace_keys(&self, keys: KeySet) {
        if let Some(store) = &self.keys {
            store.hold(keys);
        }
    }

    /// Trusts another authority (PEM) for the issuer's servers from now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if it is unusable; then the former one stays.
    pub fn trust(&self, ca: &str) -> Result<(), ClientError> {
        self.remote.trust(ca)
    }

    /// Shows the API server another token from now on.
    pub fn show(&self, token: SecretString) {
        self.remote.show(token);
    }

    /// Fetches the keys, where they are fetched, before anybody needs them. A failure is logged, and tried again by
    /// whoever comes first.
    pub async fn warm_up(&self) {
        if let Some(store) = self.keys.as_ref().filter(|store| store.url.is_some())
            && let Err(error) = store.fetch(&self.remote, None).await
        {
            warn!(%error, "callers with Kubernetes tokens cannot be told yet");
        }
    }

    /// The ServiceAccount whose token this is. Where both ways are configured the token is verified here first, so
    /// that nothing made up reaches the API server.
    pub(super) async fn verify(&self, token: &str) -> Result<ServiceAccount, IdentityError> {
        let by_key = match &self.keys {
            Some(store) => Some(self.by_key(store, token).await?),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                jwt::is_worth_asking(token, &self.expected, now.as_secs())?;
                None
            }
        };
        let by_review = match &self.reviewer {
            Some(reviewer) => Some(reviewer.ask(token).await?),
            None => None,
        };
        match (by_key, by_review) {
            (Some(account), None) | (None, Some(account)) => Ok(account),
            (Some(one), Some(other)) if one == other => Ok(one),
            (Some(_), Some(_)) | (None, None) => Err(IdentityError::NotVouchedFor),
        }
    }

    async fn by_key(&self, store: &KeyStore, token: &str) -> Result<ServiceAccount, IdentityError> {
        let id = jwt::key_id(token)?;
        let held = store.holding(&self.remote, &id).await?;
        let (algorithm, key) = held.keys.get(&id).ok_or(IdentityError::UnknownKey)?;
        jwt::verify(token, &self.expected, algorithm, key)
    }
}

impl KeyStore {
    fn new(keys: Keys) -> Self {
        let (given, url) = match keys {
            Keys::Given(keys) => (Some(keys), None),
            Keys::Fetched(url) => (None, Some(url)),
        };
        let store = Self { held: ArcSwapOption::empty(), url, asked: Mutex::new(None) };
        given.into_iter().for_each(|keys| store.hold(keys));
        store
    }

    fn hold(&self, keys: KeySet) {
        self.held.store(Some(Arc::new(Held { keys, since: Instant::now() })));
    }

    /// Keys that are believed. They are fetched if the one of this identifier is not among them, or if they are old;
    /// if that fails the old ones go on, up to a limit.
    async fn holding(&self, remote: &Remote, id: &str) -> Result<Arc<Held>, IdentityError> {
        let held = self.held.load_full();
        if self.url.is_none() {
            return held.ok_or(IdentityError::NoKeys(JwksError::Empty));
        }
        if let Some(held) = held.as_ref().filter(|held| held.keys.get(id).is_some()) {
            let age = held.since.elapsed();
            // One caller waits for the newer keys, and the others go on meanwhile.
            if age < RENEW_AFTER || (age < MAX_AGE && self.asked.try_lock().is_err()) {
                return Ok(Arc::clone(held));
            }
        }
        let fetched = self.fetch(remote, held.as_ref()).await;
        match (fetched, held.filter(|held| held.since.elapsed() < MAX_AGE)) {
            (Ok(fresh), _) => Ok(fresh),
            (Err(_), Some(held)) => Ok(held),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Asks for keys, unless somebody has done so a moment ago.
    async fn fetch(&self, remote: &Remote, than: Option<&Arc<Held>>) -> Result<Arc<Held>, JwksError> {
        let url = self.url.as_ref().ok_or(JwksError::Empty)?;
        let mut asked = self.asked.lock().await;
        // Whoever waited for the lock finds what the one before has got.
        if let Some(newer) = self.held.load_full().filter(|held| than.is_none_or(|old| !Arc::ptr_eq(old, held))) {
            return Ok(newer);
        }
        if asked.is_some_and(|last| last.elapsed() < FETCH_INTERVAL) {
            return Err(JwksError::JustAsked);
        }
        *asked = Some(Instant::now());
        let body = remote.get(url).await.map_err(JwksError::Unreachable);
        match body.and_then(|body| KeySet::parse(&body)) {
            Ok(keys) => {
                info!(?keys, "fetched the keys of the Kubernetes issuer");
                self.hold(keys);
                self.held.load_full().ok_or(JwksError::Empty)
            }
            Err(error) => {
                warn!(%error, "the keys of the Kubernetes issuer cannot be fetched");
                Err(error)
            }
        }
    }
}
