//! Connections that can be cut: in the middle of a request to play an accident, and all at once when the sandbox stops.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Serves `router` until `stop`, which also cuts every connection that is still open.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let listener = Listener { inner: listener, stop: stop.clone() };
    let app = router.into_make_service_with_connect_info::<Scissors>();
    // The only error would be one of the accept loop, which retries by itself and has none.
    let _ = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
}

/// What cuts one connection; a handler gets it as its `ConnectInfo`.
#[derive(Clone, Debug)]
pub(super) struct Scissors(CancellationToken);

impl Scissors {
    /// Closes the connection; not one more byte is written to it.
    pub fn cut(&self) {
        self.0.cancel();
    }
}

impl Connected<IncomingStream<'_, Listener>> for Scissors {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().scissors.clone()
    }
}

/// Accepts connections that can be cut.
struct Listener {
    inner: TcpListener,
    stop: CancellationToken,
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        let line = self.stop.child_token();
        let cut = Box::pin(line.clone().cancelled_owned());
        (Connection { stream, scissors: Scissors(line), cut }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A TCP stream that fails from the moment it is cut.
struct Connection {
    stream: TcpStream,
    scissors: Scissors,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    /// Fails once the connection is cut, and until then sees to it that the cut wakes the task.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
