//! Refusals of the token endpoint (RFC 6749 §5.2) and of the revocation endpoint (RFC 7009 §2.2.1).

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Which word is sent.
    pub error: ErrorWord,
    /// `error_description`, for the person who reads along.
    pub description: &'static str,
}

/// The words of RFC 6749 §5.2 and the one that RFC 7009 §2.2.1 adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorWord {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    UnsupportedTokenType,
}

impl ErrorWord {
    /// The value of `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedTokenType => "unsupported_token_type",
        }
    }

    /// The refusal with this word.
    pub fn because(self, description: &'static str) -> Refusal {
        Refusal { error: self, description }
    }
}
