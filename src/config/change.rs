//! What of a changed configuration a running process cannot take over.

use super::{Config, Identity, Server, ServerTls, Source, Store, allow, tls::ClientCertificates};
use crate::{
    identity::{IdentityConfig, Keys, KubernetesConfig},
    secret::ExposeSecret,
    store::redis::address::Address,
};

/// A setting, and whether it differs.
type Row = (&'static str, bool);

impl Config {
    /// The settings in which `new` differs and that are in force only after a restart, by name. Credentials, policy, seal
    /// keys and callers' own tokens are not among them: those change while the process runs.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let mut rows = server(&self.server, &new.server);
        rows.extend(store(&self.store, &new.store));
        rows.extend([
            ("identity.kubernetes", !same_identity(&self.identity, &new.identity)),
            ("limits", self.limits != new.limits),
            ("audit", self.audit != new.audit),
            ("refresh", self.refresh != new.refresh),
            ("cache", self.cache != new.cache),
            ("log", self.log != new.log),
        ]);
        rows.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The setting that is still in force and because of which the rows of `new` cannot be done without: this process
    /// would have been refused at its start without any. `None` where `new` has rows, or where none are needed.
    pub fn still_needs_rows(&self, new: &Self) -> Option<String> {
        if !new.allow.is_empty() {
            return None;
        }
        let listener = allow::needs_rows(&self.server).map(|(key, _)| format!("server.{key}"));
        listener.or_else(|| self.identity.config.kubernetes.is_some().then(|| "identity.kubernetes".to_owned()))
    }
}

/// Destructured without `..`: a new setting cannot be forgotten here.
fn server(old: &Server, new: &Server) -> Vec<Row> {
    let Server {
        listen,
        unix_socket,
        admin_listen,
        metrics,
        tls,
        plaintext,
        reflection,
        shutdown_timeout,
        max_message_bytes,
        max_connections,
        max_connections_per_address,
        max_connection_age,
        max_concurrent_streams,
    } = old;
    vec![
        ("server.listen", *listen != new.listen),
        ("server.unix_socket", *unix_socket != new.unix_socket),
        ("server.admin_listen", *admin_listen != new.admin_listen),
        ("server.metrics", *metrics != new.metrics),
        ("server.tls", !same_tls(tls.as_ref(), new.tls.as_ref())),
        ("server.plaintext", *plaintext != new.plaintext),
        ("server.reflection", *reflection != new.reflection),
        ("server.shutdown_timeout", *shutdown_timeout != new.shutdown_timeout),
        ("server.max_message_bytes", *max_message_bytes != new.max_message_bytes),
        ("server.max_connections", *max_connections != new.max_connections),
        ("server.max_connections_per_address", *max_connections_per_address != new.max_connections_per_address),
        ("server.max_connection_age", *max_connection_age != new.max_connection_age),
        ("server.max_concurrent_streams", *max_concurrent_streams != new.max_concurrent_streams),
    ]
}

/// What stands in the files is not compared: it is followed while the process runs.
fn same_tls(old: Option<&ServerTls>, new: Option<&ServerTls>) -> bool {
    match (old, new) {
        (Some(ServerTls { certificate, key, clients }), Some(new)) => {
            certificate.has_the_place_of(&new.certificate)
                && key.has_the_place_of(&new.key)
                && same_clients(clients.as_ref(), new.clients.as_ref())
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn same_clients(old: Option<&ClientCertificates>, new: Option<&ClientCertificates>) -> bool {
    match (old, new) {
        (Some(ClientCertificates { ca, trust_domain, required }), Some(new)) => {
            ca.has_the_place_of(&new.ca) && *trust_domain == new.trust_domain && *required == new.required
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// All of it but callers' own tokens, which come and go while the process runs.
fn same_identity(old: &Identity, new: &Identity) -> bool {
    let Identity { config, jwks, ca, token } = old;
    let IdentityConfig { tokens: _, kubernetes } = config;
    same_kubernetes(kubernetes.as_ref(), new.config.kubernetes.as_ref())
        && same_place(jwks.as_ref(), new.jwks.as_ref())
        && same_place(ca.as_ref(), new.ca.as_ref())
        && same_place(token.as_ref(), new.token.as_ref())
}

/// What was read from the sources is not compared, but where it is read.
fn same_kubernetes(old: Option<&KubernetesConfig>, new: Option<&KubernetesConfig>) -> bool {
    match (old, new) {
        (Some(KubernetesConfig { issuer, audience, keys, review, api_server, ca: _, token: _ }), Some(new)) => {
            *issuer == new.issuer
                && *audience == new.audience
                && fetched(keys.as_ref()) == fetched(new.keys.as_ref())
                && *review == new.review
                && *api_server == new.api_server
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn fetched(keys: Option<&Keys>) -> Option<&url::Url> {
    match keys {
        Some(Keys::Fetched(url)) => Some(url),
        Some(Keys::Given(_)) | None => None,
    }
}

fn same_place(old: Option<&Source>, new: Option<&Source>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.has_the_place_of(new),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn store(old: &Store, new: &Store) -> Vec<Row> {
    match (old, new) {
        (Store::Embedded { path }, Store::Embedded { path: other }) => vec![("store.path", path != other)],
        (
            Store::Redis {
                url,
                prefix,
                // Logins are read again while the process runs.
                username: _,
                password: _,
                sentinel_username: _,
                sentinel_password: _,
                wait_replicas,
                wait_fsync,
                spool,
                ca,
            },
            Store::Redis {
                url: new_url,
                prefix: new_prefix,
                username: _,
                password: _,
                sentinel_username: _,
                sentinel_password: _,
                wait_replicas: new_wait_replicas,
                wait_fsync: new_wait_fsync,
                spool: new_spool,
                ca: new_ca,
            },
        ) => vec![
            ("store.url", leads_elsewhere(url, new_url)),
            ("store.prefix", prefix != new_prefix),
            ("store.wait_replicas", wait_replicas != new_wait_replicas),
            ("store.wait_fsync", wait_fsync != new_wait_fsync),
            ("store.spool", spool != new_spool),
            ("store.ca", ca != new_ca),
        ],
        (Store::Embedded { .. }, Store::Redis { .. }) | (Store::Redis { .. }, Store::Embedded { .. }) => {
            vec![("store.kind", true)]
        }
    }
}

/// Who logs in there is not compared.
fn leads_elsewhere(old: &Source, new: &Source) -> bool {
    let read = |source: &Source| Address::parse(source.content().expose_secret());
    match (read(old), read(new)) {
        (Ok(old), Ok(new)) => !old.leads_where(&new),
        (Err(_), _) | (_, Err(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SEAL: &str = "[seal]\nkeys = [{ id = \"a\", env = \"KEY\" }]\n";

    const ALLOW: &str = "[[allow]]\ncaller = \"uid:0\"\ncredentials = [\"*\"]\nactions = [\"get\"]\n";

    fn config(text: &str) -> Config {
        let environment = |name: &str| {
            Some(match name {
                "KEY" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
                other => other.to_owned(),
            })
        };
        crate::config::parse("test.toml", text, &environment, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn redis(rest: &str) -> String {
        format!("[store]\nkind = \"redis\"\nurl = \"redis://localhost\"\n{rest}\n{SEAL}")
    }

    fn token(name: &str, digit: u8) -> String {
        format!("{ALLOW}[[identity.token]]\nname = \"{name}\"\nsha256 = \"{}\"", digit.to_string().repeat(64))
    }

    fn kubernetes(audience: &str) -> String {
        let asked = "jwks_url = \"https://a\"";
        format!("{ALLOW}[identity.kubernetes]\nissuer = \"https://a\"\naudience = \"{audience}\"\n{asked}")
    }

    #[test]
    fn rows_cannot_go_as_long_as_what_was_started_needs_them() {
        for (started, name) in [
            ("".to_owned(), None),
            (ALLOW.to_owned(), None),
            // Tokens that are taken away with the rows are away at once.
            (token("ci", 1), None),
            (kubernetes("a"), Some("identity.kubernetes")),
            (format!("[server]\nunix_socket = \"/s\"\n{ALLOW}"), Some("server.unix_socket")),
            (format!("[server]\nlisten = \"0.0.0.0:1\"\nplaintext = true\n{ALLOW}"), Some("server.listen")),
        ] {
            let started = config(&started);
            assert_eq!(started.still_needs_rows(&config("")).as_deref(), name);
            assert_eq!(started.still_needs_rows(&config(ALLOW)), None);
        }
    }

    #[test]
    fn what_cannot_change_is_told_by_name() {
        for (old, new, names) in [
            ("", "", &[][..]),
            ("", "[credentials.a]\ngrant = \"static\"\nscheme = \"bearer\"", &[]),
            ("", SEAL, &[]),
            ("", "[server]\nlisten = \"127.0.0.1:1\"\nreflection = false", &["server.listen", "server.reflection"]),
            ("", "[server]\nadmin_listen = \"127.0.0.1:1\"", &["server.admin_listen"]),
            (
                "",
                &format!("[server]\nunix_socket = \"/s\"\nlisten = \"127.0.0.1:7443\"\n{ALLOW}"),
                &["server.unix_socket"],
            ),
            ("", "[server]\nmax_connections = 7", &["server.max_connections", "server.max_connections_per_address"]),
            ("", "[server]\nmax_connections_per_address = 7", &["server.max_connections_per_address"]),
            ("", "[audit]\noutput = \"stdout\"\n[limits]\nburst = 7", &["limits", "audit"]),
            ("", &token("ci", 1), &[]),
            (&token("ci", 1), &token("ci", 2), &[]),
            ("", &kubernetes("a"), &["identity.kubernetes"]),
            (&kubernetes("a"), &kubernetes("b"), &["identity.kubernetes"]),
            (&kubernetes("a"), &kubernetes("a"), &[]),
            ("", "[store]\npath = \"other\"", &["store.path"]),
            ("", &redis(""), &["store.kind"]),
            ("", "[cache]\nmax_age = \"1s\"\n[log]\nfilter = \"warn\"", &["cache", "log"]),
            ("", "[refresh]\nhttp_timeout = \"9s\"", &["refresh"]),
            (&redis("password = { env = \"A\" }"), &redis("password = { env = \"A\" }"), &[]),
            (&redis("password = { env = \"A\" }"), &redis("password = { env = \"B\" }"), &[]),
            (&redis(""), &redis("wait_replicas = 1\nwait_fsync = true"), &["store.wait_replicas", "store.wait_fsync"]),
            (&redis(""), &redis("spool = \"/tmp/spool\"\nprefix = \"p\""), &["store.prefix", "store.spool"]),
        ] {
            assert_eq!(config(old).needs_restart(&config(new)), names, "{old:?} to {new:?}");
        }
    }
}
