//! The configuration: file, secrets and environment in, checked values out.
//!
//! All mistakes of a file are found in one pass, before anything is bound or opened.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::de::DeTable;
use zeroize::Zeroizing;

mod allow;
mod audit;
mod cache;
mod change;
mod check;
mod credential;
mod file;
mod identity;
mod key;
mod limits;
mod log;
mod mask;
mod outline;
mod reader;
mod refresh;
mod report;
mod seal;
mod secret;
mod server;
mod store;
mod syntax;
mod tls;
mod value;

pub use cache::Cache;
pub use file::ReadFile;
pub use identity::Identity;
pub use log::{Log, LogFormat};
pub use outline::Outline;
pub use report::{ConfigErrors, Note, Warning};
pub use seal::{Seal, SealKey};
pub use secret::Source;
pub use server::Server;
pub use store::Store;
pub use tls::{ClientCertificates, ServerTls};

use self::{
    check::{Check, Outcome, Secrets},
    key::Key,
    reader::Reader,
};
use crate::{
    audit::AuditConfig,
    broker::{Credential, Timing},
    grant::Grant,
    identity::{hex, sha256},
    limit::LimitConfig,
    name::CredentialName,
    policy::{Chosen, Policy, Row},
};

/// Where a configuration is looked for when no path is given, in this order.
pub const DEFAULT_PATHS: [&str; 2] = ["bearerd.toml", "/etc/bearerd/bearerd.toml"];

/// Everything that is configured, checked, secrets included.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listeners.
    pub server: Server,
    /// Where grants are kept.
    pub store: Store,
    /// What encrypts them there.
    pub seal: Seal,
    /// Who may do what. Empty only where the listener is a loopback one: then every caller may do everything.
    pub allow: Vec<Row>,
    /// Who may vouch for callers.
    pub identity: Identity,
    /// Where the audit log goes.
    pub audit: AuditConfig,
    /// How much is taken on.
    pub limits: LimitConfig,
    /// The times of a refresh.
    pub refresh: Timing,
    /// The tokens in memory.
    pub cache: Cache,
    /// The log.
    pub log: Log,
    /// The credentials by name.
    pub credentials: BTreeMap<CredentialName, Credential>,
    /// The SHA-256 of the configuration's text, in hexadecimal digits. The secrets that it names are no part of it.
    pub digest: String,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Warning>,
    /// Every file that was read for it: the configuration file, unless only its text was given, and those of secrets.
    /// When one of them has changed it is time to load again.
    pub files: Vec<ReadFile>,
}

impl Config {
    /// The policy. An empty one is there only with a loopback listener, any other is refused, and lets local callers do
    /// everything.
    pub fn policy(&self) -> Policy {
        if self.allow.is_empty() {
            return Policy::local_only();
        }
        let chosen = self.credentials.iter().map(|(name, credential)| {
            let chosen = match credential.grant {
                Grant::Static { .. } => Chosen::Secret,
                Grant::ClientCredentials(_) | Grant::RefreshToken { .. } | Grant::JwtBearer { .. } => Chosen::Token {
                    scopes: credential.scopes.clone(),
                    resources: credential.resources.clone(),
                    for_any_subject: credential.grant.is_for_any_subject(),
                },
            };
            (name.clone(), chosen)
        });
        Policy::new(self.allow.clone(), chosen.collect())
    }
}

/// Reads the configuration file at `path`, or the first of [`DEFAULT_PATHS`] that exists, and all secrets it names.
///
/// # Errors
///
/// [`ConfigErrors`] with every mistake, or with the one that there is no file to read.
pub fn load(path: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let found = Found::at(path)?;
    match parse(&found.name, &found.text, environment, &found.directory) {
        Ok(mut config) => {
            config.files.push(found.file);
            Ok(config)
        }
        Err(errors) => Err(errors.after_reading([found.file])),
    }
}

/// Checks the configuration file that [`load`] would read, and reads none of the secrets that it names.
///
/// # Errors
///
/// [`ConfigErrors`] with every mistake that can be told without the secrets.
pub fn load_without_secrets(path: Option<&Path>) -> Result<Outline, ConfigErrors> {
    let found = Found::at(path)?;
    let text = without_mark(&found.text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    let check = Check::new(&|_| None, &found.directory, Secrets::Leave);
    read(&check, document.get_ref());
    let outcome = check.finish(&found.name, text, document.get_ref(), &syntax, is_harmless);
    match outcome.errors {
        Some(errors) => Err(errors),
        None => Ok(Outline::of(document.get_ref(), outcome.warnings)),
    }
}

/// A configuration file and its text.
struct Found {
    name: String,
    text: Zeroizing<String>,
    directory: PathBuf,
    file: ReadFile,
}

impl Found {
    fn at(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let found = DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists());
        let Some(path) = path.or(found) else {
            let [here, there] = DEFAULT_PATHS;
            let title = format!("there is no configuration file: neither ./{here} nor {there}");
            let errors = ConfigErrors::without_file(title, "write one of them, or name another with --config".into());
            return Err(errors.after_reading(DEFAULT_PATHS.map(|path| ReadFile::now(Path::new(path)))));
        };
        let name = path.display().to_string();
        let file = ReadFile::now(path);
        let unreadable = |error: secret::Unreadable| {
            let title = format!("the configuration file {name} cannot be read: {error}");
            ConfigErrors::without_file(title, error.remedy().to_owned()).after_reading([file.clone()])
        };
        let text = secret::read(path).map_err(unreadable)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { name, text, directory, file })
    }
}

