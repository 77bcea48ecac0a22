//! Connections that are too many, too slow or too old.

use std::{io, process::Command, time::Duration};

use bearerd::{
    proto::{GetTokenRequest, token_service_client::TokenServiceClient},
    sandbox::{DEMO_SECRET, Options, Sandbox},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    time::timeout,
};
use tonic::transport::Endpoint;

use super::{Client, Door, authority::Authority, configuration};
use crate::support::{PATIENCE, Process, eventually};

/// What a client says first (RFC 9113 §3.4): the preface and empty settings.
pub const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Whether a server takes its leave (GOAWAY, RFC 9113 §6.8) before it hangs up. Its pings are answered, since it waits for
/// that, and nothing else is said.
pub async fn says_goodbye(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let mut said = false;
    while let Ok((kind, flags, payload)) = frame(&mut stream).await {
        said |= kind == GOAWAY;
        if kind == PING && flags == 0 {
            let answer = [[0, 0, 8, PING, 1, 0, 0, 0, 0].as_slice(), &payload].concat();
            // It may have hung up by now.
            let _ = stream.write_all(&answer).await;
        }
    }
    said
}

async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("the connection goes on")?;
    let [a, b, c, kind, flags, ..] = head;
    let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, payload))
}

async fn connect(door: &Door) -> TcpStream {
    TcpStream::connect(("127.0.0.1", door.port())).await.unwrap()
}

/// What a server says until it hangs up.
async fn all_of(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // Reset or closed, it is over either way.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection goes on");
    said
}

#[tokio::test]
async fn case_28_an_old_connection_is_asked_to_go() {
    let door = Door::open("local", "max_connection_age = \"1s\"\n", &[]).await;
    let mut stream = connect(&door).await;
    stream.write_all(GREETING).await.unwrap();
    assert!(says_goodbye(stream).await);
    door.plain().await.get().await.unwrap();
}

/// A connection whose client has begun to speak.
async fn greeted(door: &Door) -> TcpStream {
    let mut stream = connect(door).await;
    stream.write_all(GREETING).await.unwrap();
    stream.read_u8().await.unwrap();
    stream
}

#[tokio::test]
async fn case_31_more_connections_than_allowed_are_closed_at_once() {
    let door = Door::open("local", "max_connections = 2\n", &[]).await;
    let held = [greeted(&door).await, greeted(&door).await];
    assert!(door.metrics().await.contains("bearerd_connections 2"));
    assert_eq!(all_of(connect(&door).await).await, b"");
    assert!(door.metrics().await.contains("bearerd_connections_refused_total{cause=\"limit\"} 1"));
    drop(held);
    eventually(PATIENCE, async || door.metrics().await.contains("bearerd_connections 0")).await;
    door.plain().await.get().await.unwrap();
}

#[tokio::test]
async fn case_31_those_who_say_nothing_get_half_of_the_connections() {
    let door = Door::open("local", "max_connections = 4\n", &[]).await;
    let client = door.plain().await;
    client.get().await.unwrap();
    let held = [connect(&door).await, connect(&door).await];
    eventually(PATIENCE, async || door.metrics().await.contains("bearerd_connections 3")).await;
    assert_eq!(all_of(connect(&door).await).await, b"");
    assert!(door.metrics().await.contains("bearerd_connections_refused_total{cause=\"handshakes\"} 1"));
    client.get().await.expect("whoever is there goes on");
    drop(held);
    eventually(PATIENCE, async || door.metrics().await.contains("bearerd_connections 1")).await;
    greeted(&door).await;
}

#[tokio::test]
async fn case_31_silent_peers_hold_up_nobody_and_are_cut_off() {
    let authority = Authority::new("acme");
    let server = authority.server();
    let tls = "[server.tls]\ncertificate = { file = \"@DIR@/tls.crt\" }\nkey = { file = \"@DIR@/tls.key\" }\n";
    let door = Door::open("local", tls, &[("tls.crt", &server.certificate), ("tls.key", &server.key)]).await;
    let mut half_open = Vec::new();
    for said in [b"".as_slice(), b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"].repeat(100) {
        let mut stream = connect(&door).await;
        stream.write_all(said).await.unwrap();
        half_open.push(stream);
    }
    door.encrypted(&authority, None).get().await.unwrap();
    for one_of_each in half_open.drain(..3) {
        all_of(one_of_each).await;
    }
    drop(half_open);
    eventually(PATIENCE, async || {
        // The client of this test has one.
        let few = ["bearerd_connections 0", "bearerd_connections 1"];
        door.metrics().await.lines().any(|line| few.contains(&line))
    })
    .await;
}

/// `bearerd serve` with this caller and these lines of `[server]`, under a limit of open files: `-n` sets both, `-Sn` the soft
/// one. What it was asked is in `@DIR@`.
fn limited(limit: &str, directory: &std::path::Path, caller: &str, lines: &str) -> Process {
    let text = configuration(caller, lines).replace("@DIR@", directory.to_str().unwrap());
    let file = directory.join("bearerd.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$0\" serve --config \"$1\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_bearerd")]).arg(&file);
    Process::start(command.env("S", "hunter2"))
}

