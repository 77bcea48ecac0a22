//! The gRPC services as one connection reaches them: bearerd's own, health and reflection.

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
use tonic::{Status, body::Body, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service as _;

use super::{
    ServerConfig, ServerError,
    arriving::Arriving,
    room::{Held, Room},
};
use crate::{
    api::{self, Live, Session},
    identity::Remote,
    proto::{
        self,
        grant_admin_server::{GrantAdminServer, SERVICE_NAME as GRANT_ADMIN},
        token_service_server::{SERVICE_NAME as TOKEN_SERVICE, TokenServiceServer},
    },
};

/// The largest question for a description, in bytes.
const QUESTION: usize = 16 * 1024;

/// The question for health that has one answer: probes ask it, and are not to suffer from those who converse.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// An answer, which may be an error, or its beginning.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// All services.
#[derive(Clone)]
pub(super) struct Services {
    api: Live,
    /// Those that need no caller.
    open: Routes,
    room: Arc<Room>,
    max_message_bytes: usize,
}

/// The same for one connection.
pub(super) struct ConnectionServices {
    tokens: TokenServiceServer<Session>,
    grants: GrantAdminServer<Session>,
    open: Routes,
    room: Arc<Room>,
    address: Option<IpAddr>,
}

impl Services {
    /// All of them. Health follows readiness until the handle ends it.
    pub fn new(
        api: Live,
        config: &ServerConfig,
        ready: watch::Receiver<bool>,
    ) -> Result<(Self, AbortHandle), ServerError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut open = Routes::builder();
        open.add_service(health.max_decoding_message_size(QUESTION));
        if config.reflection {
            open.add_service(reflection()?.max_decoding_message_size(QUESTION))
                .add_service(reflection_before_v1()?.max_decoding_message_size(QUESTION));
        }
        let max_message_bytes = config.max_message_bytes;
        let room = Arc::new(Room::new(max_message_bytes));
        let following = tokio::spawn(follow(reporter, ready)).abort_handle();
        Ok((Self { api, open: open.routes().prepare(), room, max_message_bytes }, following))
    }

    /// What a connection from there reaches.
    pub fn reached_from(&self, remote: Remote) -> ConnectionServices {
        let address = remote.address.as_ref().map(|address| address.ip);
        let session = self.api.session(remote);
        ConnectionServices {
            tokens: TokenServiceServer::new(session.clone()).max_decoding_message_size(self.max_message_bytes),
            grants: GrantAdminServer::new(session).max_decoding_message_size(self.max_message_bytes),
            open: self.open.clone(),
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
            TOKEN_SERVICE => self.tokens.clone().call(self.arriving(request)),
            GRANT_ADMIN => self.grants.clone().call(self.arriving(request)),
            _ if path == CHECK => Box::pin(self.open.clone().call(self.arriving(request))),
            other => self.converse(other.starts_with("grpc.reflection."), request),
        }
    }
}

impl ConnectionServices {
    fn arriving(&self, request: Request<Incoming>) -> Request<Arriving<Incoming>> {
        request.map(|body| Arriving::new(body, Arc::clone(&self.room), self.address))
    }

    /// Answers what anybody may ask, for as long as the connection lasts.
    fn converse(&self, is_stream: bool, request: Request<Incoming>) -> Answer {
        let Some(held) = self.room.conversations.take(self.address, 1) else {
            return Box::pin(ready(Ok(api::overloaded().into_http())));
        };
        let mut open = self.open.clone();
        // A stream of questions has no end to wait for; how large each may be is bounded where it is understood.
        let answer = if is_stream { open.call(request) } else { open.call(self.arriving(request)) };
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Conversation { body, _held: held }))) })
    }
}

/// `/SERVICE/METHOD`
fn service(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _method)| service)
}

/// An answer that holds its place until its end.
struct Conversation {
    body: Body,
    _held: Held,
}

impl http_body::Body for Conversation {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    ServerError,
> {
    descriptions().build_v1().map_err(|error| ServerError::Reflection(error.to_string()))
}

/// Older tools know the protocol from before its first version only.
fn reflection_before_v1() -> Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<impl tonic_reflection::server::v1alpha::ServerReflection>,
    ServerError,
> {
    descriptions().build_v1alpha().map_err(|error| ServerError::Reflection(error.to_string()))
}

fn descriptions() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Health follows readiness, per service and for the whole.
async fn follow(reporter: HealthReporter, mut ready: watch::Receiver<bool>) {
    loop {
        let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", TOKEN_SERVICE, GRANT_ADMIN] {
            reporter.set_service_status(service, status).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}
