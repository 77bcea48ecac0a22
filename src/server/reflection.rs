//! The descriptions of the services (gRPC server reflection). They are worked out when somebody first asks for them: few
//! processes are ever asked, and what is made of the descriptions stays in memory.

use std::sync::{Arc, OnceLock};

use tonic::{Status, service::Routes};
use tonic_reflection::server::{Builder, Error};

use crate::proto;

/// The largest question for a description, in bytes.
const QUESTION: usize = 16 * 1024;

/// Those who answer such questions.
#[derive(Clone, Default)]
pub(super) struct Reflection(Arc<OnceLock<Result<Routes, Status>>>);

impl Reflection {
    /// Whether a question on this path is for them.
    pub fn is_asked(path: &str) -> bool {
        path.starts_with("/grpc.reflection.")
    }

    /// They themselves.
    pub fn routes(&self) -> Result<Routes, Status> {
        self.0.get_or_init(|| described().map_err(|error| Status::internal(error.to_string()))).clone()
    }
}

/// Older tools know the protocol from before its first version only.
fn described() -> Result<Routes, Error> {
    let mut routes = Routes::builder();
    routes
        .add_service(descriptions().build_v1()?.max_decoding_message_size(QUESTION))
        .add_service(descriptions().build_v1alpha()?.max_decoding_message_size(QUESTION));
    Ok(routes.routes().prepare())
}

fn descriptions() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptions_that_were_compiled_in_are_whole() {
        assert!(Reflection::default().routes().is_ok());
    }
}
