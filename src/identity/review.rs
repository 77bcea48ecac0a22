//! Asking the API server about a token (TokenReview): it alone knows that a pod is gone before its token has expired.

use std::{fmt, sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use url::Url;

use super::{IdentityError, remote::Remote, static_token::sha256};
use crate::caller::ServiceAccount;

/// How long an answer is believed, also one that refuses: a flood of bad tokens must not become one of questions.
const BELIEVED: Duration = Duration::from_secs(10);

/// How many answers are kept, and how many questions are asked at a time.
const MAX_ANSWERS: usize = 10_000;
const MAX_QUESTIONS: usize = 16;

/// How long a token waits until it is its turn to be asked about. Its request has one of the places for all requests, and
/// an API server that is slow must not take those from callers about whom nobody has to be asked.
const TURN: Duration = Duration::from_secs(1);

/// Where to ask.
#[derive(Clone, Debug)]
pub struct ReviewConfig {
    /// What a token must be meant for.
    pub audience: String,
}

/// Asks, and remembers the answers under the tokens' hashes.
pub(super) struct Reviewer {
    url: Url,
    audience: String,
    remote: Arc<Remote>,
    answers: Cache<[u8; 32], (Verdict, Instant)>,
    questions: Semaphore,
}

/// Whom the API server vouches for; for nobody it says `None`.
type Verdict = Option<ServiceAccount>;

#[derive(Serialize)]
struct Question<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    kind: &'a str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

impl Reviewer {
    pub fn new(config: ReviewConfig, api_server: &Url, remote: Arc<Remote>) -> Self {
        let mut url = api_server.clone();
        url.set_path("/apis/authentication.k8s.io/v1/tokenreviews");
        let answers = Cache::new(MAX_ANSWERS);
        Self { url, audience: config.audience, remote, answers, questions: Semaphore::new(MAX_QUESTIONS) }
    }

    fn known(&self, hash: &[u8; 32]) -> Option<Verdict> {
        let (verdict, believed_until) = self.answers.get(hash)?;
        (Instant::now() < believed_until).then_some(verdict)
    }

    /// The ServiceAccount that the API server says the token is of.
    pub async fn ask(&self, token: &str) -> Result<ServiceAccount, IdentityError> {
        let hash = sha256(token);
        if let Some(known) = self.known(&hash) {
            return known.ok_or(IdentityError::NotVouchedFor);
        }
        let Ok(Ok(_turn)) = timeout(TURN, self.questions.acquire()).await else {
            return Err(IdentityError::CannotAsk("too many other tokens are asked about".to_owned()));
        };
        // Somebody else may have asked while this one waited.
        if let Some(known) = self.known(&hash) {
            return known.ok_or(IdentityError::NotVouchedFor);
        }
        let body = self.remote.post(&self.url, self.question(token)).await.map_err(IdentityError::CannotAsk)?;
        let answer = self.read(&body)?;
        self.answers.insert(hash, (answer.clone(), Instant::now() + BELIEVED));
        answer.ok_or(IdentityError::NotVouchedFor)
    }

    fn question(&self, token: &str) -> String {
        let spec = Spec { token, audiences: [&self.audience] };
        let question = Question { api_version: "authentication.k8s.io/v1", kind: "TokenReview", spec };
        // Texts alone can always be written as JSON.
        serde_json::to_string(&question).unwrap_or_default()
    }

    /// No audience in the answer means that the API server does not know audiences, and the token is only for itself.
    fn read(&self, body: &[u8]) -> Result<Option<ServiceAccount>, IdentityError> {
        let Answer { status } = serde_json::from_slice(body)
            .map_err(|_| IdentityError::CannotAsk("the answer is no TokenReview".to_owned()))?;
        let vouched = status.authenticated && status.error.is_empty() && status.audiences.contains(&self.audience);
        Ok(if vouched { ServiceAccount::new(&status.user.username).ok() } else { None })
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_for_long() {
        let url = Url::parse("https://api.invalid").unwrap();
        let remote = Arc::new(Remote::new(None, None, url.clone()).unwrap());
        let reviewer = Reviewer::new(ReviewConfig { audience: "bearerd".to_owned() }, &url, remote);
        let _all = reviewer.questions.acquire_many(u32::try_from(MAX_QUESTIONS).unwrap()).await.unwrap();
        let since = Instant::now();
        assert!(matches!(reviewer.ask("token").await, Err(IdentityError::CannotAsk(_))));
        assert_eq!(since.elapsed(), TURN, "on a clock that stands still otherwise");
        assert_eq!(reviewer.known(&sha256("token")), None, "it says nothing about the token");
    }
}
