//! One token endpoint on the wire: send, bound, and tell what is certain about the outcome.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Client, Method, Request,
    header::{HeaderMap, HeaderValue},
};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::{
    clock::Moment,
    failure::ProviderReport,
    grant::{
        answer::{self, Answer, Body, Extent, Reading},
        request::TokenRequest,
    },
    http::{
        BodyError,
        coding::{self, CodingProblem, Inside, Undecodable},
        read_beginning,
    },
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

/// What an operator is told of an answer that gave no token, or of none; `endpoint` is the host and path that were asked.
pub fn report(outcome: &Result<Answer, SendError>, endpoint: &str) -> Option<ProviderReport> {
    match outcome {
        Ok(Answer::Granted(_)) => None,
        Ok(Answer::Refused(refusal)) => Some(refusal.report.clone()),
        Ok(Answer::Unusable(unusable)) => Some(unusable.report.clone()),
        Err(error) => Some(ProviderReport {
            endpoint: endpoint.to_owned(),
            problem: Some(error.to_string()),
            ..ProviderReport::default()
        }),
    }
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
        let (request, reading) = encode(request)?;
        let response = match in_time(deadline, self.client.execute(request)).await {
            Some(Ok(response)) => response,
            Some(Err(error)) if error.is_connect() || error.is_builder() => {
                return Err(SendError::NotSent(root_cause(&error)));
            }
            Some(Err(error)) => return Err(SendError::OutcomeUnknown(root_cause(&error))),
            None => return Err(SendError::OutcomeUnknown("time ran out".into())),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (mut body, mut extent) = (Bytes::new(), Extent::Broken);
        // What came before the time ran out may be all of it: some servers leave the connection open.
        if let Some(read) = in_time(deadline, read_beginning(response, answer::MAX_BODY, &mut body)).await {
            extent = match read {
                Ok(()) => Extent::Whole,
                Err(BodyError::Broken) => Extent::Broken,
                Err(BodyError::TooLarge(_)) => Extent::TooLarge,
            };
        }
        let (body, extent) = plain(&headers, body, extent);
        let body = Body { bytes: &body, extent };
        Ok(answer::read(&reading, status, &headers, body, Moment::now().wall()))
    }
}

/// Undoes content codings, asked for or not, with or without their header, as far as what came can be decoded.
fn plain(headers: &HeaderMap, body: Bytes, extent: Extent) -> (Bytes, Extent) {
    // A declared coding may be a lie.
    if body.trim_ascii_start().starts_with(b"{") {
        return (body, extent);
    }
    match coding::plain(headers, body.clone(), answer::MAX_BODY) {
        Ok(plain) => match coding::inside(&plain.body, answer::MAX_BODY) {
            Inside::Nothing => (plain.body, extent),
            Inside::Content(content) => (content, extent),
            Inside::TooLarge(beginning) => (beginning, Extent::TooLarge),
        },
        Err(Undecodable { problem: CodingProblem::TooLarge, beginning }) => (beginning, Extent::TooLarge),
        Err(Undecodable { problem: CodingProblem::Damaged(_), beginning }) if extent != Extent::Whole => {
            (beginning, extent)
        }
        Err(Undecodable { problem: CodingProblem::Damaged(_), beginning }) => (beginning, Extent::Coded),
        Err(Undecodable { problem: CodingProblem::Unknown(_) | CodingProblem::TooMany, beginning: _ }) => {
            (body, Extent::Coded)
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

fn encode(request: TokenRequest) -> Result<(Request, Reading), SendError> {
    let mut encoded = Request::new(Method::POST, request.url);
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_maybe_shared(zeroed_after_use(value))
            .map_err(|_| SendError::NotSent("a header has a value that cannot be sent".into()))?;
        value.set_sensitive(true);
        encoded.headers_mut().insert(name, value);
    }
    *encoded.body_mut() = Some(zeroed_after_use(&request.body).into());
    Ok((encoded, request.reading))
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
