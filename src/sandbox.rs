//! The provider and the API that `demo` and tests play against; the service never imports it.
//!
//! An OAuth authorization server and a protected API, in this process, on two loopback ports. They speak the real
//! protocol over real TCP. Everything they issue lives in memory and ends with the [`Sandbox`].

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

mod api;
mod assertion;
mod authority;
mod clients;
mod connection;
mod fault;
mod form;
mod journal;
mod ledger;
mod provider;
mod refusal;
mod scope;
mod visits;

#[cfg(test)]
mod tests;

pub use api::{DEMO_API_KEY, DEMO_PASSWORD, DEMO_USERNAME};
pub use assertion::{KeyError, KeyPair};
pub use clients::{DEMO_AWKWARD, DEMO_AWKWARD_SECRET, DEMO_CONFIDENTIAL, DEMO_JWT, DEMO_PUBLIC, DEMO_SECRET};
pub use fault::Fault;
pub use journal::{Outcome, Presented, TokenRequestEntry};

use assertion::Keys;
use authority::Authority;
use journal::Journal;
use ledger::Ledger;
use visits::Visits;

/// How a sandbox behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an access token is good, at most a year. `expires_in` says it in whole seconds.
    pub access_token_lifetime: Duration,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// How long the token endpoint keeps its answer back after it has acted.
    pub latency: Duration,
    /// Where the authorization server listens: a loopback address; port 0 takes a free port.
    pub provider_listen: SocketAddr,
    /// Where the API listens: a loopback address; port 0 takes a free port.
    pub api_listen: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            access_token_lifetime: Duration::from_secs(300),
            rotation: Rotation::Strict,
            latency: Duration::ZERO,
            provider_listen: free,
            api_listen: free,
        }
    }
}

/// What becomes of a refresh token that was used (RFC 6749 §6, RFC 9700 §4.14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh issues the next refresh token. Presenting an earlier one revokes the grant: every refresh token of
    /// the family and all live access tokens that came out of it.
    Strict,
    /// A refresh token stays good, and no new one is issued.
    Off,
}

/// A running sandbox. When it is dropped both servers end and their connections are cut.
pub struct Sandbox {
    world: Arc<World>,
    demo_key: KeyPair,
    running: DropGuard,
    servers: [JoinHandle<()>; 2],
}

/// What both servers share.
struct World {
    issuer: String,
    api_url: String,
    latency: Duration,
    authority: Mutex<Authority>,
    visits: Visits,
}

impl Sandbox {
    /// Starts both servers; they accept connections when this returns.
    ///
    /// # Errors
    /// If an address cannot be bound, or is not a loopback address: the secrets of the demo clients are public.
    pub async fn start(options: Options) -> io::Result<Self> {
        let provider = bind(options.provider_listen).await?;
        let api = bind(options.api_listen).await?;
        let demo_key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = format!("http://{}", provider.local_addr()?);
        let api_url = format!("http://{}", api.local_addr()?);
        let world = Arc::new(World::new(&options, issuer, api_url));
        let stop = CancellationToken::new();
        let servers = [
            tokio::spawn(connection::serve(provider, provider::router(Arc::clone(&world)), stop.clone())),
            tokio::spawn(connection::serve(api, api::router(Arc::clone(&world)), stop.clone())),
        ];
        let sandbox = Self { world, demo_key, running: stop.drop_guard(), servers };
        sandbox.register_key(DEMO_JWT, &sandbox.demo_key.public_pem, Algorithm::ES256).map_err(io::Error::other)?;
        Ok(sandbox)
    }

    /// The authorization server's issuer identifier, `http://` with address and port.
    pub fn issuer(&self) -> String {
        self.world.issuer.clone()
    }

    /// The token endpoint (RFC 6749 §3.2).
    pub fn token_url(&self) -> String {
        format!("{}/token", self.world.issuer)
    }

    /// The revocation endpoint (RFC 7009); it revokes refresh tokens.
    pub fn revocation_url(&self) -> String {
        format!("{}/revoke", self.world.issuer)
    }

    /// Where a POST does what [`Sandbox::revoke_access_tokens`] does.
    pub fn access_token_revocation_url(&self) -> String {
        format!("{}/sandbox/revoke", self.world.issuer)
    }

