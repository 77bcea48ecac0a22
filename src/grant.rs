//! Grants: what a credential gets its tokens with. Pure: requests are built and answers are read here, and nothing is
//! sent.

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey};
use url::Url;

pub use self::identity::Bindings;
use crate::secret::SecretString;

pub mod answer;
pub mod assertion;
pub mod client_auth;
mod form;
mod identity;
pub mod lifetime;
pub mod profile;
pub mod request;
pub mod rotation;
pub mod static_secret;

/// How a credential gets tokens.
#[derive(Clone, Debug)]
pub enum Grant {
    /// RFC 6749 §4.4. Repeating the request is harmless.
    ClientCredentials(Endpoint),
    /// RFC 6749 §6. The refresh token may rotate, so a request must never be repeated blindly.
    RefreshToken {
        /// Where to ask.
        endpoint: Endpoint,
        /// The configured first refresh token; later ones live in the store.
        first: Option<SecretString>,
    },
    /// RFC 7523 §2.1. No refresh token exists: a new assertion is signed each time, which is harmless.
    JwtBearer {
        /// Where to ask.
        endpoint: Endpoint,
        /// What the assertion says.
        assertion: BearerAssertion,
    },
    /// A secret that is no OAuth token: an API key, a password, a fixed bearer token.
    Static {
        /// How it goes on a request.
        form: StaticForm,
        /// The configured secret; subjects may have imported ones.
        first: Option<SecretString>,
    },
}

impl Grant {
    /// Where tokens are asked for; `None` for a static secret, which asks nobody.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::ClientCredentials(endpoint)
            | Self::RefreshToken { endpoint, first: _ }
            | Self::JwtBearer { endpoint, assertion: _ } => Some(endpoint),
            Self::Static { form: _, first: _ } => None,
        }
    }

    /// Whether the same question may be asked again when nobody knows what became of the first one: it may where no
    /// refresh token is spent by asking.
    pub fn repeating_is_harmless(&self) -> bool {
        match self {
            Self::ClientCredentials(_) | Self::JwtBearer { endpoint: _, assertion: _ } => true,
            Self::RefreshToken { endpoint: _, first: _ } | Self::Static { form: _, first: _ } => false,
        }
    }

    /// Whether it gets a token for any subject that is named, without a grant of that subject.
    pub fn is_for_any_subject(&self) -> bool {
        match self {
            Self::JwtBearer { endpoint: _, assertion: _ } => true,
            Self::ClientCredentials(_)
            | Self::RefreshToken { endpoint: _, first: _ }
            | Self::Static { form: _, first: _ } => false,
        }
    }

    /// What replicas agree on before one of them asks.
    pub fn coordination(&self) -> Coordination {
        if self.repeating_is_harmless() { Coordination::PerToken } else { Coordination::PerGrant }
    }
}

/// The unit that has one record, one lease and one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordination {
    /// The whole grant: all its tokens share one refresh token or one secret.
    PerGrant,
    /// Each token, scopes and resources included, so that many tokens of one client never queue behind each other.
    PerToken,
}

/// A token endpoint (RFC 6749 §3.2) and who we are there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The endpoint's URL; a query in it is kept.
    pub token_url: Url,
    /// The client that is registered there.
    pub client: Client,
    /// Former URLs of the same endpoint: what the provider gave there is sent to `token_url`.
    pub formerly: Vec<Url>,
    /// The issuer identifier (RFC 8414 §2), where it is configured.
    pub issuer: Option<String>,
    /// Parameters that this provider wants besides the standard ones, for example `audience`.
    pub parameters: Vec<(String, String)>,
}

impl Endpoint {
    /// What a stored refresh token is bound to: the token URL and the client identifier. A refresh token is only ever
    /// sent where it came from (RFC 6749 §10.4), so a token that is stored under another binding must not be used.
    pub fn binding(&self) -> String {
        self.binding_at(self.token_url.as_str())
    }

    fn binding_at(&self, place: &str) -> String {
        // A serialized URL has no space in it, so two different pairs never give the same text.
        format!("{place} {}", self.client.id)
    }
}

/// A registered client (RFC 6749 §2).
#[derive(Clone, Debug)]
pub struct Client {
    /// The client identifier (RFC 6749 §2.2).
    pub id: String,
    /// How it proves itself.
    pub auth: ClientAuth,
}

