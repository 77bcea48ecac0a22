//! What of a changed configuration a running process cannot take over.

use super::{Config, Server, ServerTls, Store};
use crate::secret::{ExposeSecret, SecretString};

/// A setting, and whether it differs.
type Row = (&'static str, bool);

impl Config {
    /// The settings in which `new` differs and that are in force only after a restart, by name. Credentials, policy and
    /// seal keys are not among them: those change while the process runs.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let mut rows = server(&self.server, &new.server);
        rows.extend(store(&self.store, &new.store));
        rows.extend([
            ("refresh", self.refresh != new.refresh),
            ("cache", self.cache != new.cache),
            ("log", self.log != new.log),
        ]);
        rows.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Destructured without `..`: a new setting cannot be forgotten here.
fn server(old: &Server, new: &Server) -> Vec<Row> {
    let Server { listen, admin_listen, tls, plaintext, reflection, shutdown_timeout, max_message_bytes } = old;
    vec![
        ("server.listen", *listen != new.listen),
        ("server.admin_listen", *admin_listen != new.admin_listen),
        ("server.tls", !same_tls(tls.as_ref(), new.tls.as_ref())),
        ("server.plaintext", *plaintext != new.plaintext),
        ("server.reflection", *reflection != new.reflection),
        ("server.shutdown_timeout", *shutdown_timeout != new.shutdown_timeout),
        ("server.max_message_bytes", *max_message_bytes != new.max_message_bytes),
    ]
}

fn same_tls(old: Option<&ServerTls>, new: Option<&ServerTls>) -> bool {
    match (old, new) {
        (Some(ServerTls { certificate, key }), Some(new)) => {
            *certificate == new.certificate && same(Some(key), Some(&new.key))
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn store(old: &Store, new: &Store) -> Vec<Row> {
    match (old, new) {
        (Store::Embedded { path }, Store::Embedded { path: other }) => vec![("store.path", path != other)],
        (
            Store::Redis { url, prefix, username, password, spool, ca },
            Store::Redis {
                url: new_url,
                prefix: new_prefix,
                username: new_username,
                password: new_password,
                spool: new_spool,
                ca: new_ca,
            },
        ) => vec![
            ("store.url", !same(Some(url), Some(new_url))),
            ("store.prefix", prefix != new_prefix),
            ("store.username", username != new_username),
            ("store.password", !same(password.as_ref(), new_password.as_ref())),
            ("store.spool", spool != new_spool),
            ("store.ca", ca != new_ca),
        ],
        (Store::Embedded { .. }, Store::Redis { .. }) | (Store::Redis { .. }, Store::Embedded { .. }) => {
            vec![("store.kind", true)]
        }
    }
}

fn same(old: Option<&SecretString>, new: Option<&SecretString>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => crate::secret::same(old.expose_secret(), new.expose_secret()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SEAL: &str = "[seal]\nkeys = [{ id = \"a\", env = \"KEY\" }]\n";

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
        format!("[store]\nkind = \"redis\"\nurl = \"redis://a\"\n{rest}\n{SEAL}")
    }

    #[test]
    fn what_cannot_change_is_told_by_name() {
        for (old, new, names) in [
            ("", "", &[][..]),
            ("", "[credentials.a]\ngrant = \"static\"\nscheme = \"bearer\"", &[]),
            ("", SEAL, &[]),
            ("", "[server]\nlisten = \"127.0.0.1:1\"\nreflection = false", &["server.listen", "server.reflection"]),
            ("", "[server]\nadmin_listen = \"127.0.0.1:1\"", &["server.admin_listen"]),
            ("", "[store]\npath = \"other\"", &["store.path"]),
            ("", &redis(""), &["store.kind"]),
            ("", "[cache]\nmax_age = \"1s\"\n[log]\nfilter = \"warn\"", &["cache", "log"]),
            ("", "[refresh]\nhttp_timeout = \"9s\"", &["refresh"]),
            (&redis("password = { env = \"A\" }"), &redis("password = { env = \"A\" }"), &[]),
            (&redis("password = { env = \"A\" }"), &redis("password = { env = \"B\" }"), &["store.password"]),
            (&redis(""), &redis("spool = \"/tmp/spool\"\nprefix = \"p\""), &["store.prefix", "store.spool"]),
        ] {
            assert_eq!(config(old).needs_restart(&config(new)), names, "{old:?} to {new:?}");
        }
    }
}
