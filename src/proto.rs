//! The messages and services of `proto/bearerd/v1`, generated. Messages that carry secrets or subjects have a `Debug` of
//! their own, which shows none of them.

#![allow(missing_docs, unused_qualifications, clippy::all, clippy::restriction, reason = "generated")]

use std::fmt;

pub use self::codec::Codec;

mod codec;

tonic::include_proto!("bearerd.v1");

/// All message and service descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bearerd_descriptor.bin"));

/// A `Debug` that shows the named fields only.
macro_rules! redacted {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    Token { token_type, generation, expires_at, scopes, degraded }
    Header { name }
    GetTokenRequest { credential, scopes, resources, min_remaining, refused_generation }
    GetTokenResponse { token }
    InvalidateTokenRequest { credential, scopes, resources }
    InvalidateTokenResponse { outcome, token, generation, detail }
    Rejection { http_status }
    CallThroughRequest { credential, method, replay }
    CallThroughResponse { status, generation, attempts, refreshed }
    ImportGrantRequest { credential, scopes, no_verify }
    DescribeGrantRequest { credential, scopes, resources }
}

impl fmt::Debug for invalidate_token_request::Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation(generation) => write!(f, "Generation({generation})"),
            Self::AccessToken(_) => f.write_str("AccessToken([redacted])"),
        }
    }
}

impl fmt::Debug for import_grant_request::Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshToken(_) => f.write_str("RefreshToken([redacted])"),
            Self::StaticSecret(_) => f.write_str("StaticSecret([redacted])"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let token = Token {
            access_token: "canary".to_owned(),
            headers: vec![Header { name: "authorization".to_owned(), value: "Bearer canary".to_owned() }],
            generation: 7,
            ..Token::default()
        };
        let import = ImportGrantRequest {
            secret: Some(import_grant_request::Secret::RefreshToken("canary".to_owned())),
            ..ImportGrantRequest::default()
        };
        let rejected = Some(invalidate_token_request::Rejected::AccessToken("canary".to_owned()));
        let shown = format!("{token:?} {:?} {import:?} {:?} {rejected:?}", token.headers, import.secret);
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("generation: 7"), "{shown}");
    }
}
