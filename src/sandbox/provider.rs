//! The authorization server's HTTP: the token endpoint (RFC 6749 §3.2) and the revocation endpoint (RFC 7009).

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Fault, World, authority::Answer, connection::Scissors, ledger::Issued, refusal::Refusal};

/// A token request is a few kilobytes at most.
const MAX_BODY: usize = 64 << 10;

/// All of the provider's endpoints.
pub(super) fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/token", post(token))
        .route("/revoke", post(revoke))
        .route("/sandbox/revoke", post(revoke_access_tokens))
        .route("/landing", get(landing))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(world)
}

/// The endpoint acts first and is slow afterwards, as a provider behind a slow network is: a client that gives up
/// meanwhile has had its refresh token rotated all the same.
async fn token(
    State(world): State<Arc<World>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = world.authority.lock().answer(&headers, &body, Instant::now());
    sleep(world.latency).await;
    match answer {
        Answer::Decided(Ok(issued)) => granted(&issued),
        Answer::Decided(Err(refusal)) => refused(refusal),
        Answer::Faulted(fault) => faulty(fault),
        Answer::Dropped => {
            scissors.cut();
            // This never leaves: the connection does not take one more byte.
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn revoke(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let outcome = world.authority.lock().revoke(&headers, &body);
    match outcome {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refused(refusal),
    }
}

/// For a person with a shell; no real provider has it.
async fn revoke_access_tokens(State(world): State<Arc<World>>) -> &'static str {
    world.authority.lock().ledger.revoke_access_tokens();
    "All access tokens of now are revoked; the grants stay good.\n"
}

/// Where the API's `/away` points to: another origin, which counts who follows.
async fn landing(State(world): State<Arc<World>>) -> &'static str {
    world.visits.count("/landing");
    "You were redirected to another origin.\n"
}

fn granted(issued: &Issued) -> Response {
    let mut body = json!({
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in.as_secs(),
        "scope": issued.scopes.to_parameter(),
    });
    if let (Some(refresh_token), Some(fields)) = (&issued.refresh_token, body.as_object_mut()) {
        fields.insert("refresh_token".to_owned(), json!(refresh_token));
    }
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn refused(refusal: Refusal) -> Response {
    error_answer(refusal.error.as_str(), refusal.description)
}

/// RFC 6749 §5.2. A 401 always carries a challenge (RFC 9110 §15.5.2).
fn error_answer(error: &str, description: &str) -> Response {
    let body = Json(json!({ "error": error, "error_description": description }));
    let no_store = [(CACHE_CONTROL, "no-store")];
    if error == "invalid_client" {
        let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"sandbox\"")];
        (StatusCode::UNAUTHORIZED, no_store, challenge, body).into_response()
    } else {
        (StatusCode::BAD_REQUEST, no_store, body).into_response()
    }
}

fn faulty(fault: Fault) -> Response {
    match fault {
        Fault::Status(number) => status(number).into_response(),
        Fault::Wait { status: number, retry_after } => {
            let mut response = status(number).into_response();
            if let Ok(value) = HeaderValue::from_str(&retry_after) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            response
        }
        Fault::ErrorWord(word) => error_answer(&word, "the sandbox was told to answer so"),
        Fault::Body { status: number, content_type, body } => {
            let mut response = (status(number), body).into_response();
            response.headers_mut().remove(CONTENT_TYPE);
            if let Ok(value) = HeaderValue::from_str(&content_type) {
                response.headers_mut().insert(CONTENT_TYPE, value);
            }
            response
        }
        // It is no answer, so `Authority` turns it into `Answer::Dropped` and it does not come here.
        Fault::DropAfterHandling => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
