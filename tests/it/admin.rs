//! The port of probes and metrics, which asks nobody who they are: no client of it holds up a probe or fills the memory.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::{
    identity::configuration,
    support::{
        Bearerd, PATIENCE, eventually,
        house::{House, ROTATING},
    },
};

/// What a process is allowed to grow by under a flood, in bytes.
const MOST: u64 = 32 << 20;

async fn bearerd() -> Bearerd {
    let lines = "listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n";
    let config = configuration("local", lines).replace("{ env = \"S\" }", "{ file = \"@DIR@/s\" }");
    Bearerd::start(&config, &[("s", "hunter2")]).await
}

fn admin(bearerd: &Bearerd) -> SocketAddr {
    bearerd.admin().trim_start_matches("http://").parse().unwrap()
}

/// A connection from an address of the attacker's own.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// The memory of a process that is not shared and not on disk, in bytes.
fn memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What the server says until it hangs up, and how long that took.
async fn said(mut stream: TcpStream) -> (String, Duration) {
    let (began, mut said) = (Instant::now(), Vec::new());
    // Reset or closed, it is over either way.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection goes on");
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

/// S5: 600 unfinished requests of 390 KB took 285 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_the_admin_port_hold_up_no_probe_and_fill_no_memory() {
    let mut bearerd = bearerd().await;
    let (to, id) = (admin(&bearerd), bearerd.process().id());
    let before = memory(id);
    let header = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(390_000));
    let body = format!("POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n{}", "z".repeat(390_000));
    for (what, text) in [("header fields without end", header), ("a body", body), ("nothing", String::new())] {
        let mut held = Vec::new();
        for _ in 0..600 {
            let (mut stream, text) = (connect(to).await, text.clone());
            held.push(tokio::spawn(async move {
                // It is cut off, or the server does not read on.
                let _ = stream.write_all(text.as_bytes()).await;
                std::future::pending::<()>().await;
            }));
        }
        for path in ["livez", "readyz", "metrics"] {
            let answer = reqwest::get(format!("{}/{path}", bearerd.admin())).await.expect(what);
            assert_eq!(answer.status(), 200, "{what}: {path}");
        }
        let now = memory(id);
        assert!(now < before + MOST, "{what}: {before} bytes became {now}");
        held.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert!(bearerd.metric("bearerd_connections_refused_total{cause=\"admin\"}").await > 0.0);
}

/// S5.
#[tokio::test]
async fn a_request_to_the_admin_port_has_seconds_and_no_body() {
    let bearerd = bearerd().await;
    let to = admin(&bearerd);
    let (mut silent, mut begun, mut slow) = (connect(to).await, connect(to).await, connect(to).await);
    begun.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let trickle = async {
        while slow.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let cut_off = async {
        let mut buffer = [0; 256];
        let _ = tokio::join!(silent.read(&mut buffer), async { said(begun).await }, trickle);
    };
    timeout(PATIENCE, cut_off).await.expect("a client that sends no request is cut off");

    for body in ["content-length: 1\r\n\r\nx", "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"] {
        let mut stream = connect(to).await;
        stream.write_all(format!("GET /livez HTTP/1.1\r\nhost: x\r\n{body}").as_bytes()).await.unwrap();
        let (answer, _) = said(stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let mut stream = connect(to).await;
    stream.write_all(format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000)).as_bytes()).await.unwrap();
    assert!(!said(stream).await.0.contains("200"));
    let mut stream = connect(to).await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (answer, took) = said(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(took < Duration::from_secs(4), "the server ends the connection after its one request");
}

/// S5.
#[tokio::test]
async fn an_address_has_a_share_of_the_admin_port() {
    let bearerd = bearerd().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(connect(admin(&bearerd)).await);
    }
    let refused = "bearerd_connections_refused_total{cause=\"admin\"}";
    eventually(PATIENCE, async || bearerd.metric(refused).await >= 68.0).await;
}

/// LOW 20: metrics name credentials.
#[tokio::test]
async fn metrics_are_served_by_choice_and_probes_to_everybody() {
    let house = House::served([127, 0, 0, 1].into(), "plaintext = true\nmetrics = false", &[], ROTATING).await;
    for (path, status) in [("metrics", 404), ("livez", 200), ("readyz", 200)] {
        let answer = reqwest::get(format!("http://{}/{path}", house.admin())).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}
