//! The one way to make an HTTP client. No client follows a redirect or takes a proxy from the environment: each would
//! carry a secret to a place that the operator did not choose. Only a request to a protected API is ever sent twice
//! ([`upstreams`]).

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// Why a client cannot be made.
pub use reqwest::Error as ClientError;
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect::Policy, retry};

pub use self::{
    resolve::{Lookup, Reach},
    upstreams::{UpstreamClients, for_upstreams, for_upstreams_found_by},
};
/// Why TLS cannot be set up.
pub use rustls::Error as TlsError;

pub mod address;
mod authorities;
pub mod coding;
mod resolve;
pub mod upstreams;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A caller waits for this.
const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for token endpoints. No idle connection is kept: one that the server is just closing would turn a refresh
/// into a request of unknown outcome.
pub fn for_token_endpoints() -> Result<Client, ClientError> {
    builder().pool_max_idle_per_host(0).build()
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
}

/// Reads a body up to a limit. One that comes in one piece, as most do, is not copied.
pub async fn read_body(response: Response, limit: usize) -> Result<Bytes, BodyError> {
    let mut body = Bytes::new();
    read_beginning(response, limit, &mut body).await.map(|()| body)
}

/// Reads a body up to a limit into `body`, where everything stays that came before an error. Of a body that is too large
/// that is as much as the limit allows.
pub async fn read_beginning(mut response: Response, limit: usize, body: &mut Bytes) -> Result<(), BodyError> {
    while let Some(mut chunk) = response.chunk().await.map_err(|_| BodyError::Broken)? {
        let left = limit.saturating_sub(body.len());
        let is_too_large = chunk.len() > left;
        chunk.truncate(left);
        *body = joined(std::mem::take(body), chunk);
        if is_too_large {
            return Err(BodyError::TooLarge(limit));
        }
    }
    Ok(())
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
