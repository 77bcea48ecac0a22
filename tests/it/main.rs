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

// Who calls: every kind of proof, and every way to lie about it.
mod identity;

// Every rpc, by every kind of caller, under every kind of row.
mod policy_matrix;

// Who used what is written down, whatever came of it.
mod audit;

// Marked secrets go every way there is, and are found nowhere.
mod canary;

// What is too much is refused at once.
mod limits;

// The port of probes and metrics holds out against every client that reaches it.
mod admin;

// How much time a caller gives: none, years, and what is no time at all.
mod deadlines;

// Who asks which services there are, and where nobody is told.
mod reflection;

// Whom the system trusts to vouch for providers.
mod authorities;

// What replicas tell each other, and what others say on their channel.
mod events;

// Tokens for one replica alone, while the store is away.
mod outage;

// A Redis that goes back in time.
mod rollback;

// Answers that find another revision in the store than the one they were asked from.
mod quarantine;

// Answers that wait on the disk of a process until the store takes them.
mod spool;

// A provider that wants to be left alone for a while.
mod cool_down;

// The configuration as an operator meets it: the sample, the deployment's, and mistakes.
mod configuration;

// What the log says, in both of its forms.
mod logs;

// A configuration, its secrets and its seal keys change while the process serves.
mod reload;

// Secrets in memory: no core dump, and nobody who looks in.
mod memory;

// Seal keys come and go while everybody works.
mod rotation;

// Several real processes on one Redis, and a provider that ends a grant when a refresh token is used twice.
mod replicas;

// Two versions of bearerd on one Redis, under load, back and forth.
mod versions;

// The refresh protocol in a world where everything goes wrong, repeatable by its seed.
mod simulation;

// A provider that refuses what was asked for, and the grant that lives on.
mod refused_requests;

// Token answers that hold a refresh token and are wrong in some other way.
mod odd_answers;

// What operators are told of a token endpoint's refusal.
mod provider_words;

// Grants that were declared dead, and live again.
mod dead_grants;

// Answers of a provider that are compressed although bearerd asks for none.
mod compressed_answers;

// A real authorization server and every way of client authentication.
mod providers;

// A client secret and the one that replaces it, both at once.
mod client_secrets;

// What an operator puts into a file is a grant's first secret and not its last.
mod seeds;

// What an operator hands over takes a grant's place when it has given a token.
mod imports;

// Endpoints, clients and parameters change, and stored grants and tokens stay with their own.
mod endpoints;

// Waiting for somebody else's refresh.
mod waiting;

// What production does to processes and networks: kills, stops, cuts and fills up, with real ones, at the worst moments.
mod chaos;

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
