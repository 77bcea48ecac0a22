//! Reading a token endpoint's answer.

use std::time::Duration;

use crate::{name::Scopes, secret::SecretString, token::TokenType};

/// What a token endpoint answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A token (RFC 6749 §5.1).
    Granted(Granted),
    /// A well-formed refusal (RFC 6749 §5.2, or a status that can mean nothing else).
    Refused(Refusal),
    /// Neither: nobody can say what the provider did.
    Unusable(Unusable),
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The access token, fit for a header.
    pub access_token: SecretString,
    /// How to present it.
    pub kind: TokenType,
    /// Its life, counted from when the request was sent; `None` if not said.
    pub expires_in: Option<Duration>,
    /// A new refresh token, which replaces the old one.
    pub refresh_token: Option<SecretString>,
    /// The granted scopes; `None` means those that were asked for.
    pub scopes: Option<Scopes>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub error: RefusalError,
    /// How long the provider wants us to wait (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
}

/// The meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalError {
    /// `invalid_grant`: this grant gives no tokens any more.
    InvalidGrant,
    /// `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `invalid_request`, `invalid_target` and 401
    /// or 403 without a word: our configuration is at fault.
    Client,
    /// `invalid_scope`.
    Scope,
    /// 429, or `slow_down`.
    RateLimited,
    /// `temporarily_unavailable`, `server_error`, 503 and other errors that a provider states.
    Unavailable,
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The answer is too large.
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
    /// Neither JSON nor a form.
    #[error("the answer is neither JSON nor a form (RFC 6749 §5.1)")]
    Unreadable,
    /// No usable `access_token`.
    #[error("the answer has no access_token that fits in a header (RFC 6750 §2.1)")]
    NoAccessToken,
    /// An unknown `token_type`.
    #[error("the answer's token_type is not Bearer (RFC 6749 §7.1: an unknown type must not be used)")]
    UnknownType,
    /// A status that says nothing about whether the request was acted upon (500, 502, 504 and the like).
    #[error("the status says nothing about the outcome")]
    UnclearStatus,
}
