//! One protected API on the wire: a request with a token goes out, once, and the answer comes back without it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header::WWW_AUTHENTICATE};
use reqwest::{Client, Request};
use tokio::time::{Instant, timeout_at};
use url::Url;

pub use self::{headers::HeaderProblem, target::TargetError};
use crate::{
    http::{BodyError, read_body},
    secret::{ExposeSecret, SecretString},
    token::Token,
};

pub mod headers;
mod scrub;
pub mod target;

/// Sends calls through.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
}

/// A request without its credentials, checked.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The largest answer that is taken, in bytes.
    pub max_response_bytes: usize,
}

/// An upstream's answer, cleared of the token.
#[derive(Clone, Debug)]
pub struct UpstreamAnswer {
    /// The status code.
    pub status: u16,
    /// The header fields, without those of the connection.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing left this host.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The request was sent and may have been acted upon.
    #[error("the upstream gave no whole answer: {0}")]
    NoAnswer(Arc<str>),
    /// The answer is larger than the credential's `max_response_bytes`.
    #[error("the upstream's answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl Upstream {
    /// A sender on this client, which must neither follow redirects nor repeat requests.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sends a request with a token, once.
    pub async fn send(
        &self,
        prepared: &Prepared,
        token: &Token,
        deadline: Instant,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let (name, value) = token.header();
        let request = encode(prepared, &name, &value)?;
        let response = match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(UpstreamError::Unreachable("no connection".into())),
            Ok(Err(_)) => return Err(UpstreamError::NoAnswer("the connection broke".into())),
            Err(_) => return Err(UpstreamError::NoAnswer("time ran out".into())),
        };
        let status = response.status().as_u16();
        let headers = headers::to_caller(response.headers());
        let body = match timeout_at(deadline, read_body(response, prepared.max_response_bytes)).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge(limit))) => return Err(UpstreamError::TooLarge(limit)),
            Ok(Err(BodyError::Broken)) => return Err(UpstreamError::NoAnswer("the connection broke".into())),
            Err(_) => return Err(UpstreamError::NoAnswer("time ran out".into())),
        };
        Ok(scrub::answer(UpstreamAnswer { status, headers, body: body.into() }, token))
    }
}

impl UpstreamAnswer {
    /// The values of all `WWW-Authenticate` fields.
    pub fn challenges(&self) -> Vec<&str> {
        let fields = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(WWW_AUTHENTICATE.as_str()));
        fields.map(|(_, value)| value.as_str()).collect()
    }
}

/// How long a call may take when neither the caller nor the credential says so.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

fn encode(prepared: &Prepared, name: &str, value: &SecretString) -> Result<Request, UpstreamError> {
    let unusable = || UpstreamError::Unreachable("the token does not fit in a header".into());
    let mut request = Request::new(prepared.method.clone(), prepared.url.clone());
    request.headers_mut().clone_from(&prepared.headers);
    let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| unusable())?;
    value.set_sensitive(true);
    let name = http::HeaderName::try_from(name).map_err(|_| unusable())?;
    request.headers_mut().insert(name, value);
    if !prepared.body.is_empty() {
        *request.body_mut() = Some(prepared.body.clone().into());
    }
    Ok(request)
}
