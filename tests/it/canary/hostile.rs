//! A provider and an API that say every secret they are told, wherever they can: in errors, in pages, in headers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::LOCATION},
    response::{IntoResponse, Response},
    routing::any,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::marked;

/// The running server.
pub struct Hostile {
    url: String,
    told: Told,
    task: JoinHandle<()>,
}

/// Everything that it was told.
type Told = Arc<Mutex<String>>;

impl Hostile {
    pub async fn start() -> Self {
        let told = Told::default();
        let router = Router::new()
            .route("/token", any(token))
            .route("/refuse", any(refuse))
            .route("/page", any(page))
            .route("/garbled", any(garbled))
            .route("/api/echo", any(page_of_all))
            .route("/api/reject", any(reject))
            .route("/api/redirect", any(redirect))
            .route("/api/cut", any(cut))
            .with_state(Arc::clone(&told));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, told, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether this was among what it was told.
    pub fn saw(&self, text: &str) -> bool {
        self.told.lock().contains(text)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notes what it was told, and returns all of it.
fn listen(told: &Told, uri: &Uri, headers: &HeaderMap, body: &str) -> String {
    let all = format!("{uri} {headers:?} {body}");
    told.lock().push_str(&all);
    all
}

async fn token(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let all = listen(&told, &uri, &headers, &body);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (access, refresh) = (marked(&format!("access-{number}")), marked(&format!("refresh-{number}")));
    Json(json!({
        "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 300, "said": all,
    }))
    .into_response()
}

async fn refuse(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let all = listen(&told, &uri, &headers, &body);
    let refusal = json!({ "error": "invalid_grant", "error_description": all, "error_uri": marked("uri") });
    (StatusCode::BAD_REQUEST, Json(refusal)).into_response()
}

async fn page(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let all = listen(&told, &uri, &headers, &body);
    (StatusCode::BAD_GATEWAY, [("x-said", marked("answer-header"))], format!("<html>{all}</html>")).into_response()
}

async fn garbled(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    listen(&told, &uri, &headers, &body);
    Json(json!({ "access_token": format!("{}\r\nX: y", marked("garbled")), "token_type": marked("type") }))
        .into_response()
}

async fn page_of_all(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    ([("x-said", marked("answer-header"))], listen(&told, &uri, &headers, &body)).into_response()
}

async fn reject(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let all = listen(&told, &uri, &headers, &body);
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{bearer}\"");
    (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)], all).into_response()
}

async fn redirect(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    listen(&told, &uri, &headers, &body);
    (StatusCode::FOUND, [(LOCATION, format!("/{}", marked("elsewhere")))]).into_response()
}

/// Breaks off in the middle.
async fn cut(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let all = listen(&told, &uri, &headers, &body);
    let parts = [Ok(all), Err(std::io::Error::other("cut"))];
    Body::from_stream(futures_util::stream::iter(parts)).into_response()
}
