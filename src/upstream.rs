//! One protected API on the wire: a request with a token goes out, and the answer comes back without the token.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, USER_AGENT, WWW_AUTHENTICATE},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};
use url::{Host, Url};

use self::scrub::{Scrubber, Scrubbers};
pub use self::{
    fence::{Fence, HeaderPatterns},
    headers::HeaderProblem,
    target::TargetError,
};
pub use crate::http::upstreams::Resend;
use crate::{
    http::{
        UpstreamClients,
        address::{AddressKind, kind},
        coding::{self, CodingProblem, Inside},
        upstreams::{Body, BodyProblem, Response, SendError},
    },
    limit::Bodies,
    secret::{self, ExposeSecret, SecretString},
    token::Token,
};

pub mod fence;
pub mod headers;
pub mod scrub;
pub mod target;

/// Bodies beyond this, in bytes, and packed ones are read on a thread of their own, because an upstream can make that cost
/// a good part of a second.
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
#[derive(Clone, Debug, Default)]
pub struct UpstreamAnswer {
    /// The status code.
    pub status: u16,
    /// The header fields, without those of the connection.
    pub headers: Vec<(String, String)>,
    /// The values of all `WWW-Authenticate` fields, whether or not callers get them.
    pub challenges: Vec<String>,
    /// The body. If there is a [`problem`](Self::problem), what is known of its beginning, for `rejected_when`.
    pub body: Bytes,
    /// The trailer fields, without those of the connection.
    pub trailers: Vec<(String, String)>,
    /// How often the request was sent.
    pub attempts: u32,
    /// Why callers cannot have the body.
    pub problem: Option<AnswerProblem>,
}

/// Why an answer has no body that callers can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerProblem {
    /// It is larger than the credential's `max_response_bytes`, as it came or once it is decoded.
    #[error("the body is larger than max_response_bytes ({0} bytes)")]
    TooLarge(usize),
    /// The bodies of calls under way take as much memory as they may.
    #[error("the bodies of calls under way take as much memory as they may")]
    NoRoom,
    /// It did not come to its end.
    #[error("{0}")]
    Incomplete(Arc<str>),
    /// It did not come to its end in time.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// Its content coding is unknown or damaged.
    #[error("the body cannot be decoded: {0}")]
    Undecodable(Arc<str>),
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name leads only to addresses that this credential may not connect to. For the log: it names them.
    #[error("the upstream may not be connected to: {0}")]
    NotAllowed(Arc<str>),
    /// The upstream did not process the request.
    #[error("the upstream did not process the request: {0}")]
    Unreachable(Arc<str>),
    /// The request was sent and may have been acted upon.
    #[error("the upstream gave no answer: {0}")]
    Broken(Arc<str>),
    /// The request was sent and may have been acted upon.
    #[error("the upstream gave no answer in time")]
    TimedOut,
}

impl Upstream {
    /// A sender on these clients.
    pub fn new(clients: UpstreamClients) -> Self {
        Self { clients, scrubbers: Arc::default(), readers: Arc::new(Semaphore::new(READ_THERE)) }
    }

    /// Sends a request with a token within the fence of its credential, and once more where `resend` allows it.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], when no answer began.
    pub async fn send(
        &self,
        fence: &Fence,
        prepared: &Prepared,
        token: &Arc<Token>,
        resend: Resend,
        deadline: Instant,
    ) -> Result<Arrived, UpstreamError> {
        check_literal(&prepared.url)?;
        let (name, scheme) = token.header();
        let value = secret::joined([scheme, token.value.expose_secret()]);
        let request = encode(prepared, name, &value)?;
        let client = self.clients.that_reaches(fence.reach);
        let response = client.send(&request, resend, deadline).await.map_err(failure)?;
        // HEAD and 304 have the length of a body that does not come (RFC 9110 §8.6).
        let keeps_length = prepared.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
        let challenges = response.headers.get_all(WWW_AUTHENTICATE).iter().map(headers::text).collect();
        let answer = UpstreamAnswer {
            status: response.status.as_u16(),
            headers: headers::to_caller(&response.headers, fence, keeps_length),
            challenges,
            attempts: response.attempts,
            ..UpstreamAnswer::default()
        };
        Ok(Arrived {
            answer,
            response,
            fence: fence.clone(),
            limit: prepared.max_response_bytes,
            bodies: Arc::clone(&prepared.bodies),
            scrubber: self.scrubbers.of(token),
            readers: Arc::clone(&self.readers),
        })
    }
}

/// An answer whose body was not read yet.
pub struct Arrived {
    answer: UpstreamAnswer,
    response: Response,
    fence: Fence,
    limit: usize,
    bodies: Arc<Bodies>,
    scrubber: Arc<Scrubber>,
    readers: Arc<Semaphore>,
}

impl Arrived {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// The values of all `WWW-Authenticate` fields.
    pub fn challenges(&self) -> &[String] {
        &self.answer.challenges
    }

