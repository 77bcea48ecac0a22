//! The body of a token request.

use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::secret::SecretString;

/// An `application/x-www-form-urlencoded` body in the making. Client secrets and refresh tokens are in it, so it is zeroed
/// when it is dropped, and begins large enough not to move while it grows, which would leave a copy behind.
pub(super) struct Form(Zeroizing<String>);

/// Larger than any token request with a refresh token of a usual size, or with one or two assertions.
const ROOM: usize = 16 * 1024;

impl Default for Form {
    fn default() -> Self {
        Self(Zeroizing::new(String::with_capacity(ROOM)))
    }
}

impl Form {
    /// Adds a parameter, unless its value is empty: without a value it counts as omitted anyway (RFC 6749 §3.2).
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            Serializer::new(&mut *self.0).append_pair(name, value);
        }
    }

    /// The encoded body.
    pub(super) fn finish(self) -> SecretString {
        self.0.as_str().into()
    }
}
