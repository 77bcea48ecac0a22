//! Who used what is written down: one line for each rpc, whatever came of it.

use std::{fs, path::Path, time::Duration};

use bearerd::proto::{
    CallThroughRequest, DescribeGrantRequest, GetTokenRequest, ImportGrantRequest, import_grant_request::Secret,
    token_service_client::TokenServiceClient,
};
use serde_json::{Value, json};
use tonic::Request;

use crate::support::{
    Bearerd, PATIENCE, eventually,
    house::{House, ROTATING, reason},
};

/// Everything a record has; `docs/security.md` lists the same.
const FIELDS: [&str; 23] = [
    "schema",
    "event",
    "time",
    "trace_id",
    "rpc",
    "caller",
    "caller_kind",
    "peer",
    "action",
    "credential",
    "subject",
    "scopes",
    "resources",
    "decision",
    "row",
    "row_name",
    "limits",
    "result",
    "generation",
    "method",
    "path",
    "status",
    "attempts",
];

const ROWS: &str = r#"
[[allow]]
name = "most"
caller = "local"
credentials = ["demo", "silent"]
actions = ["get", "invalidate", "administer"]

[[allow]]
caller = "local"
credentials = ["demo"]
actions = ["call"]
paths = ["/hello", "/admin"]

[credentials.silent]
grant = "client_credentials"
token_url = "http://@SILENT@/token"
client_id = "x"
client_secret = { env = "CLIENT_SECRET" }
"#;

/// A house that writes its audit log into a file of this directory.
async fn house(directory: &Path, silent: &str) -> House {
    let audit = format!("[audit]\noutput = \"{}\"", directory.join("audit").display());
    House::with(&format!("{audit}\n{}\n{ROTATING}", ROWS.replace("@SILENT@", silent))).await
}

/// The records of rpcs.
fn records(directory: &Path) -> Vec<Value> {
    all(directory).into_iter().filter(|record| record["event"] == "use").collect()
}

