//! The grant of a credential, and the token endpoint it asks.

use std::borrow::Cow;

use toml::Spanned;
use url::Url;

use super::{assertion, client, form};
use crate::{
    config::{
        reader::{Reader, Value},
        value::{self, Wrong, string},
    },
    grant::{Endpoint, Grant, request::RESERVED_PARAMETERS},
};

#[derive(Clone, Copy)]
enum Kind {
    ClientCredentials,
    RefreshToken,
    JwtBearer,
    Static,
}

const KINDS: &[(&str, Kind)] = &[
    ("client_credentials", Kind::ClientCredentials),
    ("refresh_token", Kind::RefreshToken),
    ("jwt_bearer", Kind::JwtBearer),
    ("static", Kind::Static),
];

/// What a credential does whose configured refresh token is missing.
const WITHOUT_FIRST: &str =
    "the grant in the store is used, and where there is none, callers get REAUTHORIZATION_REQUIRED";

/// Reads everything that the grant is made of; `None` if some of it is wrong.
pub(super) fn read(reader: &Reader<'_>, allow_http: bool) -> Option<Grant> {
    let Some(kind) = reader.choose("grant", KINDS, None) else {
        check_the_rest(reader, allow_http);
        return None;
    };
    match kind {
        Kind::ClientCredentials => endpoint(reader, allow_http, "client_secret_basic").map(Grant::ClientCredentials),
        Kind::RefreshToken => {
            let first = reader.initial_secret("refresh_token", WITHOUT_FIRST);
            let endpoint = endpoint(reader, allow_http, "client_secret_basic")?;
            Some(Grant::RefreshToken { endpoint, first })
        }
        Kind::JwtBearer => {
            let endpoint = endpoint(reader, allow_http, "none");
            let assertion = assertion::bearer(reader, endpoint.as_ref());
            Some(Grant::JwtBearer { endpoint: endpoint?, assertion: assertion? })
        }
        Kind::Static => form::read(reader),
    }
}

/// Finds the mistakes that do not depend on what grant was meant.
fn check_the_rest(reader: &Reader<'_>, allow_http: bool) {
    reader.optional("token_url", |value| value::url(value, allow_http));
    reader.secrets("client_secret");
    for key in ["client_key", "assertion_key"] {
        reader.text(key);
    }
    for key in ["refresh_token", "secret"] {
        reader.secret(key);
    }
}

/// Reads where tokens are asked for; `auth` is how the client proves itself if nothing is said.
fn endpoint(reader: &Reader<'_>, allow_http: bool, auth: &'static str) -> Option<Endpoint> {
    let example = "\"https://provider.example/token\"";
    let token_url = reader.required("token_url", example, |value| value::url(value, allow_http));
    let formerly = reader.list("formerly", |value| value::url(value, allow_http));
    let issuer = reader.optional("issuer", |value| issuer(value, allow_http));
    let audience = issuer.clone().or_else(|| token_url.as_ref().map(Url::to_string));
    let client = client::read(reader, auth, audience);
    let parameters = parameters(reader);
    Some(Endpoint { token_url: token_url?, client: client?, formerly, issuer, parameters })
}

/// An issuer is compared character by character (RFC 8414 §3.3), so it stays as it is written.
fn issuer(value: &Value<'_>, allow_http: bool) -> Result<String, Wrong> {
    value::url(value, allow_http).and_then(|_| string(value))
}

/// Reads parameters that the provider wants besides the standard ones. Their values are never shown in a report.
fn parameters(reader: &Reader<'_>) -> Vec<(String, String)> {
    let table = reader.optional("parameters", |value| {
        value.get_ref().as_table().ok_or_else(|| Wrong::kind(value, "a table", "write { audience = \"…\" }"))
    });
    let mut parameters = Vec::new();
    for (key, value) in table.into_iter().flatten() {
        match parameter(key, value) {
            Ok(parameter) => parameters.push(parameter),
            Err(wrong) => reader.wrong("parameters", wrong),
        }
    }
    parameters
}

fn parameter(key: &Spanned<Cow<'_, str>>, value: &Value<'_>) -> Result<(String, String), Wrong> {
    let name = key.get_ref().as_ref();
    if name.is_empty() || RESERVED_PARAMETERS.contains(&name) {
        return Err(Wrong {
            span: key.span(),
            what: "names a parameter that bearerd sets itself".to_owned(),
            right: "leave it out and use the credential's other settings".to_owned(),
        });
    }
    string(value).map(|value| (name.to_owned(), value))
}
