//! Proof in, [`Caller`] out. A proof is what a connection shows, or a token in the `authorization` metadata of a request;
//! no other header is ever read. Whoever shows a proof that does not hold is refused, and never taken for somebody weaker.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    caller::{BadName, Caller, ServiceAccount, UnixUser},
    http::ClientError,
    secret::{ExposeSecret, SecretString},
};

pub use self::{
    jwks::{JwksError, KeySet},
    kubernetes::{Keys, Kubernetes, KubernetesConfig},
    review::ReviewConfig,
    static_token::{StaticToken, hex, sha256},
    svid::{Svid, SvidError},
};

mod jwks;
mod jwt;
mod kubernetes;
mod remote;
mod review;
mod static_token;
pub mod svid;

/// What a connection shows of who is at its other end.
#[derive(Clone, Debug)]
pub enum Peer {
    /// An address, which says no more than whether it is this machine's.
    Network(SocketAddr),
    /// A certificate that was checked in the handshake.
    Certificate(Svid),
    /// The user of a process on this machine, told by its kernel.
    Unix {
        /// The user's number.
        uid: u32,
    },
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Remote {
    /// What it shows.
    pub peer: Peer,
    /// Where it is; nowhere, for a Unix-domain socket.
    pub address: Option<Address>,
}

/// An address, and its text, which every record of a connection has.
#[derive(Clone, Debug)]
pub struct Address {
    /// The host.
    pub ip: IpAddr,
    /// Host and port.
    pub shown: Arc<str>,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), shown: address.to_string().into() }
    }
}

/// What a request shows of who sends it.
#[derive(Debug)]
pub enum Proof {
    /// It is from this caller.
    Shown(Caller),
    /// It has a token of which only its issuer can tell whose it is: [`Identity::vouched_for`].
    Issued(SecretString),
}

/// A proof that does not hold. The cause is for the log; callers are told the same whatever it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate's time went by while the connection was open.
    #[error("the certificate of this connection has expired")]
    CertificateExpired,
    /// There is more than one `authorization`, so it is uncertain whose request this is.
    #[error("there is more than one authorization")]
    SeveralProofs,
    /// The `authorization` is not `Bearer` and a token (RFC 6750 §2.1).
    #[error("the authorization is not a bearer token")]
    NotBearer,
    /// It is no configured token, and no issuer is configured that could vouch for it.
    #[error("nobody knows this token")]
    UnknownToken,
    /// It is a JSON Web Token that is not good, in these words.
    #[error("the token is not good: {0}")]
    BadToken(String),
    /// No key of the issuer has this token's key identifier.
    #[error("the token is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// The issuer's keys cannot be fetched, so nothing is certain about its tokens.
    #[error("the issuer's keys are not there: {0}")]
    NoKeys(#[from] JwksError),
    /// The API server does not vouch for the token.
    #[error("the API server does not vouch for the token")]
    NotVouchedFor,
    /// The API server cannot be asked.
    #[error("the API server cannot be asked: {0}")]
    CannotAsk(String),
    /// The token is good, and not that of a ServiceAccount.
    #[error("the token is for no ServiceAccount: {0}")]
    NotServiceAccount(#[from] BadName),
}

impl IdentityError {
    /// Whether it is the caller's mistake. Where the issuer cannot be asked it says nothing about the caller.
    pub fn is_the_callers(&self) -> bool {
        match self {
            Self::NoKeys(_) | Self::CannotAsk(_) => false,
            Self::CertificateExpired
            | Self::SeveralProofs
            | Self::NotBearer
            | Self::UnknownToken
            | Self::BadToken(_)
            | Self::UnknownKey
            | Self::NotVouchedFor
            | Self::NotServiceAccount(_) => true,
        }
    }
}

/// Who may vouch for callers, beside their connections.
#[derive(Clone, Debug, Default)]
pub struct IdentityConfig {
    /// Tokens that are known by their hashes.
    pub tokens: Vec<StaticToken>,
    /// A Kubernetes cluster's issuer.
    pub kubernetes: Option<KubernetesConfig>,
}

/// Tells who calls.
#[derive(Clone, Debug)]
pub struct Identity {
    tokens: Arc<[StaticToken]>,
    kubernetes: Option<Arc<Kubernetes>>,
}

impl Identity {
    /// Makes it; nothing is asked of anybody yet.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the authority for the issuer is unusable.
    pub fn new(config: IdentityConfig) -> Result<Self, ClientError> {
        let kubernetes = config.kubernetes.map(Kubernetes::new).transpose()?.map(Arc::new);
        Ok(Self { tokens: config.tokens.into(), kubernetes })
    }

    /// The same with other tokens that are known by their hashes, and with no others than these.
    #[must_use]
    pub fn with_tokens(&self, tokens: Vec<StaticToken>) -> Self {
        Self { tokens: tokens.into(), kubernetes: self.kubernetes.clone() }
    }

    /// The verifier of Kubernetes tokens, to hand it new keys.
    pub fn kubernetes(&self) -> Option<&Arc<Kubernetes>> {
        self.kubernetes.as_ref()
    }

    /// What a request proves, by its connection and the values of its `authorization` metadata. A token says more than a
    /// connection, so it is the token's caller where both are there.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if any proof that is there does not hold, as far as that can be told without asking anybody.
    pub fn proof(&self, peer: &Peer, authorization: Vec<SecretString>) -> Result<Proof, IdentityError> {
        let by_connection = of_peer(peer, SystemTime::now())?;
        let mut values = authorization.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Proof::Shown(by_connection)),
            (Some(value), None) => self.of_token(bearer(value.expose_secret())?),
            (Some(_), Some(_)) => Err(IdentityError::SeveralProofs),
        }
    }

    fn of_token(&self, token: &str) -> Result<Proof, IdentityError> {
        match (static_token::find(&self.tokens, token), &self.kubernetes) {
            (Some(name), _) => Ok(Proof::Shown(Caller::Token(name))),
            (None, Some(_)) => Ok(Proof::Issued(token.into())),
            (None, None) => Err(IdentityError::UnknownToken),
        }
    }

    /// Tells whose token this is, if its issuer vouches for it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if it does not, or cannot be asked.
    pub async fn vouched_for(&self, token: &SecretString) -> Result<Caller, IdentityError> {
        let kubernetes = self.kubernetes.as_ref().ok_or(IdentityError::UnknownToken)?;
        let account: ServiceAccount = kubernetes.verify(token.expose_secret()).await?;
        Ok(Caller::ServiceAccount(account))
    }
}

