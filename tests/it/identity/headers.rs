//! Headers in which somebody says who they are. None is believed.

use super::{Door, is_another, is_unproven};

#[tokio::test]
async fn case_27_no_header_makes_a_caller() {
    let xfcc = "By=spiffe://acme/bearerd;Hash=00;URI=spiffe://acme/admin";
    for (caller, headers) in [
        ("spiffe://acme/admin", vec![("x-forwarded-client-cert", xfcc)]),
        ("spiffe://acme/admin", vec![("x-spiffe-id", "spiffe://acme/admin")]),
        ("spiffe://acme/admin", vec![("x-client-cert", "spiffe://acme/admin"), ("ssl-client-verify", "SUCCESS")]),
        ("spiffe://acme/admin", vec![("x-user", "spiffe://acme/admin"), ("x-remote-user", "spiffe://acme/admin")]),
        ("anonymous", vec![("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1")]),
        ("anonymous", vec![("forwarded", "for=10.0.0.1"), ("x-client-ip", "10.0.0.1")]),
        ("uid:0", vec![("x-uid", "0"), ("x-user-id", "uid:0")]),
        ("token:ci", vec![("x-token", "token:ci"), ("proxy-authorization", "Bearer ci")]),
        ("system:serviceaccount:a:b", vec![("x-remote-user", "system:serviceaccount:a:b")]),
        ("system:serviceaccount:a:b", vec![("impersonate-user", "system:serviceaccount:a:b")]),
    ] {
        let door = Door::open(caller, "", &[]).await;
        let client = door.plain().await;
        is_another(client.get_with(&headers).await, &format!("{headers:?}"));
        // Were an address believed, this one would not be local any more.
        let local = Door::open("local", "", &[]).await;
        local.plain().await.get_with(&headers).await.unwrap();
    }
}

#[tokio::test]
async fn case_27_an_authorization_that_nobody_can_verify_is_refused() {
    let door = Door::open("local", "", &[]).await;
    let client = door.plain().await;
    client.get().await.unwrap();
    for value in ["Bearer x", "Basic cm9vdDpyb290", "bearer", "", "local", "Negotiate x"] {
        is_unproven(client.get_with(&[("authorization", value)]).await, value);
    }
}
