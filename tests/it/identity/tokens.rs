//! Tokens that are known by their hashes.

use std::process::Command;

use bearerd::identity::{hex, sha256};
use tonic::transport::Endpoint;

use super::{Client, Door, configuration, is_another, is_unproven};
use crate::support::{Bearerd, PATIENCE, eventually};

const TOKEN: &str = "bearerd_Zm9yIHRlc3RzIG9ubHksIG5vdCBhIHNlY3JldCE";

fn row(name: &str, token: &str) -> String {
    format!("[[identity.token]]\nname = \"{name}\"\nsha256 = \"{}\"\n", hex(&sha256(token)))
}

#[tokio::test]
async fn a_holder_of_a_token_is_called_by_its_name() {
    let rows = format!("---\n{}{}{}", row("ci", TOKEN), row("ci", "the-next-one"), row("ops", "another"));
    let door = Door::open("token:ci", &rows, &[]).await;
    let client = door.plain().await;
    client.get_as(TOKEN).await.unwrap();
    client.get_as("the-next-one").await.unwrap();
    client.get_with(&[("authorization", &format!("bearer {TOKEN}"))]).await.unwrap();
    is_another(client.get_as("another").await, "a token of another name");
    is_another(client.get().await, "no token");
}

#[tokio::test]
async fn no_wrong_token_is_taken_for_less() {
    let door = Door::open("*", &format!("---\n{}", row("ci", TOKEN)), &[]).await;
    let client = door.plain().await;
    client.get().await.unwrap();
    for wrong in [&TOKEN[1..], &TOKEN[..TOKEN.len() - 1], &TOKEN.to_lowercase(), &hex(&sha256(TOKEN)), "x", "a.b.c"] {
        is_unproven(client.get_as(wrong).await, wrong);
    }
    let good = format!("Bearer {TOKEN}");
    for several in [[good.as_str(), good.as_str()], [&good, "Bearer x"], ["Bearer x", &good], [&good, ""]] {
        let headers = several.map(|value| ("authorization", value));
        is_unproven(client.get_with(&headers).await, "several");
    }
    for one in [format!("{good}, {good}"), format!("{good} {TOKEN}"), format!("Basic {TOKEN}"), TOKEN.to_owned()] {
        is_unproven(client.get_with(&[("authorization", &one)]).await, &one);
    }
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_do_not_fill_the_log() {
    let limits = "[limits]\nfailed_proofs_per_second = 1000\n";
    let lines = format!("listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n---\n{limits}{}", row("ci", TOKEN));
    let config = configuration("token:ci", &lines).replace("{ env = \"S\" }", "{ file = \"@DIR@/secret\" }");
    let mut bearerd = Bearerd::start(&config, &[("secret", "hunter2")]).await;
    let client = Client::new(Endpoint::from_shared(bearerd.grpc()).unwrap().connect().await.unwrap());
    for _ in 0..300 {
        is_unproven(client.get_as("wrong").await, "a wrong token");
    }
    let series = "bearerd_requests_total{rpc=\"GetToken\",result=\"CALLER_UNAUTHENTICATED\"}";
    assert_eq!(bearerd.metric(series).await, 300.0);
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.log().contains("stopped") && bearerd.process().ended().is_some()).await;
    let told = bearerd.log().matches("nobody knows this token").count();
    assert!((1..150).contains(&told), "{told} lines, where one a second is enough");
}

#[tokio::test]
async fn case_38_no_log_holds_a_token_that_was_shown() {
    let lines = format!("---\n{}[log]\nfilter = \"trace\"\n", row("ci", TOKEN));
    let config = configuration("token:ci", &format!("listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n{lines}"))
        .replace("{ env = \"S\" }", "{ file = \"@DIR@/secret\" }");
    let mut bearerd = Bearerd::start(&config, &[("secret", "hunter2"), ("good", TOKEN), ("bad", "canary-token")]).await;
    let (address, directory) = (bearerd.grpc(), bearerd.directory().to_owned());
    let get = |token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command.args(["get", "key", "--address", &address, "--token-file"]);
        let output = command.arg(directory.join(token)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = get("good");
    assert_eq!((code, out.as_str()), (Some(0), "hunter2\n"), "{err}");
    let (code, out, err) = get("bad");
    assert_eq!((code, out.as_str()), (Some(77), ""), "{err}");
    assert!(err.contains("CALLER_UNAUTHENTICATED") && !err.contains("canary"), "{err}");
    // All of the log is there when its process has ended.
    bearerd.process().signal("TERM");
    eventually(PATIENCE, async || bearerd.log().contains("stopped") && bearerd.process().ended().is_some()).await;
    let log = bearerd.log();
    assert!(log.contains("nobody knows this token"), "the cause is told there");
    for secret in [TOKEN, "canary-token", "hunter2"] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
