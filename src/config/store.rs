//! `[store]`: where grants are kept.

use std::path::PathBuf;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

use super::{
    key::{Key, With},
    reader::{Reader, Value},
    value::{Wrong, has_user, string, text},
};
use crate::secret::{ExposeSecret, SecretString};

const REDIS: &[With] = &[With { choice: "kind", words: &["redis"] }];

pub(super) const KEYS: &[Key] = &[
    Key::new("kind"),
    Key::new("path").with(&[With { choice: "kind", words: &["embedded"] }]),
    Key::hidden("url").with(REDIS),
    Key::new("prefix").with(REDIS),
    Key::new("username").with(REDIS),
    Key::hidden("password").with(REDIS),
    Key::new("spool").with(REDIS),
    Key::hidden("ca").with(REDIS),
];

/// The store.
#[derive(Clone, Debug)]
pub enum Store {
    /// A database file, for one replica.
    Embedded {
        /// The file; a relative path begins at the working directory.
        path: PathBuf,
    },
    /// A Redis server, which replicas share.
    Redis {
        /// A `redis://` or `rediss://` URL; it may hold a password.
        url: SecretString,
        /// What every key in Redis begins with.
        prefix: String,
        /// The ACL user, if the URL does not name one.
        username: Option<String>,
        /// The password, if the URL does not hold one.
        password: Option<SecretString>,
        /// A directory for answers of providers that Redis could not take at once.
        spool: Option<PathBuf>,
        /// The authorities that may vouch for a `rediss://` server, in PEM (RFC 7468); else those of the system.
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
    let username = reader.optional("username", string);
    let password = reader.secret("password");
    let spool = reader.optional("spool", string).map(PathBuf::from);
    if reader.value("username").is_some() && reader.value("password").is_none() {
        reader.misfit("username", "is there without a password", "add password = { file = \"/path\" }");
    }
    let (url, secret) = address(reader)?;
    if has_user(&url) && reader.value("password").is_some() {
        reader.misfit(
            "password",
            "is there twice: the URL holds a user name or password too",
            "leave it out of the URL",
        );
    }
    let ca = authorities(reader);
    if reader.value("ca").is_some() && url.scheme() != "rediss" {
        reader.misfit("ca", "is there, but the URL does not encrypt", "write rediss:// or leave it out");
    }
    Some(Store::Redis { url: secret, prefix, username, password, ca, spool })
}

fn authorities(reader: &Reader<'_>) -> Option<String> {
    let pem = reader.secret("ca")?;
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
fn address(reader: &Reader<'_>) -> Option<(Url, SecretString)> {
    let value = reader.value("url");
    let secret = match value.filter(|value| value.get_ref().is_str()) {
        Some(value) => {
            if value.get_ref().as_str().is_some_and(|url| !url.contains(['@', '?', '#'])) {
                reader.check.show(value.span());
            }
            reader.optional("url", text).map(SecretString::from)
        }
        None if value.is_some() => reader.secret("url"),
        None => {
            reader.missing("url", "\"redis://host:6379\"");
            None
        }
    }?;
    match check(secret.expose_secret()) {
        Ok(url) => Some((url, secret)),
        Err((what, right)) => {
            value.into_iter().for_each(|value| reader.wrong("url", Wrong::new(value, what, right)));
            None
        }
    }
}

fn check(text: &str) -> Result<Url, (&'static str, &'static str)> {
    let form = "write it in the form \"redis://host:6379/0\" or \"rediss://host:6379/0\"";
    let url = Url::parse(text).map_err(|_| ("is not a URL", form))?;
    let database = url.path().trim_start_matches('/');
    match url.scheme() {
        "redis" | "rediss" => {}
        _ => return Err(("has a scheme that is not known here", "this version speaks redis:// and rediss://")),
    }
    if url.host().is_none() {
        return Err(("names no host", form));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(("has a query or fragment", form));
    }
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(("has a path that is no database number", form));
    }
    Ok(url)
}

fn prefix(value: &Value<'_>) -> Result<String, Wrong> {
    let prefix = text(value)?;
    let good = prefix.len() <= 64 && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    let right = "write 1 to 64 letters, digits, '-', '_', '.' or ':'";
    if good { Ok(prefix.to_owned()) } else { Err(Wrong::new(value, "is not a prefix for keys", right)) }
}
