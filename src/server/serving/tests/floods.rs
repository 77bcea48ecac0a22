//! What a connection can make the server keep for it, on a clock that stands still while anything happens.

use std::{future::ready, time::Duration};

use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};
use tonic::body::Body;

use super::{
    super::{KEEPALIVE, KEEPALIVE_TIMEOUT},
    serve,
};
use crate::server::connection::UNREAD;

/// What the pipe to a client holds in each direction, in bytes.
const PIPE: usize = 4096;

/// What a client says first (RFC 9113 §3.4): the preface and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A ping (RFC 9113 §6.7), which has to be answered.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0flooding";

/// Settings of which each frame has to be answered (RFC 9113 §6.5).
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff";

/// An answer to a ping that was never sent.
const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0flooding";

/// A stream's place in an order (RFC 9113 §5.3.2), which nobody has to care for.
const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x01";

/// The client's end of a connection that has begun.
async fn greeted() -> DuplexStream {
    let (mut client, server) = duplex(PIPE);
    serve(server, |_| ready(Ok(Response::new(Body::empty()))));
    client.write_all(GREETING).await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn case_31_a_flood_whose_answers_nobody_reads_is_not_read_either_and_ends() {
    for frame in [PING, SETTINGS] {
        let mut client = greeted().await;
        let mut taken = 0;
        // Time passes only when everybody waits for somebody else.
        while let Ok(written) = timeout(Duration::from_secs(1), client.write(&frame[taken % frame.len()..])).await {
            taken += written.unwrap();
        }
        assert!(taken < 64 << 10, "{taken} bytes were taken, of which the pipe holds {PIPE}");
        let ended = timeout(2 * UNREAD, client.write_all(&frame[taken % frame.len()..])).await;
        assert!(matches!(ended, Ok(Err(_))), "whoever does not take what it is sent is cut off: {ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_31_a_flood_of_frames_that_ask_for_nothing_ends_its_connection() {
    for frame in [PING, PONG, SETTINGS, PRIORITY] {
        let (mut hears, mut speaks) = tokio::io::split(greeted().await);
        let reading = tokio::spawn(async move { tokio::io::copy(&mut hears, &mut tokio::io::sink()).await });
        let mut sent = 0;
        while speaks.write_all(frame).await.is_ok() {
            sent += 1;
        }
        assert!((5_000..50_000).contains(&sent), "{sent} frames were taken");
        // Reset or closed, it is over either way.
        let _ = reading.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn case_31_whoever_pings_but_does_not_answer_pings_is_cut_off() {
    let (mut hears, mut speaks) = tokio::io::split(greeted().await);
    let speaking = tokio::spawn(async move {
        while speaks.write_all(PING).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let began = Instant::now();
    let mut heard = Vec::new();
    // Reset or closed, it is over either way.
    let _ = timeout(Duration::from_secs(60 * 60), hears.read_to_end(&mut heard)).await.expect("it goes on");
    assert!(began.elapsed() <= KEEPALIVE + 2 * KEEPALIVE_TIMEOUT, "{:?}", began.elapsed());
    assert!(heard.windows(8).filter(|bytes| *bytes == b"flooding").count() > 10, "its pings were answered until then");
    speaking.await.unwrap();
}
