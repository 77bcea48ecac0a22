//! A network that fails on cue: what stands between bearerd and a provider, or between bearerd and Redis.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use url::Url;

use super::{PATIENCE, eventually};

/// A proxy for TCP. It ends with the test.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From bearerd to the server.
    There,
    /// From the server to bearerd.
    Back,
}

/// What becomes of the bytes of one direction, on connections that stand and on new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive so much later.
    Late(Duration),
    /// They arrive when the flow changes, as after a cable was plugged in again.
    Hold,
    /// They are gone. A connection with such a hole is reset as soon as bytes could pass it again.
    Swallow,
}

#[derive(Default)]
struct Network {
    there: watch::Sender<Flow>,
    back: watch::Sender<Flow>,
    cue: Mutex<Option<Cue>>,
    losses: AtomicUsize,
    carried: Mutex<Vec<u8>>,
    resets: watch::Sender<()>,
    shut: watch::Sender<bool>,
    listening: watch::Sender<bool>,
}

/// What becomes of an answer that the server has given.
#[derive(Clone, Copy)]
enum Cue {
    Lose,
    Hold,
}

impl Proxy {
    /// Starts a proxy in front of a server.
    pub async fn start(upstream: &str) -> Self {
        let upstream = Url::parse(upstream).unwrap().socket_addrs(|| None).unwrap()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), network: Arc::default() };
        proxy.network.listening.send_replace(true);
        tokio::spawn(listen(listener, upstream, Arc::clone(&proxy.network)));
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says what becomes of the bytes of one direction from now on.
    pub fn set(&self, way: Way, flow: Flow) {
        self.network.flow(way).send_replace(flow);
    }

    /// Says it for both directions.
    pub fn set_both(&self, flow: Flow) {
        self.set(Way::There, flow);
        self.set(Way::Back, flow);
    }

    /// Resets every connection, now.
    pub fn reset(&self) {
        self.network.resets.send_replace(());
    }

    /// From now on nobody listens. Connections that stand go on.
    pub async fn refuse(&self) {
        self.network.shut.send_replace(true);
        self.network.listens(false).await;
    }

    /// From now on all is well.
    pub async fn heal(&self) {
        *self.network.cue.lock() = None;
        self.set_both(Flow::Pass);
        self.network.shut.send_replace(false);
        self.network.listens(true).await;
    }

    /// Once: when the server answers, the connection ends without one byte of it.
    pub fn lose_next_answer(&self) {
        *self.network.cue.lock() = Some(Cue::Lose);
    }

    /// Once: when the server answers, nothing comes of it, and the connection stays open.
    pub fn hold_next_answer(&self) {
        *self.network.cue.lock() = Some(Cue::Hold);
    }

    /// Whether these words came along on their way to the server, since the proxy was started.
    pub fn carried(&self, words: &str) -> bool {
        memchr::memmem::find(&self.network.carried.lock(), words.as_bytes()).is_some()
    }

    /// How often bytes were lost for good.
    pub fn losses(&self) -> usize {
        self.network.losses.load(Ordering::Relaxed)
    }
}

impl Network {
    fn flow(&self, way: Way) -> &watch::Sender<Flow> {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    async fn listens(&self, whether: bool) {
        self.listening.subscribe().wait_for(|listening| *listening == whether).await.unwrap();
    }
}

async fn listen(mut listener: TcpListener, upstream: SocketAddr, network: Arc<Network>) {
    let address = listener.local_addr().unwrap();
    let mut shut = network.shut.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(forward(client, upstream, Arc::clone(&network)));
                continue;
            }
            _ = shut.wait_for(|shut| *shut) => drop(listener),
        }
        network.listening.send_replace(false);
        shut.wait_for(|shut| !*shut).await.unwrap();
        listener = bind_again(address).await;
        network.listening.send_replace(true);
    }
}

/// Somebody's outgoing connection may have the port for a moment.
async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn forward(mut client: TcpStream, upstream: SocketAddr, network: Arc<Network>) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let mut resets = network.resets.subscribe();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // One side may have no more to say, and still be listening.
    let there = pump(from_client, to_server, Way::There, &network);
    let back = pump(from_server, to_client, Way::Back, &network);
    let ended = tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(drop),
        _ = resets.changed() => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if ended.is_err() {
        // Without lingering, the end of a connection is a reset.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Carries bytes until one side ends, or, with an error, until the connection is to be reset.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    network: &Network,
) -> io::Result<()> {
    let mut flow = network.flow(way).subscribe();
    let mut buffer = [0; 16 * 1024];
    let mut hole = false;
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => read?,
            _ = flow.wait_for(|flow| hole && *flow != Flow::Swallow) => 0,
        };
        if hole && *flow.borrow() != Flow::Swallow {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if length == 0 {
            return to.shutdown().await;
        }
        if way == Way::There {
            network.carried.lock().extend_from_slice(&buffer[..length]);
        }
        let cue = if way == Way::Back { network.cue.lock().take() } else { None };
        if let Some(cue) = cue {
            network.losses.fetch_add(1, Ordering::Relaxed);
            return match cue {
                Cue::Lose => Err(io::ErrorKind::ConnectionAborted.into()),
                Cue::Hold => std::future::pending().await,
            };
        }
        let now = *flow.borrow();
        match now {
            Flow::Pass => {}
            Flow::Late(delay) => sleep(delay).await,
            Flow::Hold => drop(flow.wait_for(|flow| *flow != Flow::Hold).await),
            Flow::Swallow => {
                network.losses.fetch_add(1, Ordering::Relaxed);
                hole = true;
                continue;
            }
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// A connection through a proxy to a server that sends everything back.
async fn through() -> (Proxy, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&format!("tcp://{}", server.local_addr().unwrap())).await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, client)
}

async fn echo(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"x").await?;
    let mut byte = [0];
    client.read_exact(&mut byte).await.map(drop)
}

#[tokio::test]
async fn bytes_pass_come_late_or_wait() {
    let (proxy, mut client) = through().await;
    for flow in [Flow::Pass, Flow::Late(Duration::from_millis(1))] {
        proxy.set_both(flow);
        echo(&mut client).await.unwrap();
    }
    for way in [Way::There, Way::Back] {
        proxy.set(way, Flow::Hold);
        client.write_all(b"x").await.unwrap();
        assert!(client.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        proxy.heal().await;
        client.read_exact(&mut [0]).await.unwrap();
    }
    assert_eq!(proxy.losses(), 0);
    assert!(proxy.carried("xxxx") && !proxy.carried("y"));
}

#[tokio::test]
async fn a_connection_that_lost_bytes_is_reset_when_the_network_is_well_again() {
    for way in [Way::There, Way::Back] {
        let (proxy, mut client) = through().await;
        proxy.set(way, Flow::Swallow);
        client.write_all(b"x").await.unwrap();
        eventually(PATIENCE, async || proxy.losses() == 1).await;
        proxy.heal().await;
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{way:?}");
        echo(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn connections_are_reset_and_refused() {
    let (proxy, mut client) = through().await;
    echo(&mut client).await.unwrap();
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    echo(&mut client).await.unwrap();
    proxy.reset();
    assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.heal().await;
    echo(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
}
