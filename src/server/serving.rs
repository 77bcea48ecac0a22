//! A connection that is served, with all requests on it, by one task.
//!
//! A token from memory is there at once. A task for each request would cost as much as its answer, and what each task answers is
//! sent by itself, with a system call; what one task answers is sent together. Work that is long, or that others wait for, has
//! tasks of its own elsewhere: refreshes, connections to upstreams, large answers.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, Stream, future::CatchUnwind, stream::FuturesUnordered};
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

/// A request, until all of its answer is handed to the connection. Its panic is nobody else's, as if it had a task of its own.
type UnderWay = CatchUnwind<AssertUnwindSafe<Pin<Box<dyn Future<Output = ()> + Send>>>>;

/// Requests that came in and did not begin yet. The HTTP/2 library takes it for what runs tasks.
#[derive(Clone, Default)]
struct New(Arc<Mutex<Vec<UnderWay>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for New {
    fn execute(&self, request: F) {
        let request: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(request);
        self.0.lock().push(AssertUnwindSafe(request).catch_unwind());
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
    under_way: FuturesUnordered<UnderWay>,
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
        Self { connection, new, under_way: FuturesUnordered::new() }
    }

    /// Asks the client to go, and takes no more requests.
    pub fn no_more(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    /// Goes on with every request that can go on; tells whether anything changed for the connection.
    fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = false;
        self.under_way.extend(self.new.0.lock().drain(..));
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.under_way).poll_next(cx) {
            changed = true;
        }
        changed
    }
}

impl<S: Services> Future for Serving<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let connection = self.connection.as_mut().poll(cx);
            // What was answered meanwhile is sent when the connection is looked at again.
            if connection.is_ready() || !self.go_on(cx) {
                return connection;
            }
        }
    }
}

#[cfg(test)]
mod tests;
