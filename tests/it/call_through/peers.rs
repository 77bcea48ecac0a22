//! Upstreams that break off, refuse, or fall silent, over HTTP/1 and HTTP/2: what is sent once more, and what is said of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bearerd::proto::{CallThroughRequest, CallThroughResponse, Replay, token_service_client::TokenServiceClient};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use super::{calling, fence::api};
use crate::{
    identity::authority::{Authority, Shown},
    support::{
        AUTHORITIES, Bearerd, PATIENCE, eventually,
        house::{House, reason},
    },
};

/// What an HTTP/2 server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Answers 200.
    Answer,
    /// Answers 200 with so many fields of so many bytes.
    Fields(usize, usize),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY that says that the request was not processed.
    GoAwayBelow,
    /// GOAWAY that says that it may have been, and the end of the connection.
    GoAwayIncluding,
    /// The end of the connection.
    HangUp,
    /// Nothing any more, not even to pings.
    Silence,
}

/// The requests that a server got, each as the number of its connection.
type Requests = Arc<Mutex<Vec<usize>>>;

fn acceptor(shown: &Shown) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// An HTTP/2 server at localhost, and what it got. `act` is asked with the number of the connection and of the request on
/// it, both from 0.
async fn http2(authority: &Authority, act: fn(usize, usize) -> Act) -> (u16, Requests) {
    let (acceptor, listener) = (acceptor(&authority.server()), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                frames(stream, |request| {
                    seen.lock().push(connection);
                    act(connection, request)
                })
                .await
            });
        }
    });
    (port, requests)
}

/// Types of frames (RFC 9113 §6).
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;

/// Frames (RFC 9113 §4.1), and no more of HTTP/2 than these tests need.
async fn frames<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut act: impl FnMut(usize) -> Act,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut requests = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        stream.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes(id);
        if kind == SETTINGS && flags & 1 == 0 {
            stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?;
        } else if kind == PING && flags & 1 == 0 {
            stream.write_all(&frame(PING, 1, 0, &payload)).await?;
        } else if kind == HEADERS {
            let go_away = |last: u32| frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
            match act(requests) {
                Act::Answer => stream.write_all(&frame(HEADERS, 5, id, &[0x88])).await?,
                Act::Fields(number, length) => stream.write_all(&fields(id, number, length)).await?,
                Act::Reset(code) => stream.write_all(&frame(RESET, 0, id, &code.to_be_bytes())).await?,
                Act::GoAwayBelow => stream.write_all(&go_away(id.saturating_sub(2))).await?,
                Act::GoAwayIncluding => {
                    stream.write_all(&go_away(id)).await?;
                    return stream.shutdown().await;
                }
                Act::HangUp => return stream.shutdown().await,
                Act::Silence => loop {
                    stream.read_u8().await?;
                },
            }
            requests += 1;
        }
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &id.to_be_bytes(), payload].concat()
}

