//! The HTTP clients for protected APIs. They keep connections, tell apart what was sent from what was not, and send a
//! request once more only where that cannot do its work twice.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{CaptureConnection, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Duration, Instant, timeout_at};

pub use self::failure::SendError;
use self::{
    connection::Traffic,
    connector::Connector,
    failure::{Effect, Failure},
};
use super::{
    Lookup, Reach, authorities,
    resolve::{self, Filter},
};

mod connection;
mod connector;
mod failure;

/// The most header fields of an answer.
const MAX_FIELDS: usize = 1000;

/// The largest list of header fields of an answer over HTTP/2, in bytes: 64 KiB of text, and 32 bytes for each field
/// (RFC 9113 §6.5.2).
const MAX_FIELD_LIST: u32 = 96 * 1024;

/// How long an open HTTP/2 stream may hear nothing until the connection is tested, and how long the test may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients for protected APIs: one for each [`Reach`], so that a connection to a private address is never used for a
/// credential that may not reach it.
#[derive(Clone, Debug)]
pub struct UpstreamClients {
    public: UpstreamClient,
    private: UpstreamClient,
}

impl UpstreamClients {
    /// The client whose names lead so far.
    pub fn that_reaches(&self, reach: Reach) -> &UpstreamClient {
        match reach {
            Reach::Public => &self.public,
            Reach::Private => &self.private,
        }
    }
}

/// Clients for protected APIs, with the names of the operating system.
///
/// # Errors
///
/// If TLS cannot be set up.
pub fn for_upstreams() -> Result<UpstreamClients, rustls::Error> {
    for_upstreams_found_by(&resolve::system())
}

/// Clients for protected APIs whose names are looked up like this.
///
/// # Errors
///
/// If TLS cannot be set up.
pub fn for_upstreams_found_by(lookup: &Lookup) -> Result<UpstreamClients, rustls::Error> {
    let tls = Arc::new(authorities::trusted_by_system()?);
    let reaching = |reach| {
        let connector = Connector::new(Filter { lookup: Arc::clone(lookup), reach }, Arc::clone(&tls));
        UpstreamClient { kept: pool(connector.clone(), usize::MAX), fresh: pool(connector, 0) }
    };
    Ok(UpstreamClients { public: reaching(Reach::Public), private: reaching(Reach::Private) })
}

fn pool(connector: Connector, idle: usize) -> Pool {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(idle)
        .http1_max_headers(MAX_FIELDS)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http2_max_header_list_size(MAX_FIELD_LIST)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}

type Pool = Client<Connector, Full<Bytes>>;

/// A client for protected APIs.
#[derive(Clone)]
pub struct UpstreamClient {
    /// Keeps connections.
    kept: Pool,
    /// Makes a connection for each request, for those that are sent once more.
    fresh: Pool,
}

impl fmt::Debug for UpstreamClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamClient").finish_non_exhaustive()
    }
}

/// Which requests are sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// Those that the server says it did not process (RFC 9113 §8.7).
    Unprocessed,
    /// Those too whose kept connection broke before a byte of the answer: the method is idempotent (RFC 9110 §9.2.2).
    Idempotent,
}

/// The beginning of an answer.
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// How often the request was sent.
    pub attempts: u32,
    body: Incoming,
    connection: CaptureConnection,
}

/// What was read of a body.
pub struct Body {
    /// The bytes; the first ones if there is a problem.
    pub bytes: Bytes,
    /// The trailer fields.
    pub trailers: HeaderMap,
    /// Why the rest was not read.
    pub problem: Option<BodyProblem>,
}

/// Why a body was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// It is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Its receiver has no room for more.
    #[error("there is no room for the body")]
    NoRoom,
    /// The connection broke.
    #[error("the body did not arrive whole: {0}")]
    Broken(Arc<str>),
    /// It did not come in time.
    #[error("the body did not arrive in time")]
    TimedOut,
}

impl UpstreamClient {
    /// Sends a request, and once more where `resend` allows it.
    ///
    /// # Errors
    ///
    /// [`SendError`], when no answer began.
    pub async fn send(
        &self,
        request: &Request<Bytes>,
        resend: Resend,
        deadline: Instant,
    ) -> Result<Response, SendError> {
        let failure = match once(&self.kept, request, deadline).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let again = match failure.effect {
            Effect::Unprocessed => true,
            Effect::KeptConnectionBroke => resend == Resend::Idempotent,
            Effect::NotSent | Effect::Unknown => false,
        };
        if !again {
            return Err(failure.error);
        }
        tracing::debug!(cause = %failure.error, "sending a request to an API once more, on a new connection");
        let response = once(&self.fresh, request, deadline).await.map_err(|failure| failure.error)?;
        Ok(Response { attempts: 2, ..response })
    }
}

/// Sends a request once. (hyper sends one again that never left this host, because its connection was closed.)
async fn once(pool: &Pool, request: &Request<Bytes>, deadline: Instant) -> Result<Response, Failure> {
    let mut request = request.clone().map(Full::new);
    let connection = capture_connection(&mut request);
    match timeout_at(deadline, pool.request(request)).await {
        Ok(Ok(response)) => {
            let (head, body) = response.into_parts();
            if let Some(traffic) = Traffic::of(&connection) {
                traffic.note_answer();
            }
            Ok(Response { status: head.status, headers: head.headers, attempts: 1, body, connection })
        }
        Ok(Err(error)) => Err(Failure::of(&error, &connection)),
        Err(_) => {
            leave(&connection);
            Err(Failure::late(&connection))
        }
    }
}

/// Takes a connection out of use: the next request gets another one. A server that stopped answering on an HTTP/2
/// connection would else be asked on it again. (HTTP/1 connections end with their request.)
fn leave(connection: &CaptureConnection) {
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.poison();
    }
}

impl Response {
    /// Reads the body, as far as the limit and the deadline allow, and `has_room`, which is asked for each piece by its number
    /// of bytes. A body that comes in one piece is not copied.
    pub async fn read(mut self, limit: usize, deadline: Instant, has_room: impl Fn(usize) -> bool) -> Body {
        let mut read = Body { bytes: Bytes::new(), trailers: HeaderMap::new(), problem: None };
        loop {
            let frame = match timeout_at(deadline, self.body.frame()).await {
                Ok(None) => return read,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let cause = failure::root_cause(&error).into();
                    return Body { problem: Some(BodyProblem::Broken(cause)), ..read };
                }
                Err(_) => {
                    leave(&self.connection);
                    return Body { problem: Some(BodyProblem::TimedOut), ..read };
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let room = limit.saturating_sub(read.bytes.len());
                    let beyond = data.len() > room;
                    if !has_room(room.min(data.len())) {
                        return Body { problem: Some(BodyProblem::NoRoom), ..read };
                    }
                    read.bytes = joined(read.bytes, data.slice(..room.min(data.len())));
                    if beyond {
                        return Body { problem: Some(BodyProblem::TooLarge(limit)), ..read };
                    }
                }
                Err(frame) => read.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
    }
}

fn joined(body: Bytes, chunk: Bytes) -> Bytes {
    if body.is_empty() {
        return chunk;
    }
    // A buffer that has no other owner grows in its place.
    let mut body = BytesMut::from(body);
    body.extend_from_slice(&chunk);
    body.freeze()
}
