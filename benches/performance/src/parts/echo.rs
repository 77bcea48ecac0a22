//! The least that a gRPC server written with tonic does: it decodes a text and answers with another one, both as long
//! as bearerd's messages. It is this same program, started once more, with the system's allocator or with bearerd's.

use std::{
    convert::Infallible,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
    transport::{Certificate, Channel, Identity, Server as Tonic, ServerTlsConfig, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::{
    Answered, How, Server, Sizes,
    certificates::Certificates,
    child::{Child, tell},
};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// What an echo allocates with.
#[derive(Clone, Copy, Debug)]
pub enum Allocator {
    /// glibc's, as a program has it that asks for no other.
    System,
    /// bearerd's.
    Jemalloc,
}

/// What tables call the second one.
pub const JEMALLOC: &str = "the same echo with bearerd's allocator";

impl Allocator {
    fn program(self, bench: &Bench) -> Result<PathBuf, Error> {
        match self {
            Self::System => bench.itself(),
            Self::Jemalloc => bench.itself_with_jemalloc(),
        }
    }
}

/// A running echo.
pub struct Echo {
    child: Child,
    scheme: &'static str,
    request: Vec<u8>,
}

impl Echo {
    /// Starts one for messages of these sizes; with certificates, it asks callers for theirs.
    pub fn start(
        bench: &Bench,
        how: &How,
        allocator: Allocator,
        sizes: Sizes,
        tls: Option<&Certificates>,
    ) -> Result<Self, Error> {
        let request = Text::that_takes(sizes.request)?.encode_to_vec();
        let mut command = how.command(bench, &allocator.program(bench)?.to_string_lossy());
        command.args(["serve-echo", &sizes.response.to_string()]).args(tls.map(Certificates::directory));
        let child = Child::start(&mut command, "the echo")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self { child, scheme, request })
    }

    /// Where it listens, with the scheme.
    pub fn address(&self) -> String {
        format!("{}://{}", self.scheme, self.child.address)
    }
}

impl Server for Echo {
    fn url(&self) -> String {
        format!("{}{PATH}", self.address())
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        vec![self.request.clone()]
    }

    fn answered(&self) -> Result<Answered, Error> {
        let well = self.child.ask()?.parse().map_err(|_| failed("the echo gave no number"))?;
        Ok(Answered { well, ..Answered::default() })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.child.process.cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.child.process.stop()
    }
}

/// The one message, in both directions.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

impl Text {
    /// The one that takes so many bytes on the wire.
    fn that_takes(size: usize) -> Result<Self, Error> {
        let mut texts = (0..=size).rev().map(|length| Self { text: "x".repeat(length) });
        let text = texts.find(|text| text.encoded_len() <= size).filter(|text| text.encoded_len() == size);
        text.ok_or_else(|| failed(format!("no text takes exactly {size} bytes")))
    }
}

/// Says a text of this size to an echo, and hears one.
pub async fn say(channel: Channel, sizes: Sizes) -> Result<(), Error> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|why| failed(why.to_string()))?;
    let (text, path) = (Text::that_takes(sizes.request)?, PathAndQuery::from_static(PATH));
    let codec: ProstCodec<Text, Text> = ProstCodec::default();
    let answer = client.unary(Request::new(text), path, codec).await;
    answer.map(|_| ()).map_err(|status| failed(format!("the echo does not answer: {status:?}")))
}

const PATH: &str = "/bench.v1.Echo/Say";

/// Serves until SIGTERM; this is what the child process does.
pub fn serve(response: &str, tls: &[&str]) -> Result<(), Error> {
    let size = response.parse().map_err(|_| failed("the size of the answer is no number"))?;
    let calls = Arc::new(AtomicU64::new(0));
    let service = Service { answer: Text::that_takes(size)?, calls: Arc::clone(&calls) };
    let tls = tls.first().map(|directory| mutual_tls(&Certificates::at(directory))).transpose()?;
    // As bearerd makes its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(cannot("start the runtime"))?.block_on(async {
        let mut stopped = signal(SignalKind::terminate()).map_err(cannot("listen for signals"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot("listen"))?;
        let address = listener.local_addr().map_err(cannot("listen"))?;
        thread::spawn(move || tell(&address.to_string(), || calls.load(Ordering::Relaxed).to_string()));
        let mut server = Tonic::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).map_err(|why| failed(why.to_string()))?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, async {
            stopped.recv().await;
        });
        serving.await.map_err(|why| failed(why.to_string()))
    })
}

fn mutual_tls(certificates: &Certificates) -> Result<ServerTlsConfig, Error> {
    let identity = Identity::from_pem(certificates.read("server")?, certificates.read("server.key")?);
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(certificates.read("ca")?)))
}

/// What tonic generates for a service of one rpc, and its implementation.
#[derive(Clone)]
struct Service {
    answer: Text,
    calls: Arc<AtomicU64>,
}

impl NamedService for Service {
    const NAME: &'static str = "bench.v1.Echo";
}

impl UnaryService<Text> for Service {
    type Response = Text;
    type Future = std::future::Ready<Result<Response<Text>, Status>>;

    fn call(&mut self, _request: Request<Text>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Response::new(self.answer.clone())))
    }
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(service, request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_long_as_it_has_to_be() {
        for size in [0, 3, 12, 129, 131, 300] {
            assert_eq!(Text::that_takes(size).unwrap().encoded_len(), size);
        }
        // The length of one takes a second byte from 128 on, so that no text takes exactly 130.
        assert!(Text::that_takes(130).is_err());
    }
}
