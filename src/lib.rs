//! bearerd keeps OAuth access tokens for other services. See `ARCHITECTURE.md` for the rooms and their arrows; the
//! modules stand here in the order in which a request passes them.

pub mod cli;

pub mod app;
pub mod config;
pub mod server;

pub mod api;

pub mod broker;

pub mod cache;
pub mod identity;
pub mod policy;
pub mod provider;
pub mod store;
pub mod upstream;

pub mod grant;
pub mod rejection;

pub mod failure;
pub mod token;

pub mod http;
pub mod telemetry;

pub mod caller;
pub mod clock;
pub mod name;
pub mod secret;

pub mod sandbox;

/// The messages and services of `proto/bearerd/v1`, generated.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod proto {
    tonic::include_proto!("bearerd.v1");

    /// All message and service descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bearerd_descriptor.bin"));
}
