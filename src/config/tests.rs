//! Whole files: what they give, and what reports say about bad ones.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use aws_lc_rs::signature;
use base64::{Engine, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use super::*;
use crate::{
    grant::{ClientAuth, Grant, StaticForm},
    secret::ExposeSecret,
};

mod arbitrary;
mod credentials;
mod mistakes;
mod sample;

fn pem(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}

fn signing_key() -> String {
    let key = signature::EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    pem("PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref())
}

const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB","kid":"a"}]}"#;

/// Where every variable and every file is there that these tests and the sample name.
struct Place {
    directory: TempDir,
    key: String,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), key: signing_key() };
        // No other user gets to the secrets in it.
        fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let secrets = place.directory.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        for (name, content) in [
            ("salesforce", "client-secret-in-file\n"),
            ("salesforce-refresh", "refresh-token-in-file\n"),
            ("seal-2026-11", STANDARD.encode([7; 32]).as_str()),
            ("tls.crt", pem("CERTIFICATE", b"certificate").as_str()),
            ("redis-ca.crt", pem("CERTIFICATE", b"authority").as_str()),
            ("client-ca.crt", pem("CERTIFICATE", b"authority").as_str()),
            ("kubernetes-ca.crt", pem("CERTIFICATE", b"authority").as_str()),
            ("kubernetes-jwks.json", JWKS),
            ("kubernetes-token", "api-token-in-file\n"),
            ("tls.key", place.key.as_str()),
            ("empty", "\n"),
        ] {
            fs::write(secrets.join(name), content).unwrap();
        }
        place
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigErrors> {
        let environment = |name: &str| match name {
            "WAREHOUSE_KEY" | "MAIL_KEY" | "KEY" => Some(self.key.clone()),
            "SEAL_2026_05" => Some(STANDARD.encode([5; 32])),
            "REDIS_URL" => Some("redis://me:hunter2@redis.example".to_owned()),
            "REDIS_PASSWORD" | "SENTINEL_PASSWORD" | "WEATHER_KEY" | "LEGACY_PASSWORD" | "S" => {
                Some("hunter2".to_owned())
            }
            "EMPTY" => Some(String::new()),
            "SPACED" => Some("hunter2 hunter2".to_owned()),
            "BLANK" => Some("hunter2 ".to_owned()),
            "BREAKS" => Some("hunter2\n\n".to_owned()),
            "TAB" => Some("hun\tter2".to_owned()),
            "MARK" => Some("\u{feff}hunter2".to_owned()),
            "QUOTED" => Some("\"hunter2\"".to_owned()),
            "ESCAPED_KEY" => Some(self.key.replace('\n', "\\n")),
            "TWO_LINES" => Some("hunter2\nhunter2".to_owned()),
            _ => None,
        };
        parse("bearerd.toml", text, &environment, self.directory.path())
    }

    fn report(&self, text: &str) -> String {
        self.parse(text).map(|_| String::new()).unwrap_or_else(|errors| errors.render(false))
    }
}

/// A credential that is fine, with more lines.
fn credential(lines: &str) -> String {
    format!(
        "[credentials.a]\ngrant = \"client_credentials\"\ntoken_url = \"https://a.example/token\"\nclient_id = \"me\"\n\
         client_secret = {{ env = \"S\" }}\n{lines}\n"
    )
}

/// A credential of another grant.
fn granted(grant: &str, lines: &str) -> String {
    format!("[credentials.a]\ngrant = \"{grant}\"\n{lines}\n")
}

const JWT: &str = "token_url = \"https://a.example/token\"\nassertion_key = { env = \"KEY\" }\n\
                   assertion_algorithm = \"ES256\"\n";

#[test]
fn an_empty_file_is_the_defaults() {
    let config = Place::new().parse("").unwrap();
    assert_eq!(config.server.listen.unwrap().to_string(), "127.0.0.1:7443");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:7480");
    assert!(config.server.reflection && config.server.tls.is_none() && !config.server.plaintext);
    assert!(matches!(&config.store, Store::Embedded { path } if path == Path::new("bearerd.redb")));
    assert!(config.server.unix_socket.is_none() && config.identity.config.tokens.is_empty());
    assert_eq!((config.server.max_connections, config.server.max_concurrent_streams), (10_000, 1024));
    assert_eq!(config.server.max_connections_per_address, 2500);
    assert_eq!(config.server.max_connection_age, Duration::from_secs(30 * 60));
    assert!(config.seal.keys.is_empty() && config.allow.is_empty() && config.credentials.is_empty());
    assert_eq!(config.refresh.max_wait, Duration::from_secs(25));
    assert_eq!((config.cache.max_tokens, config.cache.max_age), (100_000, Duration::from_secs(5)));
    assert_eq!((config.log.filter.as_str(), config.log.format), ("info", LogFormat::Text));
    let warnings: Vec<&str> = config.warnings.iter().map(Warning::title).collect();
    assert_eq!(warnings, ["there is no [[allow]]: every caller on this host may do everything"]);
}