fn all(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("audit")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn calling(path: &str) -> CallThroughRequest {
    CallThroughRequest {
        credential: "demo".to_owned(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        ..CallThroughRequest::default()
    }
}

/// What of a record tells one outcome from another.
fn outcome(record: &Value) -> Value {
    let fields = ["rpc", "action", "credential", "decision", "row", "row_name", "result", "method", "path", "status"];
    fields.iter().map(|field| record[field].clone()).collect()
}

#[tokio::test]
async fn every_outcome_is_one_record() {
    // Takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let house = house(directory.path(), &silent.local_addr().unwrap().to_string()).await;

    let token = house.get("demo").await.unwrap();
    let (_, newer) = house.report("demo", token.generation).await.unwrap();
    house.call("demo", "/hello?secret=canary-query").await.unwrap();
    house.call("demo", "/admin").await.unwrap();
    house.call("demo", "/echo").await.unwrap_err();
    house.get("other").await.unwrap_err();
    house.get("No Name").await.unwrap_err();
    house
        .ask(GetTokenRequest { min_remaining: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..asking("demo") })
        .await
        .unwrap_err();
    let import = |secret: &str| ImportGrantRequest {
        credential: "demo".to_owned(),
        subject: "jane@example.org".to_owned(),
        secret: Some(Secret::RefreshToken(secret.to_owned())),
        no_verify: true,
        ..ImportGrantRequest::default()
    };
    let imported = house.grants.clone().import_grant(import("canary-refresh")).await.unwrap().into_inner();
    let describe = DescribeGrantRequest { credential: "demo".to_owned(), ..DescribeGrantRequest::default() };
    house.grants.clone().describe_grant(describe).await.unwrap();
    house.ask(GetTokenRequest { subject: "jane@example.org".to_owned(), ..asking("demo") }).await.unwrap_err();
    let mut impatient = Request::new(asking("silent"));
    impatient.set_timeout(Duration::from_millis(100));
    house.tokens.clone().get_token(impatient).await.unwrap_err();

    eventually(PATIENCE, async || records(directory.path()).len() >= 12).await;
    let records = records(directory.path());
    let most = |rpc: &str, action: &str, result: &str| {
        json!([rpc, action, "demo", "allowed", 1, "most", result, null, null, null])
    };
    let call =
        |path: &str, status: u16| json!(["CallThrough", "call", "demo", "allowed", 2, null, "OK", "GET", path, status]);
    let expected = [
        most("GetToken", "get", "OK"),
        most("InvalidateToken", "invalidate", "OK"),
        call("/hello", 200),
        call("/admin", 403),
        json!(["CallThrough", "call", "demo", "denied", 2, null, "CALLER_NOT_ALLOWED", "GET", "/echo", null]),
        json!(["GetToken", "get", "other", "denied", null, null, "CALLER_NOT_ALLOWED", null, null, null]),
        json!(["GetToken", null, null, "none", null, null, "INVALID_REQUEST", null, null, null]),
        most("GetToken", "get", "INVALID_REQUEST"),
        most("ImportGrant", "administer", "OK"),
        most("DescribeGrant", "administer", "OK"),
        most("GetToken", "get", "REAUTHORIZATION_REQUIRED"),
        json!(["GetToken", "get", "silent", "allowed", 1, "most", "CANCELLED", null, null, null]),
    ];
    assert_eq!(records.iter().map(outcome).collect::<Vec<_>>(), expected);
    for record in &records {
        let mut fields: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable_by_key(|field| FIELDS.iter().position(|known| known == field));
        assert_eq!(fields, FIELDS);
        assert_eq!((&record["schema"], &record["event"]), (&json!("bearerd.audit.v1"), &json!("use")));
        assert_eq!((&record["caller"], &record["caller_kind"]), (&json!("local"), &json!("local")));
        assert!(record["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{record}");
    }
    assert_eq!((&records[0]["limits"], &records[4]["limits"]), (&json!([]), &json!(["paths"])));
    assert_eq!(records[0]["scopes"], json!(["read"]), "what was asked for, not what was named");
    assert_eq!(records[1]["generation"], json!(newer.unwrap().generation));
    assert_eq!(records[8]["generation"], json!(imported.generation));
    let (stored, asked) = (&records[8]["subject"], &records[10]["subject"]);
    assert!(stored == asked && stored.as_str().is_some_and(|hash| hash.len() == 22), "{stored} {asked}");
    assert_eq!(records[0]["subject"], Value::Null, "the service itself");
    let text = fs::read_to_string(directory.path().join("audit")).unwrap();
    for secret in ["jane", "canary", &token.access_token] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_shutdown_cuts_off_has_its_record() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = "[server]\nlisten = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\nshutdown_timeout = \"200ms\"\n\
                  [store]\npath = \"@DIR@/bearerd.redb\"\n[audit]\noutput = \"@DIR@/audit\"\n\
                  [credentials.silent]\ngrant = \"client_credentials\"\ntoken_url = \"http://@SILENT@/token\"\n\
                  client_id = \"x\"\nclient_secret = { file = \"s\" }\n";
    let config = config.replace("@SILENT@", &silent.local_addr().unwrap().to_string());
    let mut bearerd = Bearerd::start(&config, &[("s", "x")]).await;
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let waiting = tokio::spawn(async move { client.get_token(asking("silent")).await });
    // Once the provider has heard of it, the request is under way.
    let _connection = silent.accept().await.unwrap();
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.process().ended().is_some()).await;
    waiting.await.unwrap().unwrap_err();
    let records = records(bearerd.directory());
    assert_eq!(records.len(), 1, "{}", bearerd.log());
    assert_eq!((&records[0]["result"], &records[0]["credential"]), (&json!("CANCELLED"), &json!("silent")));
}

fn asking(credential: &str) -> GetTokenRequest {
    GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() }
}

#[tokio::test]
async fn a_record_is_found_by_the_trace_that_the_caller_was_told() {
    use tonic_types::StatusExt;
    let directory = tempfile::tempdir().unwrap();
    let house = house(directory.path(), "127.0.0.1:9").await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = Request::new(asking("other"));
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let status = house.tokens.clone().get_token(request).await.unwrap_err();
    let told = status.get_details_error_info().unwrap().metadata["trace_id"].clone();
    eventually(PATIENCE, async || !records(directory.path()).is_empty()).await;
    assert_eq!(records(directory.path())[0]["trace_id"], json!(told));
    assert!(parent.contains(&told));
}

#[tokio::test]
async fn what_a_caller_writes_cannot_make_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let house = house(directory.path(), "127.0.0.1:9").await;
    let forged = "/\n{\"schema\":\"bearerd.audit.v1\",\"event\":\"use\",\"decision\":\"allowed\"}\n";
    house.call_whole(calling(forged)).await.unwrap_err();
    let mut long = calling(&"/x".repeat(100_000));
    long.method = "GET\"},{".to_owned();
    house.call_whole(long).await.unwrap_err();
    eventually(PATIENCE, async || records(directory.path()).len() >= 2).await;
    let records = records(directory.path());
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record["decision"] == "denied"), "{records:?}");
    assert_eq!((records[0]["path"].as_str(), records[1]["path"].as_str().map(str::len)), (Some(forged), Some(1024)));
}

