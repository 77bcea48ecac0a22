//! The configuration as an operator meets it: the sample, the deployment's, and mistakes.

use std::{fs, path::Path, process::Command};

use crate::identity::authority::Authority;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs `bearerd check` on a text; exit code and what it prints on stdout and stderr.
fn check(text: &str) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bearerd.toml");
    fs::write(&path, text).unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    fs::write(directory.path().join("key"), key).unwrap();
    fs::write(directory.path().join("secret"), "a-secret").unwrap();
    fs::write(directory.path().join("redis-url"), "rediss://redis.example").unwrap();
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
    assert_eq!(out, "api: static\nthe configuration is good: 1 credentials, 0 policy rows\n");
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