/// Client authentication (RFC 6749 §2.3; names as in the OAuth registry of token endpoint authentication methods).
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// `none`: a public client; only its identifier is sent.
    None,
    /// `client_secret_basic`.
    SecretBasic(ClientSecrets),
    /// `client_secret_post`.
    SecretPost(ClientSecrets),
    /// `private_key_jwt` (RFC 7523 §2.2).
    PrivateKeyJwt(ClientAssertion),
}

impl ClientAuth {
    /// How many proofs there are to choose from; at least one.
    pub fn proofs(&self) -> usize {
        match self {
            Self::None | Self::PrivateKeyJwt(_) => 1,
            Self::SecretBasic(secrets) | Self::SecretPost(secrets) => 1 + secrets.others.len(),
        }
    }
}

/// A client's secret, or several while one is replaced by the next: the provider may know any of them.
#[derive(Clone, Debug)]
pub struct ClientSecrets {
    first: SecretString,
    others: Vec<SecretString>,
}

impl ClientSecrets {
    /// These secrets, in the order in which they are tried.
    pub fn new(first: SecretString, others: Vec<SecretString>) -> Self {
        Self { first, others }
    }

    /// The secret with this number, from 0; the first one if there are not so many.
    pub fn get(&self, number: usize) -> &SecretString {
        number.checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.first)
    }
}

impl<T: Into<SecretString>> From<T> for ClientSecrets {
    fn from(secret: T) -> Self {
        Self::new(secret.into(), Vec::new())
    }
}

/// The assertion a client authenticates with (RFC 7523 §3).
#[derive(Clone, Debug)]
pub struct ClientAssertion {
    /// The key.
    pub signer: Signer,
    /// The authorization server's issuer identifier; some providers want the token endpoint's URL.
    pub audience: String,
    /// How long one assertion is valid.
    pub lifetime: Duration,
}

/// The assertion that is the grant itself (RFC 7523 §2.1).
#[derive(Clone, Debug)]
pub struct BearerAssertion {
    /// The key.
    pub signer: Signer,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// `sub` where the caller names no subject; without it, the issuer.
    pub subject: Option<String>,
    /// How long one assertion is valid.
    pub lifetime: Duration,
}

/// A private key with its algorithm.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?}, key {:?})", self.algorithm, self.key_id)
    }
}

/// How a static secret goes on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticForm {
    /// In a header of this name.
    ApiKey {
        /// The header.
        header: http::HeaderName,
    },
    /// RFC 7617, with this user-id; the secret is the password.
    Basic {
        /// The user-id.
        username: String,
    },
    /// RFC 6750.
    Bearer,
}

/// Whether a token can stand after `Bearer ` in a header: visible ASCII without space.
///
/// RFC 6750 §2.1 allows fewer characters (`b64token`), but tokens with `!`, `:` or `|` are in use. What is refused here
/// is what would break the header, or let a provider write headers of its own.
fn is_bearer_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(token_url: &str, id: &str) -> Endpoint {
        Endpoint {
            token_url: token_url.parse().unwrap(),
            client: Client { id: id.to_owned(), auth: ClientAuth::None },
            formerly: Vec::new(),
            issuer: None,
            parameters: Vec::new(),
        }
    }

    #[test]
    fn what_shares_a_secret_is_coordinated_as_a_whole() {
        let asks = || endpoint("https://as.example/token", "id");
        let fixed = Grant::Static { form: StaticForm::Bearer, first: None };
        let refresh = Grant::RefreshToken { endpoint: asks(), first: None };
        let client = Grant::ClientCredentials(asks());
        for (grant, coordination, harmless, has_endpoint) in [
            (&fixed, Coordination::PerGrant, false, false),
            (&refresh, Coordination::PerGrant, false, true),
            (&client, Coordination::PerToken, true, true),
        ] {
            assert_eq!(grant.coordination(), coordination);
            assert_eq!(grant.repeating_is_harmless(), harmless);
            assert_eq!(grant.endpoint().is_some(), has_endpoint);
        }
    }

    #[test]
    fn a_binding_tells_urls_and_clients_apart() {
        let one = endpoint("https://as.example/token", "id").binding();
        assert_eq!(one, endpoint("https://AS.example:443/token", "id").binding());
        assert_ne!(one, endpoint("https://as.example/token", "other").binding());
        assert_ne!(one, endpoint("https://as.example/token?tenant=1", "id").binding());
        assert_ne!(
            endpoint("https://as.example/a b", "c").binding(),
            endpoint("https://as.example/a", "b c").binding()
        );
    }
}
