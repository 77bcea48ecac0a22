//! The client that is registered at a provider, and how it proves itself.

use std::time::Duration;

use super::assertion;
use crate::{
    config::{
        reader::Reader,
        value::{string, unpadded},
    },
    grant::{Client, ClientAssertion, ClientAuth, ClientSecrets},
};

/// How long an assertion of the client is valid: it is used at once, and clocks differ.
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Method {
    SecretBasic,
    SecretPost,
    PrivateKeyJwt,
    None,
}

const METHODS: &[(&str, Method)] = &[
    ("client_secret_basic", Method::SecretBasic),
    ("client_secret_post", Method::SecretPost),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("none", Method::None),
];

/// Reads the client. `default` is its method if none is written, `audience` that of its assertions.
pub(super) fn read(reader: &Reader<'_>, default: &'static str, audience: Option<String>) -> Option<Client> {
    let method = reader.choose("client_auth", METHODS, Some(default));
    let id = id(reader, method);
    let Some(method) = method else {
        reader.secrets("client_secret");
        reader.text("client_key");
        return None;
    };
    let auth = match method {
        Method::None => Some(ClientAuth::None),
        Method::SecretBasic => secrets(reader).map(ClientAuth::SecretBasic),
        Method::SecretPost => secrets(reader).map(ClientAuth::SecretPost),
        Method::PrivateKeyJwt => assertion(reader, audience).map(ClientAuth::PrivateKeyJwt),
    };
    Some(Client { id: id?, auth: auth? })
}

fn secrets(reader: &Reader<'_>) -> Option<ClientSecrets> {
    let mut secrets = reader.required_secrets("client_secret")?.into_iter();
    Some(ClientSecrets::new(secrets.next()?, secrets.collect()))
}

/// A client that does not authenticate needs no identifier where an assertion says who asks (RFC 7521 §4.1).
fn id(reader: &Reader<'_>, method: Option<Method>) -> Option<String> {
    let issuer_says = matches!(method, Some(Method::None)) && reader.value("assertion_issuer").is_some();
    if issuer_says && reader.value("client_id").is_none() {
        return Some(String::new());
    }
    reader.required("client_id", "\"the client's identifier at the provider\"", unpadded)
}

fn assertion(reader: &Reader<'_>, audience: Option<String>) -> Option<ClientAssertion> {
    let signer = assertion::signer(reader, ["client_key", "client_key_algorithm", "client_key_id"]);
    let audience = reader.optional("client_assertion_audience", string).or(audience);
    Some(ClientAssertion { signer: signer?, audience: audience?, lifetime: LIFETIME })
}
