//! The authorization server: grants, client authentication, rotation, faults and the journal.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use url::form_urlencoded::byte_serialize;

use super::*;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: (&str, &str) =
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
/// The parameters of a request, and the status and the error word that it gets.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'static str);

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

#[tokio::test]
async fn every_way_of_client_authentication_gets_a_token() {
    let stage = Stage::new().await;
    let by_issuer = stage.assertion(DEMO_JWT, &stage.sandbox.issuer(), "1");
    let by_endpoint = stage.assertion(DEMO_JWT, &stage.sandbox.token_url(), "2");
    let secret = [("client_id", DEMO_CONFIDENTIAL), ("client_secret", DEMO_SECRET)];
    let cases = [
        (Some(basic(DEMO_CONFIDENTIAL, DEMO_SECRET)), vec![], DEMO_CONFIDENTIAL),
        (Some(basic(DEMO_AWKWARD, DEMO_AWKWARD_SECRET)), vec![], DEMO_AWKWARD),
        (None, secret.to_vec(), DEMO_CONFIDENTIAL),
        (None, vec![ASSERTION_TYPE, ("client_assertion", &by_issuer)], DEMO_JWT),
        (None, vec![ASSERTION_TYPE, ("client_assertion", &by_endpoint), ("client_id", DEMO_JWT)], DEMO_JWT),
    ];
    for (authorization, mut parameters, client) in cases {
        parameters.push(GRANT);
        let mut request = stage.form(stage.sandbox.token_url(), &parameters);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let answer = stage.send(request).await.unwrap();
        assert_eq!((answer.status, answer.header(CACHE_CONTROL)), (200, "no-store"), "{client}");
        assert_eq!(answer.text_of("token_type"), "Bearer");
        assert_eq!(answer.json()["expires_in"], 300);
        assert_eq!(answer.json()["refresh_token"], Value::Null);
        let hello = stage.get("/hello", Some(&answer.text_of("access_token"))).await;
        assert_eq!(hello.json(), json!({ "hello": client, "scope": "read" }));
        assert_eq!(stage.sandbox.journal().last().unwrap().client_id.as_deref(), Some(client));
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_the_right_word() {
    let stage = Stage::new().await;
    let minted = stage.sandbox.mint_refresh_token("ada");
    let foreign = stage.assertion("ada", &stage.sandbox.issuer(), "1");
    let misdirected = stage.assertion("ada", "http://elsewhere", "2");
    let (secret, refresh) = (("client_secret", DEMO_SECRET), ("grant_type", "refresh_token"));
    let confidential = ("client_id", DEMO_CONFIDENTIAL);
    let public = ("client_id", DEMO_PUBLIC);
    let cases: [Case<'_>; 14] = [
        (&[GRANT, confidential, ("client_secret", "wrong")], 401, "invalid_client"),
        (&[GRANT, ("client_id", "nobody"), secret], 401, "invalid_client"),
        (&[GRANT, confidential], 401, "invalid_client"),
        (&[GRANT], 401, "invalid_client"),
        (&[GRANT, ASSERTION_TYPE, ("client_assertion", &foreign)], 401, "invalid_client"),
        (&[GRANT, public], 400, "unauthorized_client"),
        (&[GRANT, confidential, secret, ("scope", "root")], 400, "invalid_scope"),
        (&[GRANT, GRANT, confidential, secret], 400, "invalid_request"),
        (&[confidential, secret], 400, "invalid_request"),
        (&[("grant_type", "password"), confidential, secret], 400, "unsupported_grant_type"),
        (&[refresh, public], 400, "invalid_request"),
        (&[refresh, public, ("refresh_token", "made-up")], 400, "invalid_grant"),
        (&[refresh, confidential, ("refresh_token", &minted)], 401, "invalid_client"),
        (&[("grant_type", JWT_BEARER), ("assertion", &misdirected)], 400, "invalid_grant"),
    ];
    for (parameters, status, word) in cases {
        let answer = stage.token(parameters).await;
        assert_eq!((answer.status, answer.text_of("error").as_str()), (status, word), "{parameters:?}");
        assert_eq!(answer.header(CACHE_CONTROL), "no-store");
        assert_eq!(answer.header(WWW_AUTHENTICATE).is_empty(), status != 401);
        assert_eq!(stage.sandbox.journal().last().unwrap().outcome, Outcome::Refused(word));
    }
    assert_eq!(stage.refresh(&minted).await.status, 200, "none of this may have rotated the token");
}

#[tokio::test]
async fn a_bearer_assertion_is_a_grant_once() {
    let stage = Stage::new().await;
    for (index, client) in [None, Some(("client_id", DEMO_JWT))].into_iter().enumerate() {
        let assertion = stage.assertion("ada", &stage.sandbox.token_url(), &index.to_string());
        let mut parameters = vec![("grant_type", JWT_BEARER), ("assertion", &assertion), ("scope", "write read")];
        parameters.extend(client);
        let answer = stage.token(&parameters).await;
        assert_eq!((answer.status, answer.text_of("scope").as_str()), (200, "read write"));
        assert_eq!(answer.json()["refresh_token"], Value::Null);
        assert_eq!(stage.get("/hello", Some(&answer.text_of("access_token"))).await.text_of("hello"), "ada");
        assert_eq!(stage.token(&parameters).await.text_of("error"), "invalid_grant");
    }
}

#[tokio::test]
async fn reuse_of_a_refresh_token_ends_the_family_and_its_access_tokens() {
    let stage = Stage::new().await;
    let first = stage.sandbox.mint_refresh_token("ada");
    let answer = stage.refresh(&first).await;
    let (access, second) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    assert_eq!(stage.get("/hello", Some(&access)).await.json(), json!({ "hello": "ada", "scope": "read write" }));
    assert!(stage.sandbox.family_alive(&first) && stage.sandbox.family_alive(&second));

    assert_eq!(stage.refresh(&first).await.text_of("error"), "invalid_grant");
    assert!(!stage.sandbox.family_alive(&first) && !stage.sandbox.family_alive(&second));
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 401);
    assert_eq!(stage.refresh(&second).await.text_of("error"), "invalid_grant");

    let seen: Vec<_> = stage.sandbox.journal().into_iter().map(|e| (e.sequence, e.presented, e.outcome)).collect();
    let at = |rotation| Some(Presented { family: 0, rotation });
    let refused = Outcome::Refused("invalid_grant");
    assert_eq!(seen, [(1, at(0), Outcome::Issued), (2, at(0), refused.clone()), (3, at(1), refused)]);
}

#[tokio::test]
async fn revoked_sessions_come_back_with_a_refresh_and_revoked_grants_do_not() {
    let stage = Stage::new().await;
    let answer = stage.refresh(&stage.sandbox.mint_refresh_token("ada")).await;
    let (access, second) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    stage.sandbox.revoke_access_tokens();
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 401);
    let answer = stage.refresh(&second).await;
    let (access, third) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 200);
    let revoke = stage.http.post(stage.sandbox.access_token_revocation_url());
    assert_eq!(stage.send(revoke).await.unwrap().status, 200);
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 401);
    let answer = stage.refresh(&third).await;
    let (access, fourth) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 200);
    stage.sandbox.revoke_grant(&fourth);
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 401);
    assert_eq!(stage.refresh(&fourth).await.text_of("error"), "invalid_grant");
}

