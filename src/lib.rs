//! bearerd keeps OAuth access tokens for other services. See `ARCHITECTURE.md` for the rooms and their arrows; the
//! modules stand here in the order in which a request passes them.

pub mod cli;

pub mod app;
pub mod config;
pub mod server;

pub mod api;

pub mod broker;

pub mod audit;
pub mod cache;
pub mod identity;
pub mod policy;
pub mod provider;
pub mod store;
pub mod upstream;

pub mod grant;
pub mod rejection;

pub mod failure;
pub mod rule;
pub mod token;

pub mod http;
pub mod limit;
pub mod telemetry;

pub mod caller;
pub mod clock;
pub mod failpoint;
pub mod file;
pub mod name;
pub mod path;
pub mod secret;
pub mod trace;

pub mod sandbox;

pub mod proto;
