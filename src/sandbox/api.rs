//! The protected API: what a bearer token is good for, and the many ways in which APIs say that it is not.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE},
    uri::PathAndQuery,
};
use serde_json::json;
use tokio::time::Instant;

use super::{World, form::basic_pair, ledger::AccessToken};
use crate::secret;

/// What `/key` wants in the header `X-Api-Key`.
pub const DEMO_API_KEY: &str = "demo-api-key-6f1c";
/// The user-id that `/key` takes with [`DEMO_PASSWORD`] (RFC 7617).
pub const DEMO_USERNAME: &str = "demo";
/// The password of [`DEMO_USERNAME`].
pub const DEMO_PASSWORD: &str = "demo-password-81ab";

const MAX_BODY: usize = 1 << 20;

/// All of the API's resources.
pub(super) fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/hello", get(hello))
        .route("/echo", any(echo))
        .route("/admin", any(admin))
        .route("/plain401", any(plain401))
        .route("/soap500", any(soap500))
        .route("/key", any(key))
        .route("/away", any(away))
        .fallback(elsewhere)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&world), count))
        .with_state(world)
}

async fn count(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    world.visits.count(request.uri().path());
    next.run(request).await
}

async fn hello(State(world): State<Arc<World>>, headers: HeaderMap) -> Result<Response, Denied> {
    let token = world.admit(&headers)?;
    Ok(Json(json!({ "hello": token.holder, "scope": token.scopes.to_parameter() })).into_response())
}

/// A careless API: it repeats the token that it was sent. Whoever relays its answers has to scrub them.
async fn echo(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Denied> {
    world.admit(&headers)?;
    let mut fields = BTreeMap::<&str, Vec<_>>::new();
    for (name, value) in &headers {
        fields.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
    }
    let fields: BTreeMap<&str, String> = fields.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
    Ok(Json(json!({
        "method": method.as_str(),
        "path": uri.path_and_query().map(PathAndQuery::as_str),
        "headers": fields,
        "body": String::from_utf8_lossy(&body),
    }))
    .into_response())
}

async fn admin(State(world): State<Arc<World>>, headers: HeaderMap) -> Result<Response, Denied> {
    let token = world.admit(&headers)?;
    if token.scopes.iter().any(|scope| scope == "admin") {
        Ok(Json(json!({ "admin": token.holder })).into_response())
    } else {
        Err(Denied::InsufficientScope)
    }
}

/// Says 401 with a body of its own and without a challenge, as many APIs do against RFC 9110 §15.5.2.
async fn plain401(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    match world.admit(&headers) {
        Ok(_) => Json(json!({ "ok": true })).into_response(),
        Err(_) => (StatusCode::UNAUTHORIZED, Json(json!({ "error": "session expired" }))).into_response(),
    }
}

/// Says that a session ended in the words of Salesforce's SOAP API: 500 and a fault code.
async fn soap500(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let xml = [(CONTENT_TYPE, "text/xml; charset=utf-8")];
    match world.admit(&headers) {
        Ok(_) => (xml, envelope("<ok/>")).into_response(),
        Err(_) => {
            let fault = "<soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>INVALID_SESSION_ID: \
                         Invalid Session ID found in SessionHeader</faultstring></soapenv:Fault>";
            (StatusCode::INTERNAL_SERVER_ERROR, xml, envelope(fault)).into_response()
        }
    }
}

fn envelope(body: &str) -> String {
    let namespaces = "xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:sf=\"urn:fault.sandbox\"";
    format!("<soapenv:Envelope {namespaces}><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>")
}

/// Takes no bearer token but an API key or a password.
async fn key(headers: HeaderMap) -> Response {
    let api_key = headers.get("x-api-key").is_some_and(|value| same(value.as_bytes(), DEMO_API_KEY));
    let password = headers
        .get(AUTHORIZATION)
        .and_then(|value| basic_pair(value.as_bytes()))
        .is_some_and(|(username, password)| username == DEMO_USERNAME && secret::same(&password, DEMO_PASSWORD));
    if api_key || password {
        Json(json!({ "ok": true })).into_response()
    } else {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"sandbox\"")]).into_response()
    }
}

fn same(given: &[u8], right: &str) -> bool {
    std::str::from_utf8(given).is_ok_and(|given| secret::same(given, right))
}

async fn away(State(world): State<Arc<World>>, headers: HeaderMap) -> Result<Response, Denied> {
    world.admit(&headers)?;
    Ok((StatusCode::FOUND, [(LOCATION, format!("{}/landing", world.issuer))]).into_response())
}

async fn elsewhere(State(world): State<Arc<World>>, headers: HeaderMap) -> Result<Response, Denied> {
    world.admit(&headers)?;
    Ok((StatusCode::NOT_FOUND, Json(json!({ "error": "not found" }))).into_response())
}

impl World {
    /// Lets a request in that carries one live token in its header (RFC 6750 §2.1).
    fn admit(&self, headers: &HeaderMap) -> Result<AccessToken, Denied> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Denied::NoCredentials)?;
        if values.next().is_some() {
            return Err(Denied::InvalidRequest);
        }
        let text = value.to_str().map_err(|_| Denied::InvalidToken)?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::NoCredentials);
        }
        let authority = self.authority.lock();
        authority.ledger.live(token.trim(), Instant::now()).cloned().ok_or(Denied::InvalidToken)
    }
}

/// Why a request is not served (RFC 6750 §3.1).
#[derive(Clone, Copy, Debug)]
enum Denied {
    /// The challenge of a request without a bearer token names no error.
    NoCredentials,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, challenge) = match self {
            Self::NoCredentials => (StatusCode::UNAUTHORIZED, "Bearer realm=\"sandbox\""),
            Self::InvalidRequest => (
                StatusCode::BAD_REQUEST,
                "Bearer realm=\"sandbox\", error=\"invalid_request\", error_description=\"two Authorization headers\"",
            ),
            Self::InvalidToken => (
                StatusCode::UNAUTHORIZED,
                "Bearer realm=\"sandbox\", error=\"invalid_token\", \
                 error_description=\"The access token is unknown, expired or revoked\"",
            ),
            Self::InsufficientScope => {
                (StatusCode::FORBIDDEN, "Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"admin\"")
            }
        };
        (status, [(WWW_AUTHENTICATE, challenge)]).into_response()
    }
}