fn of_peer(peer: &Peer, now: SystemTime) -> Result<Caller, IdentityError> {
    Ok(match peer {
        Peer::Certificate(svid) if svid.not_after < now => return Err(IdentityError::CertificateExpired),
        Peer::Certificate(svid) => Caller::Spiffe(svid.id.clone()),
        Peer::Unix { uid } => Caller::UnixUser(UnixUser::new(*uid)),
        Peer::Network(address) if address.ip().to_canonical().is_loopback() => Caller::Local,
        Peer::Network(_) => Caller::Anonymous,
    })
}

/// The most bytes of a token. Those of Kubernetes have about 1200.
const MAX_TOKEN: usize = 8 * 1024;

/// The token of `Bearer token68` (RFC 6750 §2.1, RFC 9110 §11.2); the scheme's case does not matter.
fn bearer(value: &str) -> Result<&str, IdentityError> {
    let (scheme, token) = value.split_once(' ').ok_or(IdentityError::NotBearer)?;
    let token = token.trim_matches(' ');
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    let is_token = (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(good);
    if scheme.eq_ignore_ascii_case("bearer") && is_token { Ok(token) } else { Err(IdentityError::NotBearer) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::caller::SpiffeId;

    #[test]
    fn only_loopback_is_local() {
        for (peer, caller) in [
            ("127.0.0.1:1", Caller::Local),
            ("127.9.9.9:1", Caller::Local),
            ("[::1]:1", Caller::Local),
            ("[::ffff:127.0.0.1]:1", Caller::Local),
            ("10.0.0.1:1", Caller::Anonymous),
            ("[::ffff:10.0.0.1]:1", Caller::Anonymous),
        ] {
            let shown = Peer::Network(peer.parse().unwrap());
            assert_eq!(of_peer(&shown, SystemTime::now()).unwrap(), caller, "{peer}");
        }
    }

    #[test]
    fn a_certificate_counts_up_to_its_last_moment() {
        let now = SystemTime::now();
        let id = SpiffeId::new("spiffe://acme/a").unwrap();
        let peer = |not_after| Peer::Certificate(Svid { id: id.clone(), not_after });
        assert_eq!(of_peer(&peer(now), now).unwrap(), Caller::Spiffe(id.clone()));
        let passed = of_peer(&peer(now - Duration::from_secs(1)), now);
        assert!(matches!(passed, Err(IdentityError::CertificateExpired)));
    }

    #[test]
    fn only_the_bearer_scheme_and_one_token_are_taken() {
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN));
        for (value, token) in [
            ("Bearer abc.DEF-1_2~3+4/5==", Some("abc.DEF-1_2~3+4/5==")),
            ("bearer abc", Some("abc")),
            ("BEARER   abc ", Some("abc")),
            (long.as_str(), long.strip_prefix("Bearer ")),
            ("", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
            ("Bearer a b", None),
            ("Bearer a, Bearer b", None),
            ("Bearer a\tb", None),
            ("Bearer \u{e4}", None),
            (&format!("{long}a"), None),
        ] {
            assert_eq!(bearer(value).ok(), token, "{value}");
        }
    }
}