#[test]
fn a_credential_has_defaults() {
    let config = Place::new().parse(&credential("base_url = \"https://a.example/v1\"")).unwrap();
    let credential = config.credentials.values().next().unwrap();
    assert_eq!(credential.name.as_str(), "a");
    assert_eq!(credential.base_url.as_ref().unwrap().as_str(), "https://a.example/v1/");
    assert_eq!(credential.refresh_ahead, Duration::from_secs(300));
    assert_eq!(credential.call_timeout, Duration::from_secs(30));
    assert_eq!(credential.max_response_bytes, 3 * 1024 * 1024);
    assert!(!credential.keep_alive && credential.lifetimes.default.is_none() && credential.scopes.is_empty());
    let Grant::ClientCredentials(endpoint) = &credential.grant else { panic!("{:?}", credential.grant) };
    let ClientAuth::SecretBasic(secrets) = &endpoint.client.auth else { panic!("{:?}", endpoint.client) };
    let secret = secrets.get(0);
    assert_eq!(secret.expose_secret(), "hunter2");
}

#[test]
fn a_client_secret_and_the_next_one_keep_their_order() {
    let two = "client_secret = [{ env = \"S\" }, { file = \"secrets/salesforce\" }]";
    let oauth = "token_url = \"https://a.example/token\"\nclient_id = \"me\"\n";
    let config = Place::new().parse(&granted("client_credentials", &format!("{oauth}{two}"))).unwrap();
    let Grant::ClientCredentials(endpoint) = &config.credentials.values().next().unwrap().grant else { panic!() };
    let ClientAuth::SecretBasic(secrets) = &endpoint.client.auth else { panic!("{:?}", endpoint.client) };
    assert_eq!([0, 1].map(|at| secrets.get(at).expose_secret()), ["hunter2", "client-secret-in-file"]);
    assert_eq!((endpoint.client.auth.proofs(), config.files.len()), (2, 1));
}

#[test]
fn assertions_have_defaults() {
    let place = Place::new();
    let bearer = |lines: &str| {
        let config = place.parse(&granted("jwt_bearer", &format!("{JWT}{lines}"))).unwrap();
        let Grant::JwtBearer { endpoint, assertion } = config.credentials.into_values().next().unwrap().grant else {
            panic!("another grant")
        };
        assert!(matches!(endpoint.client.auth, ClientAuth::None));
        (endpoint.client.id, assertion)
    };
    let (id, assertion) = bearer("client_id = \"me\"");
    assert_eq!((id.as_str(), assertion.issuer.as_str(), assertion.subject.as_ref()), ("me", "me", None));
    assert_eq!((assertion.audience.as_str(), assertion.lifetime.as_secs()), ("https://a.example/token", 180));
    let (id, assertion) = bearer("assertion_issuer = \"robot\"");
    assert_eq!((id.as_str(), assertion.issuer.as_str()), ("", "robot"));
    for (issuer, audience) in [("issuer = \"https://a.example\"", "https://a.example"), ("", "https://a.example/token")]
    {
        let key = "client_auth = \"private_key_jwt\"\nclient_key_algorithm = \"ES256\"\nclient_key = { env = \"KEY\" }";
        let text = credential(&format!("{key}\n{issuer}")).replace("client_secret = { env = \"S\" }\n", "");
        let config = place.parse(&text).unwrap();
        let grant = &config.credentials.values().next().unwrap().grant;
        let ClientAuth::PrivateKeyJwt(assertion) = &grant.endpoint().unwrap().client.auth else { panic!("{grant:?}") };
        assert_eq!(assertion.audience, audience);
    }
}

#[test]
fn static_secrets_have_three_forms() {
    for (lines, form) in [
        ("scheme = \"bearer\"", StaticForm::Bearer),
        ("scheme = \"basic\"\nusername = \"me\"", StaticForm::Basic { username: "me".into() }),
        (
            "scheme = \"api_key\"\nheader = \"X-Api-Key\"",
            StaticForm::ApiKey { header: http::HeaderName::from_static("x-api-key") },
        ),
    ] {
        for (secret, there) in [("", false), ("\nsecret = { env = \"S\" }", true)] {
            let config = Place::new().parse(&granted("static", &format!("{lines}{secret}"))).unwrap();
            let Grant::Static { form: read, first } = &config.credentials.values().next().unwrap().grant else {
                panic!("another grant")
            };
            assert_eq!((read, first.is_some()), (&form, there));
        }
    }
}

