//! `[credentials.NAME]`: how to get tokens from one provider, and how its API is called with them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::OnceLock,
    time::Duration,
};

use toml::Spanned;

use super::{
    check::Check,
    key::{Key, With},
    reader::{Reader, Value, dotted_name, is_opened_by_header},
    report::{Problem, Scope},
    value::{Wrong, boolean, bytes, duration, some_time, string},
};
use crate::{
    broker::{Credential, StoreOutage},
    grant::lifetime::Lifetimes,
    name::{CredentialName, Resources, Scopes},
    policy::Row,
    rejection::Rules,
};

mod assertion;
mod client;
mod fence;
mod form;
mod grant;
mod provider;

const OAUTH: With = With { choice: "grant", words: &["client_credentials", "refresh_token", "jwt_bearer"] };
const BEARER: &[With] = &[With { choice: "grant", words: &["jwt_bearer"] }];
const HARMLESS: &[With] = &[With { choice: "grant", words: &["client_credentials", "jwt_bearer"] }];
const REFRESHING: With = With { choice: "grant", words: &["refresh_token"] };
const REFRESH: &[With] = &[REFRESHING];
const GRACE: &[With] = &[REFRESHING, With { choice: "rotation", words: &["grace"] }];
const STATIC: With = With { choice: "grant", words: &["static"] };
const SECRET: &[With] = &[OAUTH, With { choice: "client_auth", words: &["client_secret_basic", "client_secret_post"] }];
const KEY: &[With] = &[OAUTH, With { choice: "client_auth", words: &["private_key_jwt"] }];

pub(super) const KEYS: &[Key] = &[
    Key::new("grant"),
    Key::new("token_url").with(&[OAUTH]),
    Key::new("formerly").with(REFRESH),
    Key::new("issuer").with(&[OAUTH]),
    Key::new("client_id").with(&[OAUTH]),
    Key::new("client_auth").with(&[OAUTH]),
    Key::hidden("client_secret").with(SECRET),
    Key::hidden("client_key").with(KEY),
    Key::new("client_key_algorithm").with(KEY),
    Key::new("client_key_id").with(KEY),
    Key::new("client_assertion_audience").with(KEY),
    Key::hidden("parameters").with(&[OAUTH]),
    Key::new("scopes").with(&[OAUTH]),
    Key::new("resources").with(&[OAUTH]),
    Key::new("default_lifetime").with(&[OAUTH]),
    Key::new("max_lifetime").with(&[OAUTH]),
    Key::new("min_age").with(&[OAUTH]),
    Key::new("refresh_ahead").with(&[OAUTH]),
    Key::new("keep_alive").with(&[OAUTH]),
    Key::new("store_outage").with(HARMLESS),
    Key::hidden("refresh_token").with(REFRESH),
    Key::new("provider").with(&[OAUTH]),
    Key::new("refused_when").with(&[OAUTH]),
    Key::new("token_types").with(&[OAUTH]),
    Key::new("rotation").with(REFRESH),
    Key::new("rotation_grace").with(GRACE),
    Key::hidden("assertion_key").with(BEARER),
    Key::new("assertion_algorithm").with(BEARER),
    Key::new("assertion_key_id").with(BEARER),
    Key::new("assertion_issuer").with(BEARER),
    Key::new("assertion_audience").with(BEARER),
    Key::new("assertion_subject").with(BEARER),
    Key::new("assertion_lifetime").with(BEARER),
    Key::new("scheme").with(&[STATIC]),
    Key::new("header").with(&[STATIC, With { choice: "scheme", words: &["api_key"] }]),
    Key::new("username").with(&[STATIC, With { choice: "scheme", words: &["basic"] }]),
    Key::hidden("secret").with(&[STATIC]),
    Key::new("allow_http"),
    Key::new("base_url"),
    Key::new("allow_private_addresses"),
    Key::new("methods"),
    Key::new("allow_request_headers"),
    Key::new("deny_request_headers"),
    Key::new("deny_response_headers"),
    Key::new("max_request_bytes"),
    Key::new("rejected_when"),
    Key::new("call_timeout"),
    Key::new("max_response_bytes"),
];

const OUTAGES: &[(&str, StoreOutage)] = &[("fail", StoreOutage::Fail), ("serve", StoreOutage::Serve)];

/// All credentials: those that could be read, and the names of the others too.
#[derive(Default)]
pub(super) struct Credentials {
    good: BTreeMap<CredentialName, Credential>,
    named: BTreeSet<String>,
    incomplete: bool,
}

impl Credentials {
    /// Every name that was given, so that a credential with a mistake is not called absent elsewhere.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(String::as_str)
    }

    /// The credentials that issue a token for any subject that is named.
    pub fn signing_for_any_subject(&self) -> impl Iterator<Item = &CredentialName> {
        let signs = |credential: &&Credential| credential.grant.is_for_any_subject();
        self.good.values().filter(signs).map(|credential| &credential.name)
    }

    /// Has those say their own scopes that a row with `scopes` covers: what is unsaid gets all that was granted.
    pub fn say_scopes(&mut self, rows: &[Row]) {
        let limiting: Vec<&Row> = rows.iter().filter(|row| row.scopes.is_some()).collect();
        for (name, credential) in &mut self.good {
            credential.says_scopes = limiting.iter().any(|row| row.covers_credential(name));
        }
    }

    /// The credentials, if all of them could be read.
    pub fn complete(self) -> Option<BTreeMap<CredentialName, Credential>> {
        (!self.incomplete).then_some(self.good)
    }
}

