//! `[identity]`: who may vouch for callers, beside their connections.

use std::collections::BTreeSet;

use url::Url;

use super::{
    key::Key,
    reader::{Reader, Value},
    secret::Source,
    tls::{holds_certificates, pem_wrong},
    value::{Wrong, boolean, parsed, string, text, url},
};
use crate::{
    caller::TokenName,
    identity::{IdentityConfig, KeySet, Keys, KubernetesConfig, StaticToken},
    secret::ExposeSecret,
};

pub(super) const KEYS: &[Key] = &[Key::hidden("kubernetes"), Key::hidden("token")];

pub(super) const KUBERNETES_KEYS: &[Key] = &[
    Key::new("issuer"),
    Key::new("audience"),
    Key::hidden("jwks"),
    Key::new("jwks_url"),
    Key::new("token_review"),
    Key::new("api_server"),
    Key::hidden("ca"),
    Key::hidden("token"),
];

// A token itself may have been put where its hash should be.
pub(super) const TOKEN_KEYS: &[Key] = &[Key::new("name"), Key::hidden("sha256")];

/// Who may vouch, and what of it may change while bearerd runs.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Who may vouch.
    pub config: IdentityConfig,
    /// The Kubernetes issuer's keys, where they are given.
    pub jwks: Option<Source>,
    /// The authority that vouches for the issuer's servers.
    pub ca: Option<Source>,
    /// bearerd's own token for the API server.
    pub token: Option<Source>,
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Identity {
    let tokens = tokens(&reader.tables("token", TOKEN_KEYS));
    let mut identity = Identity { config: IdentityConfig { tokens, kubernetes: None }, ..Identity::default() };
    if let Some(table) = reader.optional_table("kubernetes", KUBERNETES_KEYS) {
        identity.jwks = table.source("jwks");
        identity.ca = table.source("ca");
        identity.token = table.source("token");
        identity.config.kubernetes = kubernetes(&table, &identity);
    }
    identity
}

/// Tokens that attackers try first. Examples were published with the hash of "test" (S16).
const WELL_KNOWN: [&str; 10] =
    ["", "test", "token", "secret", "password", "admin", "bearerd", "changeme", "example", "123456"];

fn tokens(rows: &[Reader<'_>]) -> Vec<StaticToken> {
    let mut seen = BTreeSet::new();
    let token = |row: &Reader<'_>| {
        let name = row.required("name", "\"ci\"", |value| parsed(value, "is not a token's name", TokenName::new));
        let sha256 = row.required("sha256", "\"…\", as `bearerd keygen --token` prints it", hash);
        let (name, sha256) = (name?, sha256?);
        if WELL_KNOWN.iter().any(|word| crate::identity::sha256(word) == sha256) {
            row.misfit(
                "sha256",
                "is the hash of a well-known word, which anyone can send",
                "run `bearerd keygen --token`",
            );
        }
        if !seen.insert(sha256) {
            row.misfit("sha256", "is there twice, so it is uncertain whose token it is", "make another token");
        }
        Some(StaticToken { name, sha256 })
    };
    rows.iter().filter_map(token).collect()
}

fn hash(value: &Value<'_>) -> Result<[u8; 32], Wrong> {
    let written = text(value)?;
    let digits = written.len() == 64 && written.bytes().all(|c| c.is_ascii_hexdigit());
    let byte = |at: usize| written.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = digits.then(|| (0..32).map_while(byte).collect());
    let right = "write 64 hexadecimal digits, never the token itself; `bearerd keygen --token` prints both";
    bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(|| Wrong::new(value, "is not a SHA-256 hash", right))
}

fn kubernetes(table: &Reader<'_>, identity: &Identity) -> Option<KubernetesConfig> {
    let issuer = table.required("issuer", "\"https://kubernetes.default.svc.cluster.local\"", string);
    let audience = table.required("audience", "\"bearerd\"", string);
    let review = table.optional("token_review", boolean).unwrap_or(false);
    let api_server = table.optional("api_server", server).or_else(|| Url::parse(API_SERVER).ok());
    let keys = keys(table, identity);
    fit(table, review);
    if identity.ca.as_ref().is_some_and(|ca| !holds_certificates(ca)) {
        pem_wrong(table, "ca", "refers to no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----");
    }
    let ca = identity.ca.as_ref().map(|ca| ca.content().expose_secret().to_owned());
    let token = identity.token.as_ref().map(|token| token.content().clone());
    let (issuer, audience, api_server) = (issuer?, audience?, api_server?);
    Some(KubernetesConfig { issuer, audience, keys, review, api_server, ca, token })
}

/// The name under which every pod finds its API server.
const API_SERVER: &str = "https://kubernetes.default.svc";

fn keys(table: &Reader<'_>, identity: &Identity) -> Option<Keys> {
    let fetched = table.optional("jwks_url", server).map(Keys::Fetched);
    let given = identity.jwks.as_ref().and_then(|jwks| {
        let read = KeySet::parse(jwks.content().expose_secret().as_bytes());
        if let (Err(error), Some(value)) = (&read, table.value("jwks")) {
            let right = "write { file = \"…\" } with what `kubectl get --raw /openid/v1/jwks` prints";
            table.wrong("jwks", Wrong::new(value, format!("holds no keys: {error}"), right));
        }
        read.ok().map(Keys::Given)
    });
    given.or(fetched)
}

fn fit(table: &Reader<'_>, review: bool) {
    let there = |key| table.value(key).is_some();
    if there("jwks") && there("jwks_url") {
        table.misfit("jwks_url", "does not go with jwks", "leave one of them out");
    }
    if !there("jwks") && !there("jwks_url") && !review {
        let right = "{ file = \"/path\" }, or jwks_url = \"https://…\", or token_review = true";
        table.missing("jwks", right);
    }
    if review && !there("token") {
        let right = "{ file = \"/var/run/secrets/kubernetes.io/serviceaccount/token\" }, which token_review needs";
        table.missing("token", right);
    }
    if !review && !there("jwks_url") {
        for key in ["api_server", "ca", "token"] {
            if there(key) {
                table.misfit(key, "is there, but no server is asked", "add token_review = true, or leave it out");
            }
        }
    }
}

fn server(value: &Value<'_>) -> Result<Url, Wrong> {
    url(value, false).map_err(|wrong| Wrong { right: "write it in the form \"https://host/path\"".into(), ..wrong })
}
