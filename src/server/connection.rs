//! One accepted connection as the gRPC server sees it: bytes, and who is at the other end.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::frames::{Frames, PREFACE};

/// How long something may wait to be sent without one byte of it being taken. The HTTP/2 library says goodbye to those who do
/// not answer its pings, and would wait for ever until that was sent.
pub(super) const UNREAD: Duration = Duration::from_secs(30);

/// Bytes, however they come.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytes for T {}

/// A connection whose client has to begin to speak HTTP/2 within a limit, and to take what it is sent. After that the
/// server's pings find out whether it is still there. It can be cut off: then it is as if the client had gone, and its
/// requests end.
pub(super) struct Connection {
    bytes: Box<dyn Bytes>,
    silent: Option<Silent>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    frames: Frames,
    unread: Option<Pin<Box<Sleep>>>,
}

/// What a client has not said yet.
pub(super) struct Silent {
    missing: usize,
    limit: Pin<Box<Sleep>>,
    _beginner: OwnedSemaphorePermit,
}

impl Silent {
    /// A client that has to begin before `limit`, and counts as a beginner until it has.
    pub fn until(limit: Instant, beginner: OwnedSemaphorePermit) -> Self {
        Self { missing: PREFACE, limit: Box::pin(sleep_until(limit)), _beginner: beginner }
    }
}

impl Connection {
    /// A connection whose client is still silent. `cut` cuts it off.
    pub fn new(bytes: Box<dyn Bytes>, silent: Silent, cut: CancellationToken) -> Self {
        let cut = Box::pin(cut.cancelled_owned());
        Self { bytes, silent: Some(silent), cut, frames: Frames::new(), unread: None }
    }

    /// What came of sending, or the end if the client has taken nothing for too long.
    fn sent<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.unread = None;
            return sent;
        }
        let unread = self.unread.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        unread.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.bytes).poll_read(cx, buf);
        // There is always a read that waits: HTTP/2 reads ahead.
        if read.is_pending() && self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        self.frames.read(new).map_err(io::Error::other)?;
        let Some(silent) = &mut self.silent else { return read };
        silent.missing = silent.missing.saturating_sub(new.len());
        if silent.missing == 0 {
            self.silent = None;
        } else if read.is_pending() && silent.limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.bytes).poll_write(cx, buf);
        self.frames.sent(bytes_of(&written));
        self.sent(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.bytes).poll_flush(cx);
        self.sent(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut *self.bytes).poll_shutdown(cx);
        self.sent(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.bytes).poll_write_vectored(cx, bufs);
        self.frames.sent(bytes_of(&written));
        self.sent(cx, written)
    }

    /// The HTTP/2 library asks this first before anything was read, to know what to copy: where the answer is yes, whatever
    /// has 256 bytes ends a write, and what follows it needs another one; else only what has 1 KiB does. Most answers are in
    /// between, and it is cheaper to copy them and to send all that are there at once. What is larger is sent from where it
    /// is, as far as the answer is yes later.
    fn is_write_vectored(&self) -> bool {
        self.silent.is_none() && self.bytes.is_write_vectored()
    }
}

fn bytes_of(written: &Poll<io::Result<usize>>) -> usize {
    match written {
        Poll::Ready(Ok(bytes)) => *bytes,
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::Semaphore,
        time::{advance, sleep},
    };

    use super::*;

    async fn pair(beginners: &Arc<Semaphore>, cut: CancellationToken) -> (tokio::io::DuplexStream, Connection) {
        let (client, server) = duplex(64);
        let beginner = Arc::clone(beginners).acquire_owned().await.unwrap();
        let silent = Silent::until(Instant::now() + Duration::from_secs(10), beginner);
        (client, Connection::new(Box::new(server), silent, cut))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_too_little_is_cut_off() {
        let beginners = Arc::new(Semaphore::new(1));
        let (mut client, mut connection) = pair(&beginners, CancellationToken::new()).await;
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let mut all = Vec::new();
        let error = connection.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(all.len() < PREFACE, "{}", all.len());
        drop(connection);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_begun_may_be_silent() {
        let beginners = Arc::new(Semaphore::new(1));
        let (mut client, mut connection) = pair(&beginners, CancellationToken::new()).await;
        assert_eq!(beginners.available_permits(), 0);
        client.write_all(&[b'x'; PREFACE]).await.unwrap();
        let mut begun = [0; PREFACE];
        connection.read_exact(&mut begun).await.unwrap();
        assert_eq!(beginners.available_permits(), 1);
        advance(Duration::from_secs(3600)).await;
        client.write_all(b"y").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'y');
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_off_ends_while_its_client_says_nothing() {
        let cut = CancellationToken::new();
        let (mut client, mut connection) = pair(&Arc::new(Semaphore::new(1)), cut.clone()).await;
        client.write_all(&[b'x'; PREFACE]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE]).await.unwrap();
        let waiting = tokio::spawn(async move { connection.read_u8().await });
        tokio::task::yield_now().await;
        cut.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