#[tokio::test]
async fn case_31_a_process_without_room_waits_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bearerd.sock");
    // There are always places for some clients, and here not as many descriptors.
    let lines = "unix_socket = \"@DIR@/bearerd.sock\"\n# listen\n";
    let mut process = limited("-n 20", directory.path(), "uid:*", lines);
    eventually(PATIENCE, async || process.err().contains("bearerd is ready")).await;

    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(UnixStream::connect(&socket).await.unwrap());
    }
    eventually(PATIENCE, async || process.err().contains("no connection can be taken at the moment")).await;
    drop(held);
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    let client = Client::new(endpoint.connect_timeout(Duration::from_secs(30)).connect_lazy());
    eventually(PATIENCE, async || client.get().await.is_ok()).await;
    assert!(process.ended().is_none());
}

/// S10: 1,100 connections under a soft limit of 1,024 files, and no provider could be reached. `-Sn` leaves the hard limit as it
/// is, so that the process can help itself; under `-n` it has to make do.
#[tokio::test]
async fn case_31_however_many_connections_there_are_providers_are_reached() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let credential = format!(
        "---\n[[allow]]\ncaller = \"local\"\ncredentials = [\"cc\"]\nactions = [\"get\"]\n[credentials.cc]\n\
         grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"demo-confidential\"\n\
         client_secret = {{ file = \"secret\" }}\n",
        sandbox.token_url()
    );
    let enough = Rlimit { current: Some(4096), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, enough).expect("this test needs 4096 open files");
    for limit in ["-n 1024", "-Sn 1024"] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), DEMO_SECRET).unwrap();
        let mut process = limited(limit, directory.path(), "local", &credential);
        eventually(PATIENCE, async || process.err().contains("bearerd is ready")).await;
        assert_eq!(
            process.err().contains("server.max_connections cannot be reached"),
            limit == "-n 1024",
            "{process:?}"
        );
        let port = logged(&process.err(), "grpc=");
        let endpoint = Endpoint::from_shared(format!("http://{port}")).unwrap();
        let mut tokens = TokenServiceClient::new(endpoint.connect().await.unwrap());

        let mut held = Vec::new();
        for number in (0..8).cycle().take(1100) {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 2 + number], 0).into()).unwrap();
            let mut stream = socket.connect(port.parse().unwrap()).await.unwrap();
            // It may have been closed at once.
            let _ = stream.write_all(GREETING).await;
            held.push(stream);
        }
        let request = GetTokenRequest { credential: "cc".to_owned(), ..GetTokenRequest::default() };
        tokens.get_token(request).await.unwrap_or_else(|status| panic!("{limit}: {status:?} {process:?}"));
        assert!(!process.err().contains("no connection can be taken"), "{process:?}");
        assert!(process.ended().is_none());
    }
}

/// The value of a field in a log.
fn logged(log: &str, field: &str) -> String {
    let value = log.split(field).nth(1).unwrap_or_else(|| panic!("no {field} in {log}"));
    value.split_whitespace().next().unwrap().to_owned()
}

/// A frame (RFC 9113 §4.1).
fn one_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Frames for each of many streams.
fn many(frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..3000).flat_map(|number| frames(2 * number + 1)).collect()
}

/// `POST / HTTP/2` by indices of the static table (RFC 7541, appendix A).
const REQUEST: &[u8] = &[0x83, 0x86, 0x84];

const END_STREAM: u8 = 1;

const END_HEADERS: u8 = 4;

#[tokio::test]
async fn case_29_floods_of_frames_end_their_own_connection_only() {
    let [data, headers, reset, continuation] = [0, 1, 3, 9];
    const FIELD: &[u8] = b"\0\x01x\x01y";
    let door = Door::open("local", "", &[]).await;
    let client = door.plain().await;
    client.get().await.unwrap();
    let open = |stream| one_frame(headers, END_HEADERS | END_STREAM, stream, REQUEST);
    for (what, flood) in [
        (
            "requests that are taken back",
            many(|stream| [open(stream), one_frame(reset, 0, stream, &[0, 0, 0, 8])].concat()),
        ),
        ("requests that have to be reset", many(|stream| [open(stream), one_frame(data, 0, stream, b"x")].concat())),
        (
            "header fields without end",
            [one_frame(headers, END_STREAM, 1, REQUEST), many(|_| one_frame(continuation, 0, 1, FIELD))].concat(),
        ),
    ] {
        let (mut hears, mut speaks) = connect(&door).await.into_split();
        // It hangs up before it has heard everything.
        let speaking =
            tokio::spawn(async move { speaks.write_all(&[GREETING, &flood].concat()).await.map(|()| speaks) });
        let mut said = Vec::new();
        let _ = timeout(PATIENCE, hears.read_to_end(&mut said)).await.expect(what);
        drop(speaking.await.unwrap());
        client.get().await.expect(what);
    }
}

#[tokio::test]
async fn case_29_requests_on_one_connection_are_bounded() {
    const MAX_CONCURRENT_STREAMS: u8 = 3;
    let door = Door::open("local", "max_concurrent_streams = 7\n", &[]).await;
    let mut stream = connect(&door).await;
    stream.write_all(GREETING).await.unwrap();
    let (_, _, settings) = frame(&mut stream).await.unwrap();
    assert!(settings.chunks(6).any(|setting| setting == [0, MAX_CONCURRENT_STREAMS, 0, 0, 0, 7]), "{settings:?}");
}
