//! The lines of the log: each says which grant it is about and leads to the request, once, and holds no subject.

use std::{fs, process::Command};

use bearerd::proto::{
    CallThroughRequest, GetTokenRequest, ImportGrantRequest, grant_admin_client::GrantAdminClient,
    import_grant_request::Secret, token_service_client::TokenServiceClient,
};
use serde_json::{Map, Value};
use tonic::Request;

use crate::support::{Bearerd, PATIENCE, Provider, eventually};

const CONFIGURATION: &str = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[log]
format = "@FORMAT@"

[store]
kind = "embedded"
path = "@DIR@/bearerd.redb"

[[allow]]
caller = "local"
credentials = ["crm", "down"]
actions = ["get", "call", "administer"]

[credentials.crm]
grant = "refresh_token"
token_url = "@TOKEN_URL@"
client_id = "web"
client_secret = { file = "client-secret" }
base_url = "http://127.0.0.1:1/"
allow_private_addresses = true

[credentials.down]
grant = "client_credentials"
token_url = "http://127.0.0.1:1/token"
client_id = "web"
client_secret = { file = "client-secret" }

[credentials.closed]
grant = "client_credentials"
token_url = "http://127.0.0.1:1/token"
client_id = "web"
client_secret = { file = "client-secret" }
"#;

const SUBJECT: &str = "ada@people.example";

/// A trace id for each request.
const TRACES: [&str; 4] = [
    "11111111111111111111111111111111",
    "22222222222222222222222222222222",
    "33333333333333333333333333333333",
    "44444444444444444444444444444444",
];

fn traced<T>(message: T, trace: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap());
    request
}

/// Imports a grant and has its API called, has a refresh fail, is denied, and has the configuration read again.
async fn events(format: &str) -> String {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let config = CONFIGURATION.replace("@TOKEN_URL@", &provider.token_url()).replace("@FORMAT@", format);
    let mut bearerd = Bearerd::start(&config, &[("client-secret", "web-secret")]).await;
    let mut tokens = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let mut grants = GrantAdminClient::connect(bearerd.grpc()).await.unwrap();
    let subject = SUBJECT.to_owned();
    let secret = Some(Secret::RefreshToken(provider.mint_refresh_token("ada", "offline_access read").await));
    let import = ImportGrantRequest { credential: "crm".to_owned(), subject, secret, ..ImportGrantRequest::default() };
    grants.import_grant(traced(import, TRACES[0])).await.unwrap();
    let call = CallThroughRequest {
        credential: "crm".to_owned(),
        subject: SUBJECT.to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        ..CallThroughRequest::default()
    };
    tokens.call_through(traced(call, TRACES[1])).await.unwrap_err();
    for (credential, trace) in [("down", TRACES[2]), ("closed", TRACES[3])] {
        let get = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() };
        tokens.get_token(traced(get, trace)).await.unwrap_err();
    }
    bearerd.write_config(&format!("{config}\n# changed\n"));
    eventually(PATIENCE, async || bearerd.log().contains("in force")).await;
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.process().ended().is_some()).await;
    bearerd.log()
}

/// The fields of a line of JSON, each of which is there once.
fn json(line: &str) -> Map<String, Value> {
    let Value::Object(fields) = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) else {
        panic!("{line}");
    };
    for name in fields.keys() {
        assert_eq!(line.matches(&format!("\"{name}\":")).count(), 1, "{name} in {line}");
    }
    fields
}

/// The same of a line of text.
fn text(line: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let before = is_name.then(|| fields.insert(name.to_owned(), value.into())).flatten();
        assert!(before.is_none(), "{name} is there twice in {line}");
    }
    fields
}

/// N5, in both forms of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_about_a_request_names_its_grant_its_caller_and_its_trace_once() {
    for (format, read) in [("json", json as fn(&str) -> Map<String, Value>), ("text", text)] {
        let log = events(format).await;
        let lines: Vec<_> = log.lines().map(|line| (line, read(line))).collect();
        assert!(!log.contains("people.example"), "a subject stands in {log}");
        for (trace, action, credential) in [
            (TRACES[0], "administer", "crm"),
            (TRACES[1], "call", "crm"),
            (TRACES[2], "get", "down"),
            (TRACES[3], "get", "closed"),
        ] {
            let of_trace: Vec<_> = lines.iter().filter(|(line, _)| line.contains(trace)).collect();
            assert!(!of_trace.is_empty(), "nothing is told of {trace}: {log}");
            for (line, fields) in of_trace {
                for (name, value) in
                    [("trace_id", trace), ("action", action), ("credential", credential), ("caller", "local")]
                {
                    assert_eq!(fields.get(name).and_then(Value::as_str), Some(value), "{name} in {line}");
                }
                let subject = fields.get("subject").and_then(Value::as_str);
                assert_eq!(subject.is_some_and(|hash| hash.len() > 16), credential == "crm", "{line}");
            }
        }
        let about_grants = lines.iter().filter(|(_, fields)| fields.contains_key("credential"));
        about_grants.for_each(|(line, fields)| assert!(fields.contains_key("trace_id"), "{line}"));
    }
}

/// N5: a refresh that no caller started says so, and has a trace of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_ahead_of_time_names_its_grant_and_a_trace_of_its_own() {
    let provider = Provider::start(&[("ACCESS_TTL", "4"), ("ROTATE", "1")]).await;
    let config = CONFIGURATION
        .replace("@TOKEN_URL@", &provider.token_url())
        .replace("@FORMAT@", "json")
        .replace("base_url =", "refresh_token = { file = \"refresh-token\" }\nkeep_alive = true\nbase_url =");
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let files = [("client-secret", "web-secret"), ("refresh-token", first.as_str())];
    let bearerd = Bearerd::start(&config, &files).await;
    let mut tokens = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let get = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
    tokens.get_token(traced(get, TRACES[0])).await.unwrap();
    eventually(PATIENCE, async || bearerd.log().contains("\"action\":\"ahead\"")).await;
    let log = bearerd.log();
    let fields = json(log.lines().find(|line| line.contains("\"action\":\"ahead\"")).unwrap());
    assert_eq!(fields["credential"], "crm");
    let trace = fields["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace != TRACES[0], "{trace}");
    assert!(!fields.contains_key("caller") && !fields.contains_key("rpc"), "{fields:?}");
}

/// C-K16, row 55.
#[test]
fn with_json_a_start_that_fails_is_told_in_json() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen = \"{}\"", taken.local_addr().unwrap());
    for (lines, code, told) in [
        ("lisen = \"127.0.0.1:1\"".to_owned(), 78, "there is no such setting in `server`"),
        (listen, 71, "cannot listen on server.listen"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = format!("[log]\nformat = \"json\"\n[server]\nadmin_listen = \"127.0.0.1:0\"\n{lines}\n");
        fs::write(directory.path().join("bearerd.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        let output = command.arg("serve").current_dir(directory.path()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{err}");
        let lines: Vec<_> = err.lines().map(json).collect();
        let message = |fields: &Map<String, Value>| fields["message"].as_str().unwrap().contains(told);
        assert_eq!(lines.iter().filter(|fields| message(fields)).count(), 1, "{err}");
    }
}