/// 200 with fields, as literals without indexing (RFC 7541 §6.2.2), over as many frames as it takes.
fn fields(id: u32, number: usize, length: usize) -> Vec<u8> {
    let mut block = vec![0x88];
    for at in 0..number {
        let name = format!("x-{at:04}");
        block.extend([0, u8::try_from(name.len()).unwrap()]);
        block.extend(name.bytes());
        // A length of 7 bits and more (RFC 7541 §5.1).
        let (mut rest, mut coded) = (length, vec![127]);
        if length < 127 {
            coded = vec![u8::try_from(length).unwrap()];
        } else {
            rest -= 127;
            while rest >= 128 {
                coded.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            coded.push(u8::try_from(rest).unwrap());
        }
        block.extend(coded);
        block.extend(vec![b'v'; length]);
    }
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let last = pieces.len() - 1;
    let piece = |(at, piece): (usize, &&[u8])| {
        let (kind, end_stream) = if at == 0 { (1, 1) } else { (9, 0) };
        frame(kind, end_stream | if at == last { 4 } else { 0 }, id, piece)
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

/// A replica that trusts the authority, with one API at this port.
async fn replica(authority: &str, port: u16, lines: &str) -> (Bearerd, TokenServiceClient<Channel>) {
    let config = format!(
        r#"
        [server]
        listen = "@LISTEN@"
        admin_listen = "@ADMIN@"

        [store]
        path = "@DIR@/bearerd.redb"

        [credentials.demo]
        grant = "static"
        scheme = "bearer"
        secret = {{ file = "@DIR@/secret" }}
        base_url = "https://localhost:{port}"
        {lines}
        "#
    );
    let bearerd = Bearerd::start(&config, &[("secret", "a-static-secret-0123456789"), (AUTHORITIES, authority)]).await;
    let client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    (bearerd, client)
}

async fn call(
    client: &mut TokenServiceClient<Channel>,
    method: &str,
    replay: Replay,
) -> Result<CallThroughResponse, Status> {
    let request = CallThroughRequest { replay: replay.into(), ..calling(method, "/") };
    timeout(PATIENCE, client.call_through(request)).await.unwrap().map(tonic::Response::into_inner)
}

fn cause(status: &Status) -> String {
    status.get_details_error_info().unwrap().metadata.get("cause").cloned().unwrap_or_default()
}

/// C-K3, row 19.
#[tokio::test]
async fn a_request_that_the_protocol_says_was_not_processed_is_sent_again_whatever_it_is() {
    let authority = Authority::new("system");
    let acts: [fn(usize, usize) -> Act; 4] = [
        |connection, _| if connection == 0 { Act::Reset(7) } else { Act::Answer },
        |connection, _| if connection == 0 { Act::GoAwayBelow } else { Act::Answer },
        |connection, request| if connection == 0 && request == 1 { Act::GoAwayBelow } else { Act::Answer },
        |connection, request| if connection == 0 && request == 1 { Act::Reset(7) } else { Act::Answer },
    ];
    for (at, act) in acts.into_iter().enumerate() {
        let (port, requests) = http2(&authority, act).await;
        let (bearerd, mut client) = replica(authority.pem(), port, "").await;
        if at >= 2 {
            assert_eq!(call(&mut client, "GET", Replay::Default).await.unwrap().attempts, 1);
        }
        let before = requests.lock().len();
        let answer = call(&mut client, "POST", Replay::Never).await.unwrap_or_else(|status| {
            panic!("{at}: {status:?} {}", bearerd.log());
        });
        assert_eq!((answer.status, answer.attempts), (200, 2), "{at}");
        assert_eq!(requests.lock().len() - before, 2, "{at}");
    }
}

/// C-K3, and "What surprised a user" 1.
#[tokio::test]
async fn a_server_that_processes_nothing_was_not_acted_upon() {
    let authority = Authority::new("system");
    let (port, requests) = http2(&authority, |_, _| Act::Reset(7)).await;
    let (_bearerd, mut client) = replica(authority.pem(), port, "").await;
    let status = call(&mut client, "POST", Replay::Default).await.unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "UPSTREAM_UNREACHABLE".to_owned(), None));
    assert_eq!(requests.lock().len(), 2);
}

/// C-K3: what may have been processed is not sent again, unless that does no harm.
#[tokio::test]
async fn a_request_that_may_have_been_processed_is_sent_again_only_if_it_is_idempotent_and_its_connection_was_kept() {
    let authority = Authority::new("system");
    type Acts = fn(usize, usize) -> Act;
    let breaks: [(Act, Acts); 2] = [
        (Act::GoAwayIncluding, |connection, request| match (connection, request) {
            (0, 1) => Act::GoAwayIncluding,
            _ => Act::Answer,
        }),
        (Act::HangUp, |connection, request| if (connection, request) == (0, 1) { Act::HangUp } else { Act::Answer }),
    ];
    for (act, acts) in breaks {
        for (method, replay, again) in [
            ("POST", Replay::Default, false),
            ("PATCH", Replay::Default, false),
            ("GET", Replay::Never, false),
            ("GET", Replay::Default, true),
            ("PUT", Replay::Default, true),
        ] {
            let (port, requests) = http2(&authority, acts).await;
            let (bearerd, mut client) = replica(authority.pem(), port, "").await;
            call(&mut client, "GET", Replay::Default).await.unwrap();
            match call(&mut client, method, replay).await {
                Ok(answer) => assert_eq!((answer.attempts, again), (2, true), "{act:?} {method}"),
                Err(status) => {
                    assert!(!again, "{act:?} {method} {status:?} {}", bearerd.log());
                    assert_eq!(reason(&status).1, "UPSTREAM_NO_ANSWER", "{act:?} {method}");
                    assert_eq!(cause(&status), "CONNECTION_BROKEN");
                }
            }
            assert_eq!(requests.lock().len(), if again { 3 } else { 2 }, "{act:?} {method} {replay:?}");
        }
    }
    // Another error of the stream says nothing.
    let (port, requests) = http2(&authority, |_, _| Act::Reset(2)).await;
    let (bearerd, mut client) = replica(authority.pem(), port, "").await;
    let status = call(&mut client, "GET", Replay::Default).await.unwrap_err();
    assert_eq!((reason(&status).1.as_str(), requests.lock().len()), ("UPSTREAM_NO_ANSWER", 1));
    eventually(PATIENCE, async || bearerd.log().contains("stream error")).await;
}

/// C-K4, row 20.
#[tokio::test]
async fn after_a_timeout_the_next_call_gets_a_connection_of_its_own() {
    let authority = Authority::new("system");
    let act = |connection, request| if connection == 0 && request > 0 { Act::Silence } else { Act::Answer };
    let (port, requests) = http2(&authority, act).await;
    let (_bearerd, mut client) = replica(authority.pem(), port, "call_timeout = \"1s\"").await;
    call(&mut client, "GET", Replay::Default).await.unwrap();
    let status = call(&mut client, "GET", Replay::Default).await.unwrap_err();
    assert_eq!((reason(&status).1.as_str(), cause(&status).as_str()), ("UPSTREAM_NO_ANSWER", "TIMED_OUT"));
    for _ in 0..3 {
        assert_eq!(call(&mut client, "GET", Replay::Default).await.unwrap().attempts, 1);
    }
    assert_eq!(*requests.lock(), [0, 0, 1, 1, 1]);
}

/// C-K4, row 20: within 20 s and 10 s, and not when the call's own time is over.
#[tokio::test]
async fn a_connection_that_does_not_answer_pings_is_left() {
    let authority = Authority::new("system");
    let act = |connection, request| if connection == 0 && request > 0 { Act::Silence } else { Act::Answer };
    let (port, requests) = http2(&authority, act).await;
    let (bearerd, mut client) = replica(authority.pem(), port, "call_timeout = \"10m\"").await;
    call(&mut client, "GET", Replay::Default).await.unwrap();
    let began = Instant::now();
    let (mut other, long) = (client.clone(), Duration::from_secs(120));
    let (post, get) = tokio::join!(
        timeout(long, client.call_through(calling("POST", "/"))),
        timeout(long, other.call_through(calling("GET", "/"))),
    );
    let (status, answer) = (post.unwrap().unwrap_err(), get.unwrap());
    assert_eq!(cause(&status), "CONNECTION_BROKEN", "{}", bearerd.log());
    assert_eq!(answer.unwrap().into_inner().attempts, 2, "{}", bearerd.log());
    assert!(began.elapsed() >= Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(*requests.lock(), [0, 0, 1]);
}

/// C-K1, row 16, over HTTP/2.
#[tokio::test]
async fn a_thousand_fields_and_64_kib_of_them_are_passed_on_over_http2() {
    let authority = Authority::new("system");
    let act = |_, request| if request == 0 { Act::Fields(990, 1) } else { Act::Fields(60, 1024) };
    let (port, _) = http2(&authority, act).await;
    let (bearerd, mut client) = replica(authority.pem(), port, "").await;
    for count in [990, 60] {
        let answer = call(&mut client, "GET", Replay::Default).await;
        assert_eq!(answer.unwrap_or_else(|status| panic!("{status:?} {}", bearerd.log())).headers.len(), count);
    }
}

/// "What surprised a user" 1 and 2: a refused handshake is no call that may have been acted upon, and bearerd's own line
/// says why it failed.
#[tokio::test]
async fn a_failed_handshake_is_unreachable_and_the_log_says_why() {
    let (authority, other) = (Authority::new("system"), Authority::new("other"));
    // A server that asks for a certificate of the client. Over TLS 1.3 its refusal comes after the request.
    let shown = authority.server();
    let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier.unwrap()).with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    for (authorities, why) in
        [(authority.pem(), "refused the TLS handshake"), (other.pem(), "invalid peer certificate")]
    {
        let (bearerd, mut client) = replica(authorities, port, "").await;
        let status = call(&mut client, "GET", Replay::Default).await.unwrap_err();
        assert_eq!(reason(&status).1, "UPSTREAM_UNREACHABLE", "{}", bearerd.log());
        let names_it = |line: &str| line.contains("UPSTREAM_UNREACHABLE") && line.contains(why);
        eventually(PATIENCE, async || bearerd.log().lines().any(names_it)).await;
    }
}

/// An HTTP/1 server that answers the first request of its first connection and closes it when it has read the second one.
async fn http1() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut stream = stream;
                for request in 0.. {
                    if !read_head(&mut stream).await {
                        return;
                    }
                    seen.fetch_add(1, Ordering::SeqCst);
                    if (connection, request) == (0, 1) {
                        return;
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (url, requests)
}

async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// C-K3, row 18.
#[tokio::test]
async fn a_kept_connection_that_closes_costs_no_idempotent_call() {
    for (method, replay, again) in [
        ("GET", Replay::Default, true),
        ("HEAD", Replay::Default, true),
        ("OPTIONS", Replay::Default, true),
        ("PUT", Replay::Default, true),
        ("DELETE", Replay::Default, true),
        ("POST", Replay::Default, false),
        ("PATCH", Replay::Default, false),
        ("GET", Replay::Never, false),
    ] {
        let (url, requests) = http1().await;
        let house = House::with(&api(&url, "")).await;
        house.call("demo", "/").await.unwrap();
        let request = CallThroughRequest { replay: replay.into(), ..calling(method, "/") };
        match house.call_whole(request).await {
            Ok(answer) => assert_eq!((answer.status, answer.attempts, again), (200, 2, true), "{method}"),
            Err(status) => {
                assert!(!again, "{method} {status:?}");
                assert_eq!(reason(&status).1, "UPSTREAM_NO_ANSWER", "{method}");
                assert_eq!(cause(&status), "CONNECTION_BROKEN");
            }
        }
        assert_eq!(requests.load(Ordering::SeqCst), if again { 3 } else { 2 }, "{method} {replay:?}");
    }
}

/// Nothing was sent before there was a connection.
#[tokio::test]
async fn a_server_that_never_finishes_the_handshake_was_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let house = House::with(&api(&url, "call_timeout = \"1s\"")).await;
    let status = house.call("demo", "/").await.unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "UPSTREAM_UNREACHABLE".to_owned(), None));
}

/// C-K1: an API that refuses a body without reading it, and ends the connection.
#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_read_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 413 x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        }
    });
    let house = House::with(&api(&url, "")).await;
    for _ in 0..10 {
        let body = vec![b'a'; 4 << 20].into();
        let answer = house.call_whole(CallThroughRequest { body, ..calling("POST", "/") }).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (413, &b"much"[..]));
    }
}
