//! The gRPC services: bearerd's own, health and reflection.

use tokio::{sync::watch, task::AbortHandle};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{ServerConfig, ServerError};
use crate::{
    api::Live,
    proto::{self, grant_admin_server::GrantAdminServer, token_service_server::TokenServiceServer},
};

/// The largest question for a description, in bytes.
const QUESTION: usize = 16 * 1024;

/// All services. Health follows readiness until the handle ends it.
pub(super) fn routes(
    api: Live,
    config: &ServerConfig,
    ready: watch::Receiver<bool>,
) -> Result<(Routes, AbortHandle), ServerError> {
    let limit = config.max_message_bytes;
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(GrantAdminServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(TokenServiceServer::new(api).max_decoding_message_size(limit));
    if config.reflection {
        routes
            .add_service(reflection()?.max_decoding_message_size(QUESTION))
            .add_service(reflection_before_v1()?.max_decoding_message_size(QUESTION));
    }
    let following = tokio::spawn(follow(reporter, ready)).abort_handle();
    Ok((routes.routes().prepare(), following))
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
        for service in ["", "bearerd.v1.TokenService", "bearerd.v1.GrantAdmin"] {
            reporter.set_service_status(service, status).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}
