//! Who may do what, and what is said to those who may not.

use bearerd::proto::{CallThroughRequest, DescribeGrantRequest, ImportGrantRequest, import_grant_request::Secret};
use tonic::{Code, Status};

use crate::support::house::{House, ROTATING, reason};

async fn with_rows(rows: &str) -> House {
    let other = ROTATING.replace("[credentials.demo]", "[credentials.hidden]");
    House::with(&format!("{rows}\n{ROTATING}\n{other}")).await
}

async fn call(house: &House, credential: &str) -> Result<(), Status> {
    let request = CallThroughRequest {
        credential: credential.to_owned(),
        method: "GET".to_owned(),
        path: "/hello".to_owned(),
        ..CallThroughRequest::default()
    };
    house.call_whole(request).await.map(drop)
}

async fn describe(house: &House, credential: &str) -> Result<(), Status> {
    let request = DescribeGrantRequest { credential: credential.to_owned(), ..DescribeGrantRequest::default() };
    house.grants.clone().describe_grant(request).await.map(drop)
}

async fn import(house: &House, credential: &str) -> Result<(), Status> {
    let secret = Some(Secret::RefreshToken("x".to_owned()));
    let request = ImportGrantRequest { credential: credential.to_owned(), secret, ..ImportGrantRequest::default() };
    house.grants.clone().import_grant(request).await.map(drop)
}

#[tokio::test]
async fn every_rpc_needs_its_own_action() {
    for allowed in ["get", "invalidate", "call", "administer"] {
        let house =
            with_rows(&format!("[[allow]]\ncaller = \"local\"\ncredentials = [\"demo\"]\nactions = [\"{allowed}\"]"))
                .await;
        for (action, result) in [
            ("get", house.get("demo").await.map(drop)),
            ("invalidate", house.report("demo", 1).await.map(drop)),
            ("call", call(&house, "demo").await),
            ("administer", describe(&house, "demo").await),
            ("administer", import(&house, "demo").await),
        ] {
            match result {
                Ok(()) => assert_eq!(action, allowed),
                Err(status) => {
                    assert_ne!(action, allowed, "{status:?}");
                    assert_eq!(reason(&status), (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned(), None));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_hidden_looks_like_what_does_not_exist() {
    let house =
        with_rows("[[allow]]\ncaller = \"*\"\ncredentials = [\"demo\"]\nactions = [\"get\", \"invalidate\"]").await;
    let seen = |status: Status| (status.code(), status.message().to_owned(), reason(&status));
    let hidden = seen(house.get("hidden").await.unwrap_err());
    assert_eq!(hidden, seen(house.get("nobody").await.unwrap_err()));
    assert_eq!(hidden.0, Code::PermissionDenied);
    assert_eq!(house.asked(), 0);
}

#[tokio::test]
async fn without_rows_a_local_caller_may_do_everything() {
    let house = House::with(ROTATING).await;
    house.get("demo").await.unwrap();
    describe(&house, "demo").await.unwrap();
}