#[tokio::test]
async fn a_client_revokes_its_own_refresh_token() {
    let stage = Stage::new().await;
    let answer = stage.refresh(&stage.sandbox.mint_refresh_token("ada")).await;
    let (access, refresh) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    let (public, confidential) = (("client_id", DEMO_PUBLIC), ("client_id", DEMO_CONFIDENTIAL));
    let cases: [Case<'_>; 6] = [
        (&[("token", &refresh)], 401, "invalid_client"),
        (&[("token", &refresh), confidential, ("client_secret", DEMO_SECRET)], 400, "invalid_grant"),
        (&[("token", &access), public], 400, "unsupported_token_type"),
        (&[public], 400, "invalid_request"),
        (&[("token", "made-up"), public], 200, ""),
        (&[("token", &refresh), public], 200, ""),
    ];
    for (parameters, status, word) in cases {
        assert!(stage.sandbox.family_alive(&refresh));
        let answer = stage.send(stage.form(stage.sandbox.revocation_url(), parameters)).await.unwrap();
        assert_eq!((answer.status, answer.text_of("error").as_str()), (status, word), "{parameters:?}");
    }
    assert!(!stage.sandbox.family_alive(&refresh));
    assert_eq!(stage.get("/hello", Some(&access)).await.status, 401);
}

#[tokio::test]
async fn faults_come_in_order_and_touch_nothing() {
    let stage = Stage::new().await;
    let first = stage.sandbox.mint_refresh_token("ada");
    let page = Fault::Body { status: 200, content_type: "text/html".to_owned(), body: "<html>".to_owned() };
    for fault in [Fault::Status(503), Fault::ErrorWord("slow_down".to_owned()), page, Fault::Status(9)] {
        stage.sandbox.fail_next(fault);
    }
    assert_eq!(stage.refresh(&first).await.status, 503);
    let refused = stage.refresh(&first).await;
    assert_eq!((refused.status, refused.text_of("error").as_str()), (400, "slow_down"));
    let page = stage.refresh(&first).await;
    assert_eq!((page.status, page.header(CONTENT_TYPE), page.text.as_str()), (200, "text/html", "<html>"));
    assert_eq!(stage.refresh(&first).await.status, 500);
    assert_eq!(stage.refresh(&first).await.status, 200);
    let outcomes: Vec<_> = stage.sandbox.journal().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes[..4], [const { Outcome::Faulted }; 4]);
    assert_eq!(outcomes[4..], [Outcome::Issued]);
}

#[tokio::test]
async fn a_dropped_answer_leaves_a_rotated_token_behind() {
    let stage = Stage::new().await;
    let first = stage.sandbox.mint_refresh_token("ada");
    stage.sandbox.fail_next(Fault::DropAfterHandling);
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", &first), ("client_id", DEMO_PUBLIC)];
    let lost = stage.send(stage.form(stage.sandbox.token_url(), &parameters)).await;
    assert!(lost.is_err_and(|error| !error.is_connect() && !error.is_body()), "not one byte may have arrived");
    let journal = stage.sandbox.journal();
    assert_eq!((journal.len(), &journal[0].outcome), (1, &Outcome::Issued));
    assert!(stage.sandbox.family_alive(&first));
    assert_eq!(stage.refresh(&first).await.text_of("error"), "invalid_grant");
    assert!(!stage.sandbox.family_alive(&first));
}
