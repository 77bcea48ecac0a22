//! One token endpoint on the wire: send, bound, and tell what is certain about the outcome.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, Method, Request, header::HeaderValue};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::{
    clock::Moment,
    grant::{
        answer::{self, Answer, Unusable},
        request::TokenRequest,
    },
    http::{BodyError, read_body},
    secret::{ExposeSecret, SecretString},
};

/// Where token requests go. A trait, because the simulation of the refresh protocol asks a provider that only it knows.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Sends one request, once, and reads the answer; all of it within the time limit.
    ///
    /// # Errors
    ///
    /// [`SendError`], when no answer came; it says whether the provider may have acted.
    async fn ask(&self, request: TokenRequest, limit: Duration) -> Result<Answer, SendError>;
}

/// Sends token requests over HTTP.
#[derive(Clone, Debug)]
pub struct Provider {
    client: Client,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing left this host: the request can be repeated without fear.
    #[error("the provider cannot be reached: {0}")]
    NotSent(Arc<str>),
    /// The request was sent, wholly or in part; nobody can say what the provider did.
    #[error("no answer came: {0}")]
    OutcomeUnknown(Arc<str>),
}

impl Provider {
    /// A sender on this client, which must neither follow redirects nor repeat requests.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl TokenEndpoint for Provider {
    async fn ask(&self, request: TokenRequest, limit: Duration) -> Result<Answer, SendError> {
        let deadline = Instant::now() + limit;
        let request = encode(request)?;
        let response = match in_time(deadline, self.client.execute(request)).await {
            Some(Ok(response)) => response,
            Some(Err(error)) if error.is_connect() || error.is_builder() => {
                return Err(SendError::NotSent(root_cause(&error)));
            }
            Some(Err(error)) => return Err(SendError::OutcomeUnknown(root_cause(&error))),
            None => return Err(SendError::OutcomeUnknown("time ran out".into())),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        match in_time(deadline, read_body(response, answer::MAX_BODY)).await {
            Some(Ok(body)) => Ok(answer::read(status, &headers, &body, Moment::now().wall())),
            Some(Err(BodyError::TooLarge(_))) => Ok(Answer::Unusable(Unusable::TooLarge)),
            Some(Err(error @ BodyError::Broken)) => Err(SendError::OutcomeUnknown(error.to_string().into())),
            None => Err(SendError::OutcomeUnknown("time ran out".into())),
        }
    }
}

/// How long an answer may take that is already here when time runs out.
const ALREADY_HERE: Duration = Duration::from_millis(100);

/// Waits up to a deadline. A process that stood still past it finds the deadline and the answer at once, and must not
/// leave the answer, which can hold the only living refresh token, because it looked at the clock first.
async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    match timeout_at(deadline, &mut work).await {
        Ok(done) => Some(done),
        Err(_) => timeout(ALREADY_HERE, work).await.ok(),
    }
}

fn encode(request: TokenRequest) -> Result<Request, SendError> {
    let mut encoded = Request::new(Method::POST, request.url);
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_maybe_shared(zeroed_after_use(value))
            .map_err(|_| SendError::NotSent("a header has a value that cannot be sent".into()))?;
        value.set_sensitive(true);
        encoded.headers_mut().insert(name, value);
    }
    *encoded.body_mut() = Some(zeroed_after_use(&request.body).into());
    Ok(encoded)
}

/// A copy for the HTTP client, which drops it when the request is sent.
fn zeroed_after_use(secret: &SecretString) -> Bytes {
    Bytes::from_owner(Zeroizing::new(secret.expose_secret().as_bytes().to_vec()))
}

/// The innermost cause, without the URL, which can carry a query.
fn root_cause(error: &reqwest::Error) -> Arc<str> {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match std::ptr::addr_eq(cause, error) {
        true => "the request failed".into(),
        false => cause.to_string().into(),
    }
}
