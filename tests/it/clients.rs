//! Callers in other languages, with clients generated from `proto/`: Python and Node.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use serde_json::Value;

use crate::support::house::{House, ROTATING};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a client and reads the one line of JSON that it prints.
async fn run(language: &str, house: &House, words: &[&str]) -> Value {
    run_at(language, &house.address(), words).await
}

async fn run_at(language: &str, address: &str, words: &[&str]) -> Value {
    let (program, script) = match language {
        "python" => (".tools/python/bin/python", "tests/clients/python/client.py"),
        _ => ("node", "tests/clients/node/client.mjs"),
    };
    let mut command = Command::new(if language == "python" { format!("{ROOT}/{program}") } else { program.to_owned() });
    command.current_dir(ROOT).arg(script).arg(address).args(words);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start, run scripts/setup once: {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

async fn every_rpc_works_from(language: &str) {
    let house = House::with(ROTATING).await;
    let got = run(language, &house, &["get", "demo"]).await;
    let generation = got["generation"].to_string().replace('"', "");
    let token = got["access_token"].as_str().unwrap();
    assert_eq!(got["token_type"], "Bearer");
    assert!(got["headers"].to_string().contains(&format!("Bearer {token}")), "{language}");

    let reported = run(language, &house, &["invalidate", "demo", &generation]).await;
    assert_eq!(reported["outcome"], "REFRESHED", "{language}");
    assert_ne!(reported["access_token"], got["access_token"]);
    let late = run(language, &house, &["invalidate", "demo", &generation]).await;
    assert_eq!(late["outcome"], "ALREADY_REPLACED", "{language}");

    house.sandbox.revoke_access_tokens();
    let called = run(language, &house, &["call", "demo", "GET", "/hello"]).await;
    assert_eq!((&called["status"], &called["attempts"], &called["refreshed"]), (&200.into(), &2.into(), &true.into()));
    assert!(called["body"].as_str().unwrap().contains("demo"));
    assert_eq!(house.asked(), 3);

    let refused = run(language, &house, &["get", "nobody"]).await;
    assert_eq!((&refused["code"], &refused["reason"]), (&"NOT_FOUND".into(), &"CREDENTIAL_NOT_FOUND".into()));
    assert_eq!(refused["domain"], "bearerd");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_works_from_python() {
    every_rpc_works_from("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_works_from_node() {
    every_rpc_works_from("node").await;
}

/// C-K5, row 37: with the option that README and sample name, gRPC's core speaks to the Unix-domain socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_option_lets_python_use_the_unix_socket() {
    let server = "plaintext = true\nunix_socket = \"{directory}/bearerd.sock\"";
    let row = "[[allow]]\ncaller = \"uid:*\"\ncredentials = [\"demo\"]\nactions = [\"get\"]\n";
    let house = House::served(IpAddr::V4(Ipv4Addr::LOCALHOST), server, &[], &[row, ROTATING].concat()).await;
    let socket = format!("unix:{}/bearerd.sock", house.directory().display());
    let got = run_at("python", &socket, &["--authority", "localhost", "get", "demo"]).await;
    assert_eq!(got["token_type"], "Bearer", "{got}");
    for document in ["README.md", "bearerd.sample.toml", "docs/security.md"] {
        let text = std::fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
        assert!(text.contains("grpc.default_authority"), "{document}");
    }
}