    /// The answer with its body as far as it comes before the deadline, plain and without the token.
    pub async fn read(self, deadline: Instant) -> UpstreamAnswer {
        let Self { mut answer, response, fence, limit, bodies, scrubber, readers } = self;
        let fields = response.headers.clone();
        let Body { bytes, trailers, problem } =
            response.read(limit, deadline, |bytes| bodies.hold(bytes).is_ok()).await;
        answer.trailers = headers::to_caller(&trailers, &fence, false);
        answer.problem = problem.map(|problem| match problem {
            BodyProblem::TooLarge(limit) => AnswerProblem::TooLarge(limit),
            BodyProblem::NoRoom => AnswerProblem::NoRoom,
            BodyProblem::Broken(_) => AnswerProblem::Incomplete(problem.to_string().into()),
            BodyProblem::TimedOut => AnswerProblem::TimedOut,
        });
        let here = bytes.len() <= READ_HERE && !fields.contains_key(CONTENT_ENCODING) && !coding::is_packed(&bytes);
        answer.body = bytes;
        if here {
            return scrubber.answer(plain(answer, &fields, (limit, &bodies), &scrubber));
        }
        // It is never closed.
        let _reader = readers.acquire().await.ok();
        let without_body = UpstreamAnswer { body: Bytes::new(), ..answer.clone() };
        let read = spawn_blocking({
            let scrubber = Arc::clone(&scrubber);
            move || scrubber.answer(plain(answer, &fields, (limit, &bodies), &scrubber))
        });
        read.await.unwrap_or_else(|_| {
            let problem = AnswerProblem::Undecodable("reading it failed".into());
            scrubber.answer(UpstreamAnswer { problem: Some(problem), ..without_body })
        })
    }
}

/// The answer with a body that a token is found in: without its content codings, or withheld if it is a packed file that
/// holds the token.
fn plain(
    mut answer: UpstreamAnswer,
    fields: &HeaderMap,
    (limit, bodies): (usize, &Bodies),
    scrubber: &Scrubber,
) -> UpstreamAnswer {
    let coded = answer.body.len();
    match coding::plain(fields, answer.body, limit) {
        Ok(plain) => {
            answer.body = plain.body;
            if bodies.hold(answer.body.len().saturating_sub(coded)).is_err() {
                answer.problem.get_or_insert(AnswerProblem::NoRoom);
            }
            answer.headers.retain(|(name, _)| !plain.was_coded || name != CONTENT_ENCODING.as_str());
        }
        Err(undecodable) => {
            answer.body = undecodable.beginning;
            let problem = match undecodable.problem {
                CodingProblem::TooLarge => AnswerProblem::TooLarge(limit),
                problem @ (CodingProblem::Unknown(_) | CodingProblem::Damaged(_) | CodingProblem::TooMany) => {
                    AnswerProblem::Undecodable(problem.to_string().into())
                }
            };
            // A body that broke off cannot be decoded to its end either.
            answer.problem.get_or_insert(problem);
        }
    }
    match coding::inside(&answer.body, limit) {
        Inside::Nothing => {}
        Inside::Content(content) if scrubber.finds(&content) => answer.body = scrub::withheld(),
        Inside::Content(_) => {}
        // The token may be in the part that was not unpacked.
        Inside::TooLarge(_) => answer.problem = answer.problem.or(Some(AnswerProblem::TooLarge(limit))),
    }
    answer
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

fn failure(error: SendError) -> UpstreamError {
    match error {
        SendError::NotAllowed(text) => UpstreamError::NotAllowed(text),
        SendError::NotProcessed(cause) => UpstreamError::Unreachable(cause),
        SendError::Broken(cause) => UpstreamError::Broken(cause),
        SendError::TimedOut => UpstreamError::TimedOut,
    }
}

/// What requests without these fields get.
const ANY: HeaderValue = HeaderValue::from_static("*/*");
const OURS: HeaderValue = HeaderValue::from_static(concat!("bearerd/", env!("CARGO_PKG_VERSION")));

fn encode(prepared: &Prepared, name: &str, value: &SecretString) -> Result<Request<Bytes>, UpstreamError> {
    let unusable = |what: &str| UpstreamError::Unreachable(format!("{what} cannot be sent").into());
    let mut request = Request::new(prepared.body.clone());
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = Uri::try_from(prepared.url.as_str()).map_err(|_| unusable("the URL"))?;
    let fields = request.headers_mut();
    fields.clone_from(&prepared.headers);
    fields.entry(ACCEPT).or_insert(ANY);
    fields.entry(USER_AGENT).or_insert(OURS);
    // RFC 9110 §8.6: these methods say that they have no body.
    if prepared.body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&prepared.method) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| unusable("the token"))?;
    value.set_sensitive(true);
    fields.insert(HeaderName::try_from(name).map_err(|_| unusable("the token"))?, value);
    Ok(request)
}
