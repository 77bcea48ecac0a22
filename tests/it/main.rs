//! The tests of bearerd from the outside, in one binary. A line of purpose for each module.
#![cfg(test)]

// What the tests stand on: real servers that end with the test, free ports, and waiting without sleeping on hope.
mod support;

// `ARCHITECTURE.md` and `src` say the same about rooms, arrows and boundaries.
mod architecture;

// One contract that every store keeps, run against each of them.
mod store_contract;

// What only the embedded store promises: one process at a time, and a file that outlives it.
mod store_embedded;

// What only the shared store promises: key lifetimes, several replicas, and a server that is damaged or goes away.
mod store_redis;

// The verbs, as in `src/broker/`, over gRPC.
mod call_through;
mod get_token;
mod invalidate_token;

// Who may do what, and what is said to those who may not.
mod policy;

// The configuration as an operator meets it: the sample, the deployment's, and mistakes.
mod configuration;

// A configuration, its secrets and its seal keys change while the process serves.
mod reload;

// Secrets in memory: no core dump, and nobody who looks in.
mod memory;

// Seal keys come and go while everybody works.
mod rotation;

// Several real processes on one Redis, and a provider that ends a grant when a refresh token is used twice.
mod replicas;

// A real authorization server and every way of client authentication.
mod providers;

// A client secret and the one that replaces it, both at once.
mod client_secrets;

// What an operator puts into a file is a grant's first secret and not its last.
mod seeds;

// Waiting for somebody else's refresh.
mod waiting;

// Answers that are lost on their way from real providers, each of which rotates refresh tokens in its own manner.
mod recovery;

// Callers in other languages.
mod clients;

// What a newcomer sees first: the demonstration does what it says, shows no token and leaves nothing behind.
mod demo;

// What the documents say works.
mod docs;

// `deploy/` is valid.
mod deployment;
