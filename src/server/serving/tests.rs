//! Connections of clients in this process, over a pipe.

use std::sync::Arc;

use hyper::service::service_fn;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::connection::{Bytes, Silent};

mod floods;
mod requests;

/// Serves a connection whose requests are answered by this.
fn serve<F>(
    bytes: impl Bytes,
    answer: impl Fn(Request<Incoming>) -> F + Send + 'static,
) -> JoinHandle<hyper::Result<()>>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let beginner = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let silent = Silent::until(tokio::time::Instant::now() + Duration::from_secs(10), beginner);
    let connection = Connection::new(Box::new(bytes), silent, CancellationToken::new());
    tokio::spawn(Serving::new(connection, service_fn(answer), 1000, Total::default()))
}
