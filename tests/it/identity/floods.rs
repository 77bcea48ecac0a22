//! Floods of frames that ask for nothing and want an answer: they cost whoever sends them, and nobody else.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Endpoint;

use super::{Client, configuration, connections::GREETING};
use crate::support::{Bearerd, PATIENCE, eventually};

/// A ping (RFC 9113 §6.7), and an answer to one that was never sent.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0flooding";
const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0flooding";

/// Settings (RFC 9113 §6.5), each frame of which has to be answered.
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff";

/// A stream's place in an order (RFC 9113 §5.3.2), which nobody has to care for.
const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x01";

/// The memory of a process that is not shared and not on disk, in bytes.
fn memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn case_31_floods_of_pings_hold_up_nobody_and_fill_neither_memory_nor_log() {
    const MOST: u64 = 64 << 20;
    let lines = "listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n";
    let config = configuration("local", lines).replace("{ env = \"S\" }", "{ file = \"@DIR@/s\" }");
    let mut bearerd = Bearerd::start(&config, &[("s", "hunter2")]).await;
    let client = Client::new(Endpoint::from_shared(bearerd.grpc()).unwrap().connect().await.unwrap());
    client.get().await.unwrap();
    let before = memory(bearerd.process().id());
    let address = bearerd.grpc().trim_start_matches("http://").to_owned();
    for (what, frame, is_read) in [
        ("pings whose answers are read", PING, true),
        ("pings whose answers are not read", PING, false),
        ("answers to no ping", PONG, false),
        ("settings that are not read", SETTINGS, false),
        ("priorities", PRIORITY, false),
    ] {
        let (mut hears, mut speaks) = TcpStream::connect(&address).await.unwrap().into_split();
        speaks.write_all(GREETING).await.unwrap();
        let flood = frame.repeat(1000);
        // It goes on until the server ends the connection, takes nothing more, or this test is done.
        let speaking = tokio::spawn(async move { while speaks.write_all(&flood).await.is_ok() {} });
        let reading = tokio::spawn(async move {
            let mut said = vec![0; 1 << 16];
            while is_read && hears.read(&mut said).await.is_ok_and(|read| read > 0) {}
            hears
        });
        for _ in 0..50 {
            client.get().await.expect(what);
        }
        let now = memory(bearerd.process().id());
        assert!(now < before + MOST, "{what}: {before} bytes became {now}");
        speaking.abort();
        reading.abort();
    }
    eventually(PATIENCE, async || bearerd.metric("bearerd_connections").await <= 1.0).await;
    assert!(!bearerd.log().contains("never sent"), "{}", bearerd.log());
}
