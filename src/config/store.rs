//! `[store]`: where grants are kept.

use std::path::PathBuf;

use super::{
    key::{Key, With},
    reader::{Reader, Value},
    secret::Source,
    value::{Wrong, boolean, number, string, text},
};
use crate::{
    secret::ExposeSecret,
    store::redis::address::{Address, Kind as Setup},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

const REDIS: &[With] = &[With { choice: "kind", words: &["redis"] }];

pub(super) const KEYS: &[Key] = &[
    Key::new("kind"),
    Key::new("path").with(&[With { choice: "kind", words: &["embedded"] }]),
    Key::hidden("url").with(REDIS),
    Key::new("prefix").with(REDIS),
    Key::new("username").with(REDIS),
    Key::hidden("password").with(REDIS),
    Key::new("sentinel_username").with(REDIS),
    Key::hidden("sentinel_password").with(REDIS),
    Key::new("wait_replicas").with(REDIS),
    Key::new("wait_fsync").with(REDIS),
    Key::new("spool").with(REDIS),
    Key::hidden("ca").with(REDIS),
    Key::new("allow_insecure").with(REDIS),
];

/// More replicas than anybody has; a larger number is a slip, with which no write would ever count.
const MOST_REPLICAS: u64 = 32;

/// The store.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a configuration has one")]
pub enum Store {
    /// A database file, for one replica.
    Embedded {
        /// The file; a relative path begins at the working directory.
        path: PathBuf,
    },
    /// A Redis server, one that Sentinels watch over, or a Redis Cluster, which replicas share.
    Redis {
        /// What [`Address`] reads; it may hold a password.
        url: Source,
        /// What every key in Redis begins with.
        prefix: String,
        /// The ACL user, if the URL does not name one.
        username: Option<String>,
        /// The password, if the URL does not hold one.
        password: Option<Source>,
        /// The ACL user for the Sentinels, where they ask for one.
        sentinel_username: Option<String>,
        /// The password for the Sentinels, likewise.
        sentinel_password: Option<Source>,
        /// How many replicas must have a write before it counts as stored.
        wait_replicas: u32,
        /// Whether it must be on the disks of the primary and of these replicas.
        wait_fsync: bool,
        /// A directory for answers of providers that Redis could not take at once.
        spool: Option<PathBuf>,
        /// The authorities that may vouch for the servers of a `rediss` URL, in PEM (RFC 7468); else those of the system.
        ca: Option<String>,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Embedded,
    Redis,
}

/// Reads the table; `None` if no store can be made of it.
pub(super) fn read(reader: &Reader<'_>) -> Option<Store> {
    let kinds = &[("embedded", Kind::Embedded), ("redis", Kind::Redis)];
    let store = match reader.choose("kind", kinds, Some("embedded"))? {
        Kind::Embedded => {
            Some(Store::Embedded { path: reader.optional("path", string).unwrap_or("bearerd.redb".into()).into() })
        }
        Kind::Redis => redis(reader),
    };
    reader.finish();
    store
}

fn redis(reader: &Reader<'_>) -> Option<Store> {
    let prefix = reader.optional("prefix", prefix).unwrap_or("bearerd".into());
    let spool = reader.optional("spool", string).map(PathBuf::from);
    let wait_replicas = reader.optional("wait_replicas", number(0..=MOST_REPLICAS)).and_then(|n| u32::try_from(n).ok());
    let wait_fsync = reader.optional("wait_fsync", boolean).unwrap_or(false);
    let (username, password) = login(reader, "username", "password");
    let (sentinel_username, sentinel_password) = login(reader, "sentinel_username", "sentinel_password");
    let (address, url) = address(reader)?;
    if address.has_login() && reader.value("password").is_some() {
        reader.misfit(
            "password",
            "is there twice: the URL holds a user name or password too",
            "leave it out of the URL",
        );
    }
    if reader.value("sentinel_password").is_some() && !matches!(address.kind(), Setup::Sentinel { .. }) {
        let right = "write redis+sentinel://h1:26379,h2:26379/mymaster or leave it out";
        reader.misfit("sentinel_password", "is there, but the URL names no Sentinels", right);
    }
    if address.has_password() && reader.value("url").is_some_and(|value| value.get_ref().is_str()) {
        reader.misfit(
            "url",
            "has a password in it, which must not stand in this file",
            "write { file = \"/path\" } or { env = \"NAME\" } with the whole URL there, or take the password out and add password",
        );
    }
    let allowed = reader.optional("allow_insecure", boolean).unwrap_or(false);
    let guarded = address.is_encrypted() || address.has_password() || reader.value("password").is_some();
    if !guarded && !address.stays_on_this_host() && !allowed {
        reader.misfit(
            "url",
            "can lead to other hosts with neither a password nor TLS, and whoever reaches that Redis can delete every grant",
            "add a password, write rediss://, or allow_insecure = true if nobody else can reach it",
        );
    }
    if guarded && !address.is_encrypted() && !address.stays_on_this_host() && !allowed {
        reader.warn(
            reader.value("url").map(Value::span),
            "store.url sends the password to other hosts without TLS: who listens on the way can read it, and delete every grant",
            "write rediss://, or allow_insecure = true if nobody else can listen",
        );
    }
    let ca = authorities(reader);
    if reader.value("ca").is_some() && !address.is_encrypted() {
        reader.misfit("ca", "is there, but the URL does not encrypt", "write rediss:// or leave it out");
    }
    Some(Store::Redis {
        url,
        prefix,
        username,
        password,
        sentinel_username,
        sentinel_password,
        wait_replicas: wait_replicas.unwrap_or(0),
        wait_fsync,
        spool,
        ca,
    })
}

fn login(reader: &Reader<'_>, username: &'static str, password: &'static str) -> (Option<String>, Option<Source>) {
    if reader.value(username).is_some() && reader.value(password).is_none() {
        let right = format!("add {password} = {{ file = \"/path\" }}");
        reader.misfit(username, "is there without a password", &right);
    }
    (reader.optional(username, string), reader.source(password))
}

fn authorities(reader: &Reader<'_>) -> Option<String> {
    let pem = reader.text("ca")?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose_secret().as_bytes()).collect();
    if read.is_ok_and(|certificates| !certificates.is_empty()) {
        return Some(pem.expose_secret().to_owned());
    }
    let right = "it must be PEM: -----BEGIN CERTIFICATE-----";
    reader.value("ca").into_iter().for_each(|value| {
        reader.wrong("ca", Wrong::new(value, "refers to no certificate", right));
    });
    None
}

/// The URL, written here or kept elsewhere because a password is in it.
fn address(reader: &Reader<'_>) -> Option<(Address, Source)> {
    let value = reader.value("url");
    let source = match value.filter(|value| value.get_ref().is_str()) {
        Some(value) => {
            if value.get_ref().as_str().is_some_and(|url| !url.contains(['@', '?', '#'])) {
                reader.check.show(value.span());
            }
            reader.optional("url", text).map(|url| Source::fixed(url.into()))
        }
        None if value.is_some() => reader.source("url"),
        None => {
            reader.missing("url", "\"redis://host:6379\"");
            None
        }
    }?;
    match Address::parse(source.content().expose_secret()) {
        Ok(address) => Some((address, source)),
        Err(error) => {
            let wrong = |value| Wrong::new(value, error.to_string(), error.remedy());
            value.into_iter().for_each(|value| reader.wrong("url", wrong(value)));
            None
        }
    }
}

fn prefix(value: &Value<'_>) -> Result<String, Wrong> {
    let prefix = text(value)?;
    let good = prefix.len() <= 64 && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    let right = "write 1 to 64 letters, digits, '-', '_', '.' or ':'";
    if good { Ok(prefix.to_owned()) } else { Err(Wrong::new(value, "is not a prefix for keys", right)) }
}