/// Reads all tables under `[credentials]`.
pub(super) fn read_all<'a>(check: &'a Check<'a>, root: &Reader<'a>) -> Credentials {
    let mut credentials = Credentials::default();
    let tables = root.optional("credentials", |value| {
        value.get_ref().as_table().ok_or_else(|| Wrong::kind(value, "a table", "write [credentials.NAME]"))
    });
    for (key, value) in tables.into_iter().flatten() {
        if dotted(check, key, value) {
            credentials.incomplete = true;
            continue;
        }
        credentials.named.insert(key.get_ref().clone().into_owned());
        match name(check, key).and_then(|name| read(check, name, value)) {
            Some(credential) => drop(credentials.good.insert(credential.name.clone(), credential)),
            None => credentials.incomplete = true,
        }
    }
    credentials
}

/// Whether a credential has nothing but tables that no credential has. Each is reported as the name with dots that was
/// most likely meant, and nothing is missing in the credential itself.
fn dotted(check: &Check<'_>, key: &Spanned<Cow<'_, str>>, value: &Value<'_>) -> bool {
    let Some(table) = value.get_ref().as_table() else { return false };
    let is_known = |name: &str| KEYS.iter().any(|known| known.name == name);
    let is_inner = |(name, value): (&Spanned<Cow<'_, str>>, &Value<'_>)| {
        is_opened_by_header(name, value) && !is_known(name.get_ref())
    };
    if table.is_empty() || !table.iter().all(is_inner) {
        return false;
    }
    table.iter().for_each(|(name, _)| check.error(dotted_name(key.get_ref(), name)));
    true
}

fn name(check: &Check<'_>, key: &Spanned<Cow<'_, str>>) -> Option<CredentialName> {
    let (scope, span, title) = (Scope::Value, Some(key.span()), "this cannot be a credential's name".to_owned());
    let wrong = |right: String| check.error(Problem { scope, span, title, right, context: Vec::new() });
    CredentialName::new(key.get_ref()).map_err(|error| wrong(error.to_string())).ok()
}

fn read<'a>(check: &'a Check<'a>, name: CredentialName, value: &'a Value<'a>) -> Option<Credential> {
    let reader = &Reader::of(check, KEYS, format!("credentials.{name}"), value)?;
    let allow_http = reader.optional("allow_http", boolean).unwrap_or(false);
    let grant = grant::read(reader, allow_http);
    let profile = provider::read(reader, grant.as_ref());
    let scopes = set(reader, "scopes", Scopes::new);
    let resources = set(reader, "resources", Resources::new);
    let base_url = reader.optional("base_url", |value| fence::base_url(value, allow_http));
    let fence = fence::read(reader);
    let rejected_when = set(reader, "rejected_when", |rules| Rules::parse(&rules).map_err(|(_, error)| error));
    let lifetimes = Lifetimes {
        default: reader.optional("default_lifetime", some_time),
        longest: reader.optional("max_lifetime", some_time),
    };
    let min_age = reader.optional("min_age", duration).unwrap_or(Duration::from_secs(10));
    let refresh_ahead = reader.optional("refresh_ahead", duration).unwrap_or(Duration::from_secs(300));
    let keep_alive = reader.optional("keep_alive", boolean).unwrap_or(false);
    let store_outage = reader.choose("store_outage", OUTAGES, Some("fail")).unwrap_or_default();
    let call_timeout = reader.optional("call_timeout", some_time).unwrap_or(Duration::from_secs(30));
    let size = reader.optional("max_response_bytes", bytes(1024..=256 * 1024 * 1024));
    reader.finish();
    Some(Credential {
        name,
        says_scopes: false,
        grant: grant?,
        profile: profile?,
        scopes,
        resources,
        base_url,
        fence,
        rejected_when,
        lifetimes,
        min_age,
        refresh_ahead,
        keep_alive,
        store_outage,
        call_timeout,
        max_response_bytes: size.unwrap_or(3 * 1024 * 1024),
        found: OnceLock::new(),
    })
}

/// Texts that another type checks: each alone, so that every bad one is found, and then all together.
fn set<T: Default, E: Display>(reader: &Reader<'_>, key: &str, make: impl Fn(Vec<String>) -> Result<T, E>) -> T {
    let items = reader.list(key, |value| {
        let item = string(value)?;
        make(vec![item.clone()]).map(|_| item).map_err(|error| Wrong::new(value, "has a bad item", error.to_string()))
    });
    let together = |value: &Value<'_>| make(items).map_err(|error| Wrong::new(value, "is refused", error.to_string()));
    reader.optional(key, together).unwrap_or_default()
}
