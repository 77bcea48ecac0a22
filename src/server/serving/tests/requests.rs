//! Where requests run, and what that means for the others on their connection.

use std::{
    convert::Infallible,
    future::pending,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    select,
    sync::{Notify, Semaphore},
    task::yield_now,
    time::timeout,
};
use tonic::body::Body;

use super::serve;

/// The server's end of a pipe, which counts how often something is sent.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    /// As a socket says.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A message as large as one with a token, and the trailers after it.
struct Message(bool);

impl http_body::Body for Message {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match std::mem::replace(&mut self.0, true) {
            false => Frame::data(Bytes::from_static(&[b'x'; 400])),
            true => Frame::trailers(HeaderMap::new()),
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

/// A client of a server whose requests for `/wait` wait for a word, and whose requests for `/panic` do.
async fn connected() -> (SendRequest<Body>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (client, server) = duplex(1 << 16);
    let (word, sent) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let waits_for = Arc::clone(&word);
    serve(Counting(server, Arc::clone(&sent)), move |request| {
        let word = Arc::clone(&waits_for);
        async move {
            match request.uri().path() {
                "/wait" => word.acquire().await.unwrap().forget(),
                "/panic" => panic!("as asked"),
                _ => {}
            }
            Ok(Response::new(Body::new(Message(false))))
        }
    });
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    (requests, word, sent)
}

/// Who waits, where many do.
const MANY: usize = 600;

/// Whether a request is answered.
async fn ask(requests: &SendRequest<Body>, path: &str) -> bool {
    let mut requests = requests.clone();
    requests.ready().await.unwrap();
    let request = Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap();
    requests.send_request(request).await.is_ok()
}

#[tokio::test]
async fn what_is_asked_together_is_answered_together() {
    let (requests, _word, sent) = connected().await;
    assert!(ask(&requests, "/").await, "the connection has begun");
    sent.store(0, Ordering::Relaxed);
    let answered = join_all((0..50).map(|_| ask(&requests, "/"))).await;
    assert_eq!(answered, [true; 50]);
    let sent = sent.load(Ordering::Relaxed);
    assert!((1..10).contains(&sent), "50 answers were sent in {sent} pieces");
}

/// On the runtime that serves: a task that another one wakes goes before all others there.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn those_who_waited_for_the_same_are_answered_together() {
    let (requests, word, sent) = connected().await;
    let mut answered = pin!(join_all((0..MANY).map(|_| ask(&requests, "/wait"))));
    select! {
        biased;
        early = &mut answered => panic!("nobody said the word: {early:?}"),
        // It came after all others, so they are waiting.
        begun = ask(&requests, "/") => assert!(begun),
    }
    sent.store(0, Ordering::Relaxed);
    tokio::spawn(async move { word.add_permits(MANY) });
    assert_eq!(answered.await, [true; MANY]);
    let sent = sent.load(Ordering::Relaxed);
    assert!((1..60).contains(&sent), "{MANY} answers were sent in {sent} pieces");
}

#[tokio::test]
async fn what_many_wait_for_has_its_turn_while_they_begin() {
    let (client, server) = duplex(1 << 16);
    let (word, begun, seen) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
    let turn = Arc::clone(&seen);
    serve(server, move |_| {
        let (word, begun, turn) = (Arc::clone(&word), Arc::clone(&begun), Arc::clone(&turn));
        async move {
            if begun.fetch_add(1, Ordering::Relaxed) == 0 {
                let word = Arc::clone(&word);
                tokio::spawn(async move {
                    turn.set(begun.load(Ordering::Relaxed)).unwrap();
                    word.add_permits(MANY);
                });
            }
            word.acquire().await.unwrap().forget();
            Ok(Response::new(Body::new(Message(false))))
        }
    });
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(join_all((0..MANY).map(|_| ask(&requests, "/"))).await, [true; MANY]);
    let begun = *seen.get().unwrap();
    assert!((1..10).contains(&begun), "{begun} of {MANY} had begun when what they waited for had its turn");
}

#[tokio::test]
async fn those_that_never_began_end_with_their_connection() {
    let (client, server) = duplex(1 << 16);
    let (came, begun, first) = (Arc::new(()), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let serving = serve(server, {
        let (came, begun, first) = (Arc::clone(&came), Arc::clone(&begun), Arc::clone(&first));
        move |_| {
            let (came, begun, first) = (Arc::clone(&came), Arc::clone(&begun), Arc::clone(&first));
            async move {
                let _came = came;
                begun.fetch_add(1, Ordering::Relaxed);
                first.notify_one();
                pending().await
            }
        }
    });
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let asked = tokio::spawn(async move { join_all((0..MANY).map(|_| ask(&requests, "/"))).await });
    first.notified().await;
    // This test and the server's service have one each.
    let (came_in, begun) = (Arc::strong_count(&came) - 2, begun.load(Ordering::Relaxed));
    assert!(begun < came_in, "all of {came_in} had begun");
    serving.abort();
    assert_eq!(asked.await.unwrap(), [false; MANY]);
    let gone = async {
        while Arc::strong_count(&came) > 1 {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("requests are kept whose connection is gone");
}

#[tokio::test]
async fn a_request_that_waits_holds_up_no_other_one() {
    let (requests, word, _) = connected().await;
    let waiting = tokio::spawn({
        let requests = requests.clone();
        async move { ask(&requests, "/wait").await }
    });
    for _ in 0..10 {
        assert!(ask(&requests, "/").await);
    }
    assert!(!waiting.is_finished());
    word.add_permits(1);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_panic_ends_its_own_request_and_no_other_one() {
    let (requests, word, _) = connected().await;
    let waiting = tokio::spawn({
        let requests = requests.clone();
        async move { ask(&requests, "/wait").await }
    });
    assert!(!ask(&requests, "/panic").await);
    assert!(ask(&requests, "/").await);
    word.add_permits(1);
    assert!(waiting.await.unwrap());
}
