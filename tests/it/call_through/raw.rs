//! An upstream that answers with whatever bytes a test wants, and keeps what it was sent.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What is sent in answer to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, and then the connection ends.
    Bytes(Vec<u8>),
    /// The first bytes, and then the second again and again, until the other side has had enough.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and then nothing.
    Stall(Vec<u8>),
}

/// The upstream. It ends with the test.
pub struct Raw {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Raw {
    /// An upstream that answers every request in the same way.
    pub async fn answering(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, reply.clone(), Arc::clone(&kept)));
            }
        });
        Self { address, seen, task }
    }

    /// One that answers 200 with these header lines and this body.
    pub async fn saying(fields: &str, body: impl AsRef<[u8]>) -> Self {
        Self::answering(Reply::Bytes(ok(fields, body.as_ref()))).await
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that it was sent, as text.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer of 200.
pub fn ok(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(mut stream: TcpStream, reply: Reply, seen: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read(&mut stream).await else { return };
    seen.lock().push(request);
    // Whoever asked may be gone by now, which is what some tests are about.
    let _ = match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await,
        Reply::Endless(head, more) => {
            let mut written = stream.write_all(&head).await;
            while written.is_ok() {
                written = stream.write_all(&more).await;
            }
            written
        }
        Reply::Stall(bytes) => {
            let _ = stream.write_all(&bytes).await;
            stream.read_u8().await.map(|_| ())
        }
    };
}

/// Reads a request with a body of the length that it names.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
