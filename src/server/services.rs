//! The gRPC services as one connection reaches them: bearerd's own, health, and those that describe them.

use std::{
    convert::Infallible,
    future::{Future, ready},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use tokio::{sync::watch, task::AbortHandle};
use tonic::{Status, body::Body, codec::CompressionEncoding, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service as _;

use super::{Readiness, ServerConfig, arriving::Arriving, reflection::Reflection, room::Room};
use crate::{
    api::{self, Live, Session},
    identity::Remote,
    limit::Bodies,
    proto::{
        grant_admin_server::{GrantAdminServer, SERVICE_NAME as GRANT_ADMIN},
        token_service_server::{SERVICE_NAME as TOKEN_SERVICE, TokenServiceServer},
    },
};

/// The largest question for health, in bytes.
const QUESTION: usize = 16 * 1024;

/// The question for health that has one answer: probes ask it, and are not to suffer from those who converse.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The call whose answer can be large.
const CALL: &str = "/bearerd.v1.TokenService/CallThrough";

/// An answer, which may be an error, or its beginning.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// All services.
#[derive(Clone)]
pub(super) struct Services {
    api: Live,
    health: Routes,
    /// `None`: nobody is told.
    reflection: Option<Reflection>,
    room: Arc<Room>,
    max_message_bytes: usize,
}

/// The same for one connection.
pub(super) struct ConnectionServices {
    tokens: TokenServiceServer<Session>,
    grants: GrantAdminServer<Session>,
    health: Routes,
    reflection: Option<Reflection>,
    room: Arc<Room>,
    address: Option<IpAddr>,
}

impl Services {
    /// All of them. Health follows readiness until the handle ends it.
    pub fn new(api: Live, config: &ServerConfig, ready: watch::Receiver<Readiness>) -> (Self, AbortHandle) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let health = Routes::new(health.max_decoding_message_size(QUESTION)).prepare();
        let reflection = config.reflection.then(Reflection::default);
        let max_message_bytes = config.max_message_bytes;
        let room = Arc::new(Room::new(max_message_bytes));
        let following = tokio::spawn(follow(reporter, ready)).abort_handle();
        (Self { api, health, reflection, room, max_message_bytes }, following)
    }

    /// What a connection from there reaches.
    pub fn reached_from(&self, remote: Remote) -> ConnectionServices {
        let address = remote.address.as_ref().map(|address| address.ip);
        let session = self.api.session(remote);
        ConnectionServices {
            tokens: TokenServiceServer::new(session.clone())
                .max_decoding_message_size(self.max_message_bytes)
                .accept_compressed(CompressionEncoding::Gzip),
            grants: GrantAdminServer::new(session)
                .max_decoding_message_size(self.max_message_bytes)
                .accept_compressed(CompressionEncoding::Gzip),
            health: self.health.clone(),
            reflection: self.reflection.clone(),
            room: Arc::clone(&self.room),
            address,
        }
    }
}

impl Service<Request<Incoming>> for ConnectionServices {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        match service(path) {
            TOKEN_SERVICE if path == CALL => self.call_through(request),
            TOKEN_SERVICE => self.tokens.clone().call(self.arriving(request)),
            GRANT_ADMIN => self.grants.clone().call(self.arriving(request)),
            _ if path == CHECK => Box::pin(self.health.clone().call(self.arriving(request))),
            _ => self.converse(request),
        }
    }
}

impl ConnectionServices {
    /// The answer to a call can be large, and counts among the bodies of calls until it was sent.
    fn call_through(&self, request: Request<Incoming>) -> Answer {
        let answer = self.tokens.clone().call(self.arriving(request));
        Box::pin(async move {
            let mut answer = answer.await?;
            Ok(match answer.extensions_mut().remove::<Arc<Bodies>>() {
                Some(bodies) => answer.map(|body| Body::new(Held { body, by: bodies })),
                None => answer,
            })
        })
    }

    fn arriving(&self, request: Request<Incoming>) -> Request<Arriving<Incoming>> {
        request.map(|body| Arriving::new(body, Arc::clone(&self.room), self.address))
    }

    /// Answers what anybody may ask, for as long as the connection lasts.
    fn converse(&self, request: Request<Incoming>) -> Answer {
        let Some(held) = self.room.conversations.take(self.address, 1) else {
            return Box::pin(ready(Ok(api::overloaded().into_http())));
        };
        let answer = match &self.reflection {
            // A stream of questions has no end to wait for; how large each may be is bounded where it is understood.
            Some(reflection) if Reflection::is_asked(request.uri().path()) => match reflection.routes() {
                Ok(mut routes) => routes.call(request),
                Err(status) => return Box::pin(ready(Ok(status.into_http()))),
            },
            Some(_) | None => self.health.clone().call(self.arriving(request)),
        };
        let held = Arc::new(held);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, by: held }))) })
    }
}

/// `/SERVICE/METHOD`
fn service(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _method)| service)
}

/// An answer that holds something until its end, and until all of it was sent: HTTP/2 takes as much of it at once as there is,
/// and sends it as its client has room.
struct Held<H> {
    body: Body,
    by: Arc<H>,
}

/// A piece of it.
struct Piece<H> {
    bytes: Bytes,
    _held: Arc<H>,
}

impl<H> AsRef<[u8]> for Piece<H> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<H: Send + Sync + 'static> http_body::Body for Held<H> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let held = |bytes| Bytes::from_owner(Piece { bytes, _held: Arc::clone(&self.by) });
        polled.map_ok(|frame| frame.map_data(held))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Health follows readiness, per service: tokens are served from memory while the store is away, and grants cannot be
/// administered then.
async fn follow(reporter: HealthReporter, mut ready: watch::Receiver<Readiness>) {
    let status = |serves| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    loop {
        let now = *ready.borrow_and_update();
        for (service, serves) in [("", now.serves()), (TOKEN_SERVICE, now.serves()), (GRANT_ADMIN, now.has_store())] {
            reporter.set_service_status(service, status(serves)).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}
