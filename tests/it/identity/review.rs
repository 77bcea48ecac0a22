//! Tokens of Kubernetes ServiceAccounts about which the API server is asked.

use std::{fs, sync::Arc};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    Door, is_another, is_unproven,
    kubernetes::{ACCOUNT, ISSUER, Signer, claims, jwks, table},
};
use crate::support::{PATIENCE, eventually};

/// An API server that gives one answer, and remembers what it was asked.
#[derive(Clone, Default)]
struct ApiServer {
    status: Arc<Mutex<Value>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl ApiServer {
    fn answers(&self, status: Value) {
        *self.status.lock() = status;
    }

    fn vouches_for(&self, user: &str) {
        self.answers(json!({ "authenticated": true, "user": { "username": user }, "audiences": ["bearerd"] }));
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    async fn start(&self) -> String {
        async fn review(State(me): State<ApiServer>, headers: HeaderMap, Json(question): Json<Value>) -> Json<Value> {
            let shown = headers["authorization"].to_str().unwrap().to_owned();
            me.asked.lock().push((shown, question));
            let status = me.status.lock().clone();
            Json(json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status }))
        }
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let router = Router::new().route(path, post(review)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        url
    }
}

async fn door(caller: &str, server: &ApiServer, lines: &str, files: &[(&str, &str)]) -> Door {
    let url = server.start().await;
    let lines = format!("token_review = true\napi_server = \"{url}\"\ntoken = {{ file = \"@DIR@/token\" }}\n{lines}");
    let files: Vec<_> = [("token", "own-1\n")].into_iter().chain(files.iter().copied()).collect();
    Door::open(caller, &table(&lines), &files).await
}

#[tokio::test]
async fn the_api_server_vouches_for_a_pod() {
    let server = ApiServer::default();
    server.vouches_for(ACCOUNT);
    let door = door(ACCOUNT, &server, "", &[]).await;
    let client = door.plain().await;
    let token = Signer::es256("any").sign(&claims());
    for _ in 0..5 {
        client.get_as(&token).await.unwrap();
    }
    let (shown, question) = server.asked.lock()[0].clone();
    assert_eq!(shown, "Bearer own-1");
    assert_eq!(question["spec"], json!({ "token": token, "audiences": ["bearerd"] }));
    assert_eq!(
        (&question["kind"], &question["apiVersion"]),
        (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
    );
    assert_eq!(server.asked(), 1, "an answer is believed for a while");

    server.vouches_for("system:serviceaccount:billing:batch");
    is_another(client.get_as(&Signer::es256("any").sign(&claims())).await, "the answer is that token's alone");

    // The kubelet replaces bearerd's own token.
    fs::write(door.path("token"), "own-2\n").unwrap();
    eventually(PATIENCE, async || {
        let _ = client.get_as(&Signer::es256("any").sign(&claims())).await;
        server.asked.lock().last().unwrap().0 == "Bearer own-2"
    })
    .await;
}

#[tokio::test]
async fn case_25_every_other_answer_refuses() {
    let server = ApiServer::default();
    let door = door("*", &server, "", &[]).await;
    let client = door.plain().await;
    let user = json!({ "username": ACCOUNT });
    for status in [
        json!({}),
        json!({ "authenticated": false, "user": user, "audiences": ["bearerd"] }),
        json!({ "authenticated": true, "user": user }),
        json!({ "authenticated": true, "user": user, "audiences": [] }),
        json!({ "authenticated": true, "user": user, "audiences": ["https://kubernetes.default.svc"] }),
        json!({ "authenticated": true, "user": user, "audiences": ["bearerd"], "error": "expired" }),
        json!({ "authenticated": true, "user": { "username": "system:admin" }, "audiences": ["bearerd"] }),
        json!({ "authenticated": true, "audiences": ["bearerd"] }),
        json!({ "authenticated": "true", "user": user, "audiences": ["bearerd"] }),
        json!("nonsense"),
    ] {
        server.answers(status.clone());
        is_unproven(client.get_as(&Signer::es256("any").sign(&claims())).await, &status.to_string());
    }
    let asked = server.asked();
    server.vouches_for(ACCOUNT);
    let mut old = claims();
    old["exp"] = json!(1);
    let mut foreign = claims();
    foreign["iss"] = json!(format!("{ISSUER}.evil"));
    for token in [Signer::es256("a").sign(&old), Signer::es256("a").sign(&foreign), "no.json.token".into(), "x".into()]
    {
        is_unproven(client.get_as(&token).await, &token);
    }
    assert_eq!(server.asked(), asked, "what is not this issuer's is shown to nobody");
}

#[tokio::test]
async fn case_26_a_pod_that_is_gone_is_refused_before_its_token_expires() {
    let (signer, stranger) = (Signer::es256("one"), Signer::es256("one"));
    let server = ApiServer::default();
    server.vouches_for(ACCOUNT);
    let given = "jwks = { file = \"@DIR@/jwks.json\" }";
    let door = door(ACCOUNT, &server, given, &[("jwks.json", &jwks(&[&signer]))]).await;
    let client = door.plain().await;
    is_unproven(client.get_as(&stranger.sign(&claims())).await, "a bad signature");
    assert_eq!(server.asked(), 0, "nothing made up reaches the API server");
    client.get_as(&signer.sign(&claims())).await.unwrap();
    server.vouches_for("system:serviceaccount:billing:batch");
    is_unproven(client.get_as(&signer.sign(&claims())).await, "it is not the account that the token says");
    server.answers(json!({ "authenticated": false, "error": "the pod is gone" }));
    is_unproven(client.get_as(&signer.sign(&claims())).await, "gone");
}
