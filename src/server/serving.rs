//! A connection that is served. A request runs on its connection's task as long as it waits for nothing, and then on a task of
//! its own.
//!
//! A token from memory is there at once. A task for it would cost as much as the answer, and what each task answers is sent by
//! itself, with a system call; what is answered in place is sent together with all that was asked together.

use std::{
    convert::Infallible,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::http2::{self, Builder},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tonic::body::Body;

use super::connection::Connection;

/// How long a connection may be silent before its client is asked whether it is still there, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A request, until all of its answer is handed to the connection.
type UnderWay = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Requests that came in and did not begin yet. The HTTP/2 library takes it for what runs tasks.
#[derive(Clone, Default)]
struct New(Arc<Mutex<Vec<UnderWay>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for New {
    fn execute(&self, request: F) {
        self.0.lock().push(Box::pin(request));
    }
}

/// What is served on a connection.
pub(super) trait Services:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
{
}

impl<S> Services for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
{
}

/// A connection and the requests on it, until it ends.
pub(super) struct Serving<S: Services> {
    connection: Pin<Box<http2::Connection<TokioIo<Connection>, S, New>>>,
    new: New,
    /// An empty list that takes the place of the one that is worked on.
    spare: Vec<UnderWay>,
    /// Each request on a task of its own has a clone.
    waiting: Arc<()>,
    /// Whether they had their turn since the connection was last looked at.
    gave_way: bool,
}

impl<S: Services> Serving<S> {
    /// Serves a connection, with at most so many requests under way.
    pub fn new(connection: Connection, services: S, max_concurrent_streams: u32) -> Self {
        let new = New::default();
        let mut http = Builder::new(new.clone());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(max_concurrent_streams)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // gRPC has no use for it.
            .auto_date_header(false);
        let connection = Box::pin(http.serve_connection(TokioIo::new(connection), services));
        Self { connection, new, spare: Vec::new(), waiting: Arc::default(), gave_way: false }
    }

    /// Asks the client to go, and takes no more requests.
    pub fn no_more(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    /// Begins what came in; tells whether there was anything.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let mut new = mem::replace(&mut *self.new.0.lock(), mem::take(&mut self.spare));
        let any = !new.is_empty();
        for request in new.drain(..) {
            begin(request, &self.waiting, cx);
        }
        self.spare = new;
        any
    }
}

impl<S: Services> Future for Serving<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // One answer wakes this, and where many waited for the same, the next ones are about to be ready: after them it is one
        // piece that is sent, and not one for each.
        if Arc::strong_count(&self.waiting) > 2 && !self.gave_way {
            self.gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gave_way = false;
        loop {
            let connection = self.connection.as_mut().poll(cx);
            // What was answered meanwhile is sent when the connection is looked at again.
            if !self.begin(cx) || connection.is_ready() {
                return connection;
            }
        }
    }
}

/// Begins a request. As on a task of its own, its panic would be nobody else's.
fn begin(mut request: UnderWay, waiting: &Arc<()>, cx: &mut Context<'_>) {
    match catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(cx))) {
        Ok(Poll::Pending) => {
            let waits = Arc::clone(waiting);
            tokio::spawn(request.map(|()| drop(waits)));
        }
        Ok(Poll::Ready(())) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests;