    /// The API's root, without a slash at the end. Below it:
    ///
    /// | path | answers |
    /// |---|---|
    /// | `/hello` | who the token stands for, and its scope |
    /// | `/echo` | the request, the token included |
    /// | `/admin` | 403 `insufficient_scope` without the scope `admin` |
    /// | `/plain401` | 401 without a challenge when the token is bad |
    /// | `/soap500` | 500 with `INVALID_SESSION_ID` when the token is bad |
    /// | `/key` | wants [`DEMO_API_KEY`] in `X-Api-Key`, or [`DEMO_USERNAME`] and [`DEMO_PASSWORD`] |
    /// | `/away` | a redirect to `/landing` at another origin |
    /// | any other | 404 |
    ///
    /// Wherever nothing else is said, a missing or bad token is answered with 401 and a challenge (RFC 6750 §3).
    pub fn api_url(&self) -> String {
        self.world.api_url.clone()
    }

    /// The key pair of [`DEMO_JWT`], for ES256.
    pub fn demo_key(&self) -> &KeyPair {
        &self.demo_key
    }

    /// Starts a grant for a subject, with the scopes `read` and `write`, and returns its first refresh token. The grant
    /// is bound to the client that uses it first.
    pub fn mint_refresh_token(&self, subject: &str) -> String {
        self.world.authority.lock().ledger.mint(subject)
    }

    /// Registers the public key (PEM) of a client for `private_key_jwt`, and of an issuer for the `jwt-bearer` grant; it
    /// takes the place of the one before. An identifier that was unknown is a registered client from now on.
    ///
    /// # Errors
    /// If it is no public key for the algorithm.
    pub fn register_key(&self, client_id: &str, public_pem: &str, algorithm: Algorithm) -> Result<(), KeyError> {
        self.world.authority.lock().keys.register(client_id, public_pem, algorithm)
    }

    /// Makes a later answer of the token endpoint go wrong. Each call is for one request; they queue.
    pub fn fail_next(&self, fault: Fault) {
        self.world.authority.lock().faults.push_back(fault);
    }

    /// The token requests that were answered, in order; of very many only the last ten thousand.
    pub fn journal(&self) -> Vec<TokenRequestEntry> {
        self.world.authority.lock().journal.entries()
    }

    /// How many requests came for a path of the API, or for `/landing`.
    pub fn requests(&self, path: &str) -> u64 {
        self.world.visits.of(path)
    }

    /// Ends all access tokens of now. Grants stay good: this is what an administrator's "end all sessions" looks like.
    pub fn revoke_access_tokens(&self) {
        self.world.authority.lock().ledger.revoke_access_tokens();
    }

    /// Ends the grant that a refresh token belongs to, with its access tokens: the person took the consent back.
    pub fn revoke_grant(&self, refresh_token: &str) {
        let mut authority = self.world.authority.lock();
        if let Some(presented) = authority.ledger.position(refresh_token) {
            authority.ledger.revoke(presented.family);
        }
    }

    /// Whether the grant that a refresh token belongs to still gives tokens. Any token of the family will do, also one
    /// that was rotated away.
    pub fn family_alive(&self, refresh_token: &str) -> bool {
        let authority = self.world.authority.lock();
        authority.ledger.position(refresh_token).is_some_and(|presented| authority.ledger.is_alive(presented.family))
    }

    /// Ends both servers, cuts their connections and waits until the ports are free.
    pub async fn stop(self) {
        drop(self.running);
        for server in self.servers {
            // A server that ended in any way has ended.
            let _ = server.await;
        }
    }
}

impl World {
    fn new(options: &Options, issuer: String, api_url: String) -> Self {
        let authority = Authority {
            ledger: Ledger::new(options.rotation, options.access_token_lifetime),
            journal: Journal::default(),
            keys: Keys::default(),
            faults: VecDeque::new(),
            audiences: [issuer.clone(), format!("{issuer}/token")],
        };
        let (authority, visits) = (Mutex::new(authority), Visits::default());
        Self { issuer, api_url, latency: options.latency, authority, visits }
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sandbox listens on loopback addresses only"));
    }
    TcpListener::bind(address).await
}
