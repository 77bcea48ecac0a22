//! Grants: what a credential gets its tokens with. Pure: requests are built and answers are read here, and nothing is
//! sent.

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey};
use url::Url;

use crate::secret::SecretString;

pub mod answer;

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

/// A token endpoint (RFC 6749 §3.2) and who we are there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The endpoint's URL; a query in it is kept.
    pub token_url: Url,
    /// The client that is registered there.
    pub client: Client,
    /// Parameters that this provider wants besides the standard ones, for example `audience`.
    pub parameters: Vec<(String, String)>,
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
    SecretBasic(SecretString),
    /// `client_secret_post`.
    SecretPost(SecretString),
    /// `private_key_jwt` (RFC 7523 §2.2).
    PrivateKeyJwt(ClientAssertion),
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
