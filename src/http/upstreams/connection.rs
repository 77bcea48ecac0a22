//! A connection to an API, which remembers what passed over it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use http::Extensions;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::connect::{CaptureConnection, Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A stream with its [`Traffic`].
pub(super) struct Line {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    traffic: Traffic,
}

/// What passed over a connection. Clones are about the same connection.
#[derive(Clone, Default)]
pub(super) struct Traffic(Arc<Flags>);

#[derive(Default)]
struct Flags {
    /// A byte was written.
    written: AtomicBool,
    /// No byte was read since the last one was written.
    silent: AtomicBool,
    /// The head of an answer came.
    answered: AtomicBool,
}

impl Traffic {
    /// The traffic of the connection that a request was handed to; `None` if it was handed to none.
    pub fn of(request: &CaptureConnection) -> Option<Self> {
        let mut extras = Extensions::new();
        request.connection_metadata().as_ref()?.get_extras(&mut extras);
        extras.remove()
    }

    /// Notes that the head of an answer came.
    pub fn note_answer(&self) {
        self.0.answered.store(true, Relaxed);
    }

    /// Whether a byte was written.
    pub fn was_written(&self) -> bool {
        self.0.written.load(Relaxed)
    }

    /// Whether nothing was read since something was written.
    pub fn is_silent(&self) -> bool {
        self.0.silent.load(Relaxed)
    }

    /// Whether it was kept after an earlier answer.
    pub fn has_answered(&self) -> bool {
        self.0.answered.load(Relaxed)
    }

    /// Notes that bytes were written, or could not be because the other side is gone. These count as written, because what it
    /// said before it went, for example 413 to a body that it did not want, can still be read.
    fn wrote(&self, written: io::Result<usize>, offered: usize) -> io::Result<usize> {
        self.0.silent.store(true, Relaxed);
        match written {
            Ok(bytes) => {
                self.0.written.store(true, Relaxed);
                Ok(bytes)
            }
            Err(error) if is_gone(&error) => Ok(offered),
            Err(error) => Err(error),
        }
    }
}

/// Whether the other side reads no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Line {
    /// A new connection.
    pub fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        Self { stream: TokioIo::new(stream), traffic: Traffic::default() }
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.stream.inner().connected().extra(self.traffic.clone())
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.traffic.0.silent.store(false, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.traffic.wrote(written, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) }))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers));
        Poll::Ready(self.traffic.wrote(written, buffers.iter().map(|buffer| buffer.len()).sum()))
    }
}