/// Reads a configuration from its text. `name` is what reports call it; relative paths of secrets begin at `directory`.
///
/// # Errors
///
/// [`ConfigErrors`] with every mistake.
pub fn parse(
    name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    directory: &Path,
) -> Result<Config, ConfigErrors> {
    let text = without_mark(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    let check = Check::new(environment, directory, Secrets::Read);
    let config = read(&check, document.get_ref());
    let Outcome { errors, warnings, files } = check.finish(name, text, document.get_ref(), &syntax, is_harmless);
    match (errors, config) {
        (None, Some(config)) => Ok(Config { digest: hex(&sha256(text)), warnings, files, ..config }),
        (Some(errors), _) => Err(errors.after_reading(files).logged_as(log::format(document.get_ref()))),
        (None, None) => Err(ConfigErrors::without_file(format!("{name} is no configuration"), "see the sample".into())),
    }
}

/// Some editors begin a file with a byte order mark, which is no part of the text.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Every setting there is, as the name of its table (`credentials` for each credential, `secret` for a reference to a
/// secret) and its own.
pub fn known_keys() -> Vec<(&'static str, &'static str)> {
    let keys = TABLES.iter().flat_map(|(table, keys)| keys.iter().map(|key| (*table, key.name)));
    keys.collect()
}

const ROOT_KEYS: &[Key] = &[
    Key::hidden("server"),
    Key::hidden("store"),
    Key::hidden("seal"),
    Key::hidden("allow"),
    Key::hidden("identity"),
    Key::hidden("audit"),
    Key::hidden("limits"),
    Key::hidden("refresh"),
    Key::hidden("cache"),
    Key::hidden("log"),
    Key::hidden("credentials"),
];

const TABLES: &[(&str, &[Key])] = &[
    ("server", server::KEYS),
    ("server.tls", tls::KEYS),
    ("store", store::KEYS),
    ("seal", seal::KEYS),
    ("seal.keys", seal::ROW_KEYS),
    ("allow", allow::KEYS),
    ("identity", identity::KEYS),
    ("identity.kubernetes", identity::KUBERNETES_KEYS),
    ("identity.token", identity::TOKEN_KEYS),
    ("audit", audit::KEYS),
    ("limits", limits::KEYS),
    ("refresh", refresh::KEYS),
    ("cache", cache::KEYS),
    ("log", log::KEYS),
    ("credentials", credential::KEYS),
    ("secret", secret::KEYS),
];

/// The tables, as they are written, that know a setting of this name.
fn tables_with(name: &str) -> Vec<String> {
    let knows = |keys: &[Key]| keys.iter().any(|key| key.name == name);
    let written = |table: &str| match table {
        "credentials" => "[credentials.NAME]".to_owned(),
        "allow" | "identity.token" => format!("[[{table}]]"),
        _ => format!("[{table}]"),
    };
    let tables = TABLES.iter().filter(|(table, keys)| *table != "secret" && *table != "seal.keys" && knows(keys));
    tables.map(|(table, _)| written(table)).collect()
}

/// Whether a setting of this name never holds a secret, in whatever table.
fn is_harmless(name: &str) -> bool {
    let mut named = TABLES.iter().flat_map(|(_, keys)| *keys).filter(|key| key.name == name).peekable();
    named.peek().is_some() && named.all(|key| !key.hidden)
}

fn read<'a>(check: &'a Check<'a>, document: &'a DeTable<'a>) -> Option<Config> {
    let root = Reader::root(check, ROOT_KEYS, document);
    let [server_table, store_table, seal_table] =
        [("server", server::KEYS), ("store", store::KEYS), ("seal", seal::KEYS)]
            .map(|(key, keys)| root.table(key, keys));
    let server = server::read(&server_table);
    let store = store::read(&store_table);
    let seal = seal::read(&seal_table);
    seal::fit(&store_table, &seal_table, store.as_ref());
    let mut credentials = credential::read_all(check, &root);
    let identity = identity::read(&root.table("identity", identity::KEYS));
    let rows = root.tables("allow", allow::KEYS);
    let allow = allow::read(&rows, &credentials);
    credentials.say_scopes(&allow);
    allow::fit(&root, &rows, &server_table, &server);
    let audit = audit::read(&root.table("audit", audit::KEYS));
    let limits = limits::read(&root.table("limits", limits::KEYS));
    let refresh = refresh::read(&root.table("refresh", refresh::KEYS));
    let cache = cache::read(&root.table("cache", cache::KEYS));
    let log = log::read(&root.table("log", log::KEYS));
    Some(Config {
        server,
        store: store?,
        seal,
        allow,
        identity,
        audit,
        limits,
        refresh,
        cache,
        log,
        credentials: credentials.complete()?,
        digest: String::new(),
        warnings: Vec::new(),
        files: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
