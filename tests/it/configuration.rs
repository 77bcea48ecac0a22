//! The configuration as an operator meets it: the sample, the deployment's, and mistakes.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::identity::authority::Authority;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs `bearerd check` on a text; exit code and what it prints on stdout and stderr.
fn check(text: &str) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    // No other user gets to the secrets in it.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = directory.path().join("bearerd.toml");
    fs::write(&path, text).unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    fs::write(directory.path().join("key"), key).unwrap();
    fs::write(directory.path().join("secret"), "a-secret").unwrap();
    fs::write(directory.path().join("redis-url"), "rediss://redis.example").unwrap();
    let server = Authority::new("cluster").server();
    fs::write(directory.path().join("tls.crt"), server.certificate).unwrap();
    fs::write(directory.path().join("tls.key"), server.key).unwrap();
    fs::write(directory.path().join("ca"), Authority::new("cluster").pem()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "--config"]).arg(&path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn six_mistakes_are_told_at_once_each_with_its_line() {
    let (code, out, err) = check(
        r#"[server]
listen = "127.0.0.1"

[store]
kind = "postgres"

[credentials.crm]
grant = "client_credential"

[credentials.erp]
grant = "client_credentials"
token_url = "http://login.example.com/token"
client_id = "bearerd"
client_secret = "hunter2-hunter2"
scopess = ["api"]
"#,
    );
    assert_eq!(code, Some(78), "{err}");
    assert_eq!(out, "");
    assert_eq!(err.matches("error:").count(), 6, "{err}");
    for line in [2, 5, 8, 12, 14, 15] {
        assert!(err.contains(&format!("bearerd.toml:{line}:")), "line {line} in {err}");
    }
    assert!(!err.contains("hunter2"), "a secret is never repeated: {err}");
}

#[test]
fn a_good_configuration_is_told_so() {
    let (code, out, err) =
        check("[credentials.api]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = { file = \"secret\" }\n");
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "api: static\nthe configuration is good: 1 credential, 0 policy rows\n");
    assert!(err.contains("warning: there is no [[allow]]"), "{err}");
}

#[test]
fn the_deployments_configurations_are_good() {
    let tree = Path::new(ROOT).join("deploy/kubernetes");
    for file in ["base/bearerd.toml", "overlays/example/bearerd.toml"] {
        let text = fs::read_to_string(tree.join(file)).unwrap();
        let local = text
            .replace("/run/secrets/bearerd/redis-url", "redis-url")
            .replace("/run/secrets/bearerd/seal-key", "key")
            .replace("/run/secrets/bearerd/example-client-secret", "secret")
            .replace("/run/secrets/bearerd/tls", "tls")
            .replace("/run/secrets/kubernetes/ca.crt", "ca")
            .replace("/run/secrets/kubernetes/token", "secret");
        let (code, _, err) = check(&local);
        assert_eq!(code, Some(0), "{file}: {err}");
        assert!(!err.contains("warning"), "{file}: {err}");
    }
}

#[test]
fn a_missing_configuration_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(["serve", "--config", "no-such.toml"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such.toml"));
}

/// Newcomer, "port in use (rc 1, a key and database were created first)".
#[test]
fn a_port_in_use_has_its_own_exit_code_and_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for setting in ["listen", "admin_listen"] {
        let directory = tempfile::tempdir().unwrap();
        let other = if setting == "listen" { "admin_listen" } else { "listen" };
        let text = format!("[server]\n{setting} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n");
        fs::write(directory.path().join("bearerd.toml"), text).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_bearerd")).arg("serve").current_dir(directory.path()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(71), "{err}");
        assert!(err.contains(&format!("cannot listen on server.{setting} = \"{address}\"")), "{err}");
        assert!(err.contains("end the process that listens there"), "{err}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only the configuration is there");
    }
}

/// Newcomer: "`check` cannot run in CI without all secrets, and checks neither store nor seal key".
#[test]
fn a_configuration_is_checked_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bearerd.toml");
    let check = |text: &str, flags: &[&str]| {
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        let output = command.args(["check", "--config"]).arg(&path).args(flags).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let good = "[store]\nkind = \"redis\"\nurl = { env = \"NOT_SET_URL\" }\n\
        [seal]\nkeys = [{ id = \"a\", file = \"/no/such/key\" }]\n\
        [credentials.api]\ngrant = \"client_credentials\"\ntoken_url = \"https://a.example/token\"\n\
        client_id = \"me\"\nclient_auth = \"private_key_jwt\"\nclient_key = { file = \"/no/such/key\" }\n\
        [[allow]]\ncaller = \"local\"\ncredentials = [\"api\"]\nactions = [\"get\"]\n";
    assert_eq!(check(good, &[]).0, Some(78), "the secrets are needed otherwise");
    let (code, out, err) = check(good, &["--without-secrets"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "api: client_credentials\nthe configuration is good: 1 credential, 1 policy row\n");
    assert_eq!(err, "not checked: the secrets, the store, and the providers\n");

    let bad =
        good.replace("https://a.example/token", "https://{tenant}/token").replace("client_key =", "client_secert =");
    let (code, out, err) = check(&bad, &["--without-secrets"]);
    assert_eq!((code, out.as_str()), (Some(78), ""), "{err}");
    assert_eq!(err.matches("error:").count(), 3, "{err}");
    for mistake in ["has a place that is not filled in", "did you mean `client_secret`?", "client_key` is missing"] {
        assert!(err.contains(mistake), "{mistake}: {err}");
    }
}

/// N11: what failed is not called good.
#[test]
fn a_configuration_is_not_called_good_under_a_failed_probe() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bearerd.toml");
    // Nothing listens behind a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::write(directory.path().join("secret"), "s").unwrap();
    let text = format!(
        "[credentials.api]\ngrant = \"client_credentials\"\ntoken_url = \"http://127.0.0.1:{port}/token\"\n\
         client_id = \"me\"\nclient_secret = {{ file = \"secret\" }}\n"
    );
    fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    let output = command.args(["check", "--probe", "--config"]).arg(&path).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(!out.contains("good"), "{out}");
    assert!(out.ends_with("the configuration can be read, but 1 of 1 credential got no token\n"), "{out}");
}

/// "errors stay text with --json".
#[test]
fn with_json_an_error_is_json() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err.lines().count(), 1, "{err}");
        let error: serde_json::Value = serde_json::from_str(&err).unwrap();
        assert_eq!(error["error"]["exit_code"], output.status.code().unwrap());
        error["error"].clone()
    };
    let unreachable = run(&["get", "api", "--json", "--address", "unix:/no/such/socket"]);
    assert_eq!(unreachable["exit_code"], 69);
    assert!(unreachable["hints"][0].as_str().unwrap().contains("is `bearerd serve` running"), "{unreachable}");
    assert_eq!(run(&["get", "--json"])["exit_code"], 64);
    let missing = run(&["check", "--json", "--config", "/no/such/file"]);
    assert_eq!(missing["exit_code"], 78);
    assert!(missing["message"].as_str().unwrap().contains("/no/such/file"), "{missing}");
}

/// S15: only rows and credentials of the example are others than those of the base.
#[test]
fn the_example_differs_from_the_base_only_as_it_says() {
    let tree = Path::new(ROOT).join("deploy/kubernetes");
    let [base, example] = ["base/bearerd.toml", "overlays/example/bearerd.toml"].map(|file| {
        let mut settings: toml::Table = fs::read_to_string(tree.join(file)).unwrap().parse().unwrap();
        for table in ["allow", "credentials"] {
            settings.remove(table).unwrap();
        }
        settings
    });
    assert_eq!(base, example);
}