/// S7: 4,799 wrong guesses in 1.3 s were as many answers and records, and 118 MiB of them came in 9 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_without_end_are_few_records_a_count_and_soon_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let house = house(directory.path(), "127.0.0.1:9").await;
    let guess = |number: usize| {
        let mut request = Request::new(asking("demo"));
        let text = format!("Bearer {}{number}", "guess".repeat(100));
        request.metadata_mut().insert("authorization", text.parse().unwrap());
        let tokens = house.tokens.clone();
        async move { reason(&tokens.clone().get_token(request).await.unwrap_err()) }
    };
    let mut words = std::collections::BTreeMap::<String, usize>::new();
    for number in 0..1000 {
        let (_, word, wait) = guess(number).await;
        assert_eq!(wait.is_some(), word == "OVERLOADED");
        *words.entry(word).or_default() += 1;
    }
    let unproven = words["CALLER_UNAUTHENTICATED"];
    assert!((100..500).contains(&unproven) && words["OVERLOADED"] == 1000 - unproven, "{words:?}");
    house.get("demo").await.expect("a caller of the same address who shows no wrong token goes on");

    let refused = |record: &Value| record["event"] == "refused" || record["result"] == "CALLER_UNAUTHENTICATED";
    let told = || -> u64 {
        let lines = all(directory.path()).into_iter().filter(refused);
        lines.map(|record| record["records"].as_u64().unwrap_or(1)).sum()
    };
    eventually(PATIENCE, async || told() >= 1000).await;
    let lines = all(directory.path()).into_iter().filter(refused).count();
    assert!(lines <= 20, "{lines} records of one address in seconds");
}

/// S7.
#[tokio::test]
async fn an_audit_log_that_fails_closed_refuses_requests_until_it_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let (place, aside) = (directory.path().join("log"), directory.path().join("aside"));
    fs::create_dir(&place).unwrap();
    let audit = format!("[audit]\noutput = \"{}\"\non_failure = \"refuse\"", place.join("audit").display());
    let house = House::with(&format!("{audit}\n{ROTATING}")).await;
    house.get("demo").await.unwrap();
    fs::rename(&place, &aside).unwrap();
    eventually(PATIENCE, async || match house.get("demo").await {
        Ok(_) => false,
        Err(status) => {
            let (_, word, wait) = reason(&status);
            assert_eq!((word.as_str(), wait), ("OVERLOADED", Some(Duration::from_secs(1))));
            true
        }
    })
    .await;
    assert_eq!(house.metric("bearerd_audit_up").await, 0.0);
    fs::rename(&aside, &place).unwrap();
    eventually(PATIENCE, async || house.get("demo").await.is_ok()).await;
    assert_eq!(house.metric("bearerd_audit_lost_total").await, 0.0);
}

/// LOW 22.
#[tokio::test]
async fn the_configuration_in_force_is_recorded() {
    use bearerd::identity::{hex, sha256};
    let config = "[server]\nlisten = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n[store]\npath = \"@DIR@/bearerd.redb\"\n\
                  [audit]\noutput = \"@DIR@/audit\"\n[[allow]]\ncaller = \"local\"\ncredentials = [\"*\"]\n\
                  actions = [\"get\"]\n";
    let bearerd = Bearerd::start(config, &[]).await;
    let digest = || hex(&sha256(&fs::read_to_string(bearerd.directory().join("bearerd.toml")).unwrap()));
    let mut expected = vec![("started", Some(digest()))];
    for (text, result) in [(config.replace("get", "call"), "reloaded"), (config.replace("get", "nothing"), "refused")] {
        bearerd.write_config(&text);
        expected.push((result, (result == "reloaded").then(&digest)));
        eventually(PATIENCE, async || configurations(bearerd.directory()).len() == expected.len()).await;
    }
    let told = configurations(bearerd.directory());
    let told: Vec<_> = told.iter().map(|(result, digest)| (result.as_str(), digest.clone())).collect();
    assert_eq!(told, expected);
}

fn configurations(directory: &Path) -> Vec<(String, Option<String>)> {
    let records = all(directory).into_iter().filter(|record| record["event"] == "configuration");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    records.map(|record| (text(&record["result"]).unwrap(), text(&record["sha256"]))).collect()
}
