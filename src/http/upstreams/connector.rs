//! How a connection to an API is made.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::Service;

use super::{
    super::{CONNECT_TIMEOUT, resolve::Filter},
    connection::Line,
};

/// A connection that is idle for so long is probed, so that one whose other side is gone ends.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// How long sent bytes may stay unacknowledged.
const TCP_UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects over TCP, and TLS where the URL says so.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector<Filter>>);

type BoxError = Box<dyn Error + Send + Sync>;

impl Connector {
    /// A connector to the addresses that the filter leaves.
    pub fn new(filter: Filter, tls: Arc<ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(filter);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEPALIVE));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(TCP_UNACKNOWLEDGED));
        Self((tcp, tls).into())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Line>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected.map(|stream| TokioIo::new(Line::new(stream))),
                Err(_) => Err(format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()).into()),
            }
        })
    }
}
