//! A network that loses an answer on cue: what stands between bearerd and a provider.

use std::{io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// A proxy for TCP. It ends with the test.
pub struct Proxy {
    address: SocketAddr,
    cue: Arc<Mutex<Option<Cue>>>,
}

/// What becomes of an answer that the provider has given.
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
        let proxy = Self { address: listener.local_addr().unwrap(), cue: Arc::default() };
        let cue = Arc::clone(&proxy.cue);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, upstream, Arc::clone(&cue)));
            }
        });
        proxy
    }

    /// Where it listens, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Once: when the server answers, the connection ends without one byte of it.
    pub fn lose_next_answer(&self) {
        *self.cue.lock() = Some(Cue::Lose);
    }

    /// Once: when the server answers, nothing comes of it, and the connection stays open.
    pub fn hold_next_answer(&self) {
        *self.cue.lock() = Some(Cue::Hold);
    }
}

async fn forward(client: TcpStream, upstream: SocketAddr, cue: Arc<Mutex<Option<Cue>>>) -> io::Result<()> {
    let (mut requests, mut answers) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(upstream).await?.into_split();
    tokio::spawn(async move { copy(&mut requests, &mut to_server).await });
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = from_server.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let cue = cue.lock().take();
        match cue {
            Some(Cue::Lose) => return Ok(()),
            Some(Cue::Hold) => std::future::pending().await,
            None => answers.write_all(&buffer[..length]).await?,
        }
    }
}