#[test]
fn redis_urls_are_written_or_referred_to() {
    let seal = "[seal]\nkeys = [{ id = \"a\", env = \"SEAL_2026_05\" }]";
    for (lines, url, password) in [
        ("url = \"rediss://redis.example:6380/1\"", "rediss://redis.example:6380/1", None),
        ("url = { env = \"REDIS_URL\" }", "redis://me:hunter2@redis.example", None),
        ("url = \"redis://r\"\nusername = \"me\"\npassword = { env = \"S\" }", "redis://r", Some("hunter2")),
        ("url = \"rediss://r\"\nca = { file = \"secrets/tls.crt\" }", "rediss://r", None),
        (
            "url = \"rediss+sentinel://a,b/m/1\"\nca = { file = \"secrets/tls.crt\" }\nusername = \"me\"\n\
             password = { env = \"S\" }\nsentinel_username = \"you\"\nsentinel_password = { env = \"S\" }",
            "rediss+sentinel://a,b/m/1",
            Some("hunter2"),
        ),
        ("url = \"redis+cluster://a,b:7000,c\"\nallow_insecure = true", "redis+cluster://a,b:7000,c", None),
        ("url = \"redis://localhost\"", "redis://localhost", None),
    ] {
        let config = Place::new().parse(&format!("[store]\nkind = \"redis\"\n{lines}\n{seal}")).unwrap();
        let Store::Redis { url: read, password: secret, prefix, ca, .. } = &config.store else { panic!("{lines}") };
        assert_eq!((read.content().expose_secret(), prefix.as_str()), (url, "bearerd"));
        assert_eq!(ca.as_ref().is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")), lines.contains("ca ="));
        assert_eq!(secret.as_ref().map(|secret| secret.content().expose_secret()), password);
        assert!(!format!("{config:?}").contains("hunter2"));
        // LOW 19.
        let unencrypted = url.starts_with("redis://") && !url.contains("localhost");
        let told = config.warnings.iter().any(|warning| warning.title().contains("without TLS"));
        assert_eq!(told, unencrypted, "{lines}");
    }
}

#[test]
fn a_socket_alone_opens_no_port() {
    let row = "[[allow]]\ncaller = \"uid:*\"\ncredentials = []\nactions = [\"get\"]";
    let row = row.replace("[]", "[\"*\"]");
    for (lines, listens) in [("", false), ("listen = \"127.0.0.1:1\"\n", true)] {
        let text = format!("[server]\nunix_socket = \"bearerd.sock\"\n{lines}{row}");
        let server = Place::new().parse(&text).unwrap().server;
        assert_eq!(server.listen.is_some(), listens);
        assert_eq!(server.unix_socket.as_deref(), Some(Path::new("bearerd.sock")));
    }
}

#[test]
fn a_source_is_what_stands_in_the_file_now() {
    let place = Place::new();
    let row = "[[allow]]\ncaller = \"token:a\"\ncredentials = [\"*\"]\nactions = [\"get\"]\n";
    let lines = "issuer = \"i\"\naudience = \"b\"\njwks = { file = \"secrets/kubernetes-jwks.json\" }";
    let config = place.parse(&format!("{row}[identity.kubernetes]\n{lines}")).unwrap();
    let source = config.identity.jwks.unwrap();
    assert_eq!(source.read().unwrap().expose_secret(), JWKS);
    let file = place.directory.path().join("secrets/kubernetes-jwks.json");
    fs::write(&file, "other\n").unwrap();
    assert_eq!((source.read().unwrap().expose_secret(), source.content().expose_secret()), ("other", JWKS));
    fs::remove_file(&file).unwrap();
    assert!(source.read().unwrap_err().contains("kubernetes-jwks.json: there is no such file"));
}

/// LOW 18: a secret with the mode 0666 was accepted. Kubernetes mounts secrets behind links, for a group.
#[test]
fn a_file_that_every_user_can_write_is_refused_and_a_secret_that_all_can_read_is_a_warning() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let secrets = place.directory.path().join("secrets");
    fs::write(secrets.join("real"), "hunter2").unwrap();
    symlink("real", secrets.join("mounted")).unwrap();
    let text = "[credentials.api]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = { file = \"secrets/mounted\" }\n\
                [[allow]]\ncaller = \"local\"\ncredentials = [\"api\"]\nactions = [\"get\"]\n";
    let reached = |mode| fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    for (mode, refused, warned) in [
        (0o440, false, false),
        (0o640, false, false),
        (0o400, false, false),
        (0o644, false, true),
        (0o666, true, false),
        (0o602, true, false),
    ] {
        fs::set_permissions(secrets.join("real"), fs::Permissions::from_mode(mode)).unwrap();
        reached(0o755);
        match place.parse(text) {
            Ok(config) => {
                let told = config.warnings.iter().any(|warning| warning.title().contains("every user of this host"));
                assert_eq!((false, told), (refused, warned), "{mode:o}");
            }
            Err(errors) => {
                assert!(
                    refused && errors.render(false).contains("run chmod o-w on it"),
                    "{mode:o}: {}",
                    errors.render(false)
                );
            }
        }
        reached(0o700);
        assert_eq!(place.parse(text).is_err(), refused, "{mode:o}");
    }
}
