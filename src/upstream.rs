//! One protected API on the wire: a request with a token goes out, once, and the answer comes back without it.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, WWW_AUTHENTICATE},
};
use reqwest::{Request, Response};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use url::{Host, Url};

use self::scrub::{Scrubber, Scrubbers};
pub use self::{
    fence::{Fence, HeaderPatterns},
    headers::HeaderProblem,
    target::TargetError,
};
use crate::{
    http::{
        BodyError, ClientError, UpstreamClients,
        address::{AddressKind, kind},
        coding::{self, CodingProblem},
        not_allowed, read_body_where,
    },
    limit::Bodies,
    secret::{self, ExposeSecret, SecretString},
    token::Token,
};

pub mod fence;
pub mod headers;
pub mod scrub;
pub mod target;

/// Bodies beyond this, in bytes, and coded ones are read on a thread where nobody else waits: whoever answers can make
/// that cost a good part of a second.
const READ_HERE: usize = 64 * 1024;

/// How many answers are read on such threads at a time: each can need memory for two bodies beside the one that is counted.
const READ_THERE: usize = 8;

/// Sends calls through. Cloning it is cheap.
#[derive(Clone)]
pub struct Upstream {
    clients: UpstreamClients,
    scrubbers: Arc<Scrubbers>,
    readers: Arc<Semaphore>,
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
    /// Where its bodies are counted.
    pub bodies: Arc<Bodies>,
}

/// An upstream's answer, cleared of the token.
#[derive(Clone, Debug)]
pub struct UpstreamAnswer {
    /// The status code.
    pub status: u16,
    /// The header fields, without those of the connection.
    pub headers: Vec<(String, String)>,
    /// The values of all `WWW-Authenticate` fields, whether or not callers get them.
    pub challenges: Vec<String>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name leads only to addresses that this credential may not connect to. For the log: it names them.
    #[error("the upstream may not be connected to: {0}")]
    NotAllowed(Arc<str>),
    /// Nothing left this host.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The request was sent and may have been acted upon.
    #[error("the upstream gave no whole answer: {0}")]
    NoAnswer(Arc<str>),
    /// The answer is larger than the credential's `max_response_bytes`.
    #[error("the upstream's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The bodies of calls under way take as much memory as they may. The request was sent.
    #[error("the bodies of calls under way take as much memory as they may")]
    NoRoom,
}

impl Upstream {
    /// A sender on these clients, which must neither follow redirects nor repeat requests.
    pub fn new(clients: UpstreamClients) -> Self {
        Self { clients, scrubbers: Arc::default(), readers: Arc::new(Semaphore::new(READ_THERE)) }
    }

    /// Sends a request with a token, once, within the fence of its credential.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], when no answer came that can be passed on.
    pub async fn send(
        &self,
        fence: &Fence,
        prepared: &Prepared,
        token: &Arc<Token>,
        deadline: Instant,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        check_literal(&prepared.url)?;
        let (name, scheme) = token.header();
        let value = secret::joined([scheme, token.value.expose_secret()]);
        let request = encode(prepared, name, &value)?;
        let client = self.clients.that_reaches(fence.reach);
        let response = match timeout_at(deadline, client.execute(request)).await {
            Ok(answered) => answered.map_err(|error| failure(&error))?,
            Err(_) => return Err(UpstreamError::NoAnswer("time ran out".into())),
        };
        let answer = async {
            let received = receive(response, fence, prepared).await?;
            received.read(self.scrubbers.of(token), &self.readers).await
        };
        match timeout_at(deadline, answer).await {
            Ok(read) => read,
            Err(_) => Err(UpstreamError::NoAnswer("time ran out".into())),
        }
    }
}

/// An address that stands in the URL itself is not looked up, so the resolver never sees it. Private ones are the
/// operator's explicit choice.
fn check_literal(url: &Url) -> Result<(), UpstreamError> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match kind(address) {
        AddressKind::Public | AddressKind::Private => Ok(()),
        AddressKind::Never => Err(UpstreamError::NotAllowed(format!("{address} is never called").into())),
    }
}

fn failure(error: &ClientError) -> UpstreamError {
    if let Some(refused) = not_allowed(error) {
        return UpstreamError::NotAllowed(refused.to_string().into());
    }
    match error.is_connect() {
        true => UpstreamError::Unreachable("no connection".into()),
        false => UpstreamError::NoAnswer("the connection broke".into()),
    }
}

/// An answer as it came.
struct Received {
    fields: HeaderMap,
    answer: UpstreamAnswer,
    limit: usize,
    bodies: Arc<Bodies>,
}

async fn receive(response: Response, fence: &Fence, prepared: &Prepared) -> Result<Received, UpstreamError> {
    let (status, fields) = (response.status().as_u16(), response.headers().clone());
    let (limit, bodies) = (prepared.max_response_bytes, Arc::clone(&prepared.bodies));
    let has_room = |bytes| bodies.hold(bytes).is_ok();
    let body = read_body_where(response, limit, has_room).await.map_err(|error| match error {
        BodyError::TooLarge(limit) => UpstreamError::TooLarge(limit),
        BodyError::Broken => UpstreamError::NoAnswer("the connection broke".into()),
        BodyError::NoRoom => UpstreamError::NoRoom,
    })?;
    let headers = headers::to_caller(&fields, fence);
    let challenges = fields.get_all(WWW_AUTHENTICATE).iter().map(headers::text).collect();
    Ok(Received { fields, answer: UpstreamAnswer { status, headers, challenges, body }, limit, bodies })
}

impl Received {
    /// The answer, plain and without the token.
    async fn read(self, scrubber: Arc<Scrubber>, readers: &Semaphore) -> Result<UpstreamAnswer, UpstreamError> {
        if self.answer.body.len() <= READ_HERE && !self.fields.contains_key(CONTENT_ENCODING) {
            return self.plain().map(|answer| scrubber.answer(answer));
        }
        // It is never closed.
        let _reader = readers.acquire().await.ok();
        let read = spawn_blocking(move || self.plain().map(|answer| scrubber.answer(answer)));
        read.await.unwrap_or_else(|_| Err(UpstreamError::NoAnswer("it was not read to its end".into())))
    }

    /// The answer without the content coding of its body.
    fn plain(self) -> Result<UpstreamAnswer, UpstreamError> {
        let Self { fields, mut answer, limit, bodies } = self;
        let coded = answer.body.len();
        let plain = coding::plain(&fields, answer.body, limit).map_err(|error| match error.problem {
            CodingProblem::TooLarge => UpstreamError::TooLarge(limit),
            CodingProblem::Unknown(_) | CodingProblem::Damaged(_) | CodingProblem::TooMany => {
                UpstreamError::NoAnswer(error.problem.to_string().into())
            }
        })?;
        answer.body = plain.body;
        bodies.hold(answer.body.len().saturating_sub(coded)).map_err(|_| UpstreamError::NoRoom)?;
        answer.headers.retain(|(name, _)| !plain.was_coded || name != CONTENT_ENCODING.as_str());
        Ok(answer)
    }
}

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
