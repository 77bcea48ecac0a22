//! A connection that is served. A request runs on its connection's task as long as it waits for nothing, and then on a task of
//! its own.
//!
//! A token from memory is there at once. A task for it would cost as much as the answer, and what each task answers is sent by
//! itself, with a system call; what is answered in place is sent together with all that was asked together.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http2::{self, Builder},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tonic::body::Body;

use super::{
    connection::Connection,
    unbegun::{Total, Unbegun},
    waiting::Beginner,
};

/// How long a connection may be silent before its client is asked whether it is still there, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// So many requests that have to wait are begun before all else that is ready has its turn. What the first of two thousand waits
/// for is on its way then while the others begin, and not when all of them have.
const AT_A_TIME: u32 = 4;

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
    connection: Pin<Box<http2::Connection<TokioIo<Connection>, S, Unbegun>>>,
    unbegun: Unbegun,
    beginner: Beginner,
    /// Each request on a task of its own has a clone.
    waiting: Arc<()>,
    /// Whether they had their turn since the connection was last looked at.
    gave_way: bool,
}

impl<S: Services> Serving<S> {
    /// Serves a connection, with at most so many requests under way, and counts those that have not begun among those of all.
    pub fn new(connection: Connection, services: S, max_concurrent_streams: u32, total: Total) -> Self {
        let unbegun = Unbegun::new(total);
        let mut http = Builder::new(unbegun.clone());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(max_concurrent_streams)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // gRPC has no use for it.
            .auto_date_header(false);
        let connection = Box::pin(http.serve_connection(TokioIo::new(connection), services));
        Self { connection, unbegun, beginner: Beginner::default(), waiting: Arc::default(), gave_way: false }
    }

    /// Asks the client to go, and takes no more requests.
    pub fn no_more(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    /// Begins what came in, as much of it as has its turn now.
    fn begin(&mut self) -> Begun {
        let (mut any, mut waits) = (false, 0);
        while let Some(request) = self.unbegun.next() {
            any = true;
            if let Some(begun) = self.beginner.begin(request) {
                let waits_too = Arc::clone(&self.waiting);
                tokio::spawn(begun.map(|()| drop(waits_too)));
                waits += 1;
            }
            if waits >= AT_A_TIME && self.unbegun.can_wait() {
                return Begun::Some;
            }
        }
        if any { Begun::All } else { Begun::Nothing }
    }
}

/// Each request has the queue that it is in, so nobody else would end those that never began.
impl<S: Services> Drop for Serving<S> {
    fn drop(&mut self) {
        while self.unbegun.next().is_some() {}
    }
}

/// Which of the requests that came in were begun.
enum Begun {
    /// There were none.
    Nothing,
    /// The others have to let something else go first.
    Some,
    All,
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
            let begun = self.begin();
            if connection.is_ready() {
                return connection;
            }
            match begun {
                Begun::Nothing => return Poll::Pending,
                Begun::Some => {
                    self.gave_way = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // What was answered meanwhile is sent when the connection is looked at again.
                Begun::All => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
