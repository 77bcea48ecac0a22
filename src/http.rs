//! The one way to make an HTTP client. No redirect is followed, no proxy of the environment is used and nothing is sent
//! twice by itself: each of them would carry a secret to where nobody decided it should go.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

/// Why a client cannot be made.
pub use reqwest::Error as ClientError;
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect::Policy, retry};

pub use self::resolve::{Lookup, NotAllowed, Reach};

pub mod address;
mod authorities;
pub mod coding;
mod resolve;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A caller waits for this.
const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for token endpoints. No idle connection is kept: one that the server is just closing would turn a refresh
/// into a request of unknown outcome.
pub fn for_token_endpoints() -> Result<Client, ClientError> {
    builder().pool_max_idle_per_host(0).build()
}

/// Clients for protected APIs, which keep connections: one for each [`Reach`], so that a connection that was opened to a
/// private address is never there for a credential that may not have it.
#[derive(Clone, Debug)]
pub struct UpstreamClients {
    public: Client,
    private: Client,
}

impl UpstreamClients {
    /// The client whose names lead so far.
    pub fn that_reaches(&self, reach: Reach) -> &Client {
        match reach {
            Reach::Public => &self.public,
            Reach::Private => &self.private,
        }
    }
}

/// Clients for protected APIs, with the names of the operating system.
pub fn for_upstreams() -> Result<UpstreamClients, ClientError> {
    for_upstreams_found_by(&resolve::system())
}

/// Clients for protected APIs whose names are looked up like this.
pub fn for_upstreams_found_by(lookup: &Lookup) -> Result<UpstreamClients, ClientError> {
    let reaching = |reach| builder().dns_resolver(resolve::Filter { lookup: Arc::clone(lookup), reach }).build();
    Ok(UpstreamClients { public: reaching(Reach::Public)?, private: reaching(Reach::Private)? })
}

/// The refusal of an address that stands behind an error of a client.
pub fn not_allowed(error: &ClientError) -> Option<&NotAllowed> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

/// A client for those who vouch for callers. `ca` is the only authority that may vouch for them in turn, in PEM
/// (RFC 7468); without it those of the system.
pub fn for_issuers(ca: Option<&str>) -> Result<Client, ClientError> {
    let builder = match ca {
        Some(pem) => plain_builder().tls_certs_only(Certificate::from_pem_bundle(pem.as_bytes())?),
        None => builder(),
    };
    builder.timeout(ISSUER_TIMEOUT).build()
}

/// With the system's authorities.
fn builder() -> ClientBuilder {
    match authorities::trusted_by_system() {
        Ok(tls) => plain_builder().tls_backend_preconfigured(tls),
        // The library then tells what is wrong with it.
        Err(_) => plain_builder(),
    }
}

fn plain_builder() -> ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("bearerd/", env!("CARGO_PKG_VERSION")))
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection broke.
    #[error("the body did not arrive whole")]
    Broken,
    /// Its receiver has no room for more.
    #[error("there is no room for the body")]
    NoRoom,
}

/// Reads a body up to a limit. One that comes in one piece, as most do, is not copied.
pub async fn read_body(response: Response, limit: usize) -> Result<Bytes, BodyError> {
    read_body_where(response, limit, |_| true).await
}

/// The same where `has_room` is asked for each piece, by its number of bytes, before it is kept.
pub async fn read_body_where(
    mut response: Response,
    limit: usize,
    has_room: impl Fn(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let mut body = Bytes::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| BodyError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge(limit));
        }
        if !has_room(chunk.len()) {
            return Err(BodyError::NoRoom);
        }
        body = joined(body, chunk);
    }
    Ok(body)
}

fn joined(body: Bytes, chunk: Bytes) -> Bytes {
    if body.is_empty() {
        return chunk;
    }
    // What is nobody else's grows in its place, also if it is that of the connection.
    let mut body = BytesMut::from(body);
    body.extend_from_slice(&chunk);
    body.freeze()
}
