//! What production does to processes and networks, with real ones: replicas are killed and stopped in the middle of a
//! refresh, Redis is killed, stopped, flushed and filled up, a replica of it takes over, and connections hang or break.
//!
//! The provider is strict unless a test says otherwise: the second use of a refresh token ends the grant. Its log, where
//! each presented refresh token stands, is the oracle.

mod account;
mod drain;
mod failover;
mod failovers;
mod faults;
mod load;
mod network;
mod outage;
mod rounds;
mod scene;
mod store;
mod witness;

// Killing and stopping a replica at one step of a refresh needs the places in `src/failpoint.rs`.
#[cfg(feature = "failpoints")]
mod import;
#[cfg(feature = "failpoints")]
mod kill;
#[cfg(feature = "failpoints")]
mod stop;
