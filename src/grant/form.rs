//! The body of a token request.

use url::form_urlencoded;

use crate::secret::SecretString;

/// An `application/x-www-form-urlencoded` body in the making.
pub(super) struct Form(form_urlencoded::Serializer<'static, String>);

impl Default for Form {
    fn default() -> Self {
        Self(form_urlencoded::Serializer::new(String::new()))
    }
}

impl Form {
    /// Adds a parameter, unless its value is empty: without a value it counts as omitted anyway (RFC 6749 §3.2).
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.append_pair(name, value);
        }
    }

    /// The encoded body.
    pub(super) fn finish(mut self) -> SecretString {
        self.0.finish().into()
    }
}
