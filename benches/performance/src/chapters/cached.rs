//! A token from memory, beside a bare echo of the same sizes: what bearerd adds to what tonic costs anyway.

use crate::{
    bench::Bench,
    error::Error,
    load::Load,
    pair::take_turns,
    parts::{
        How,
        bearerd::{Bearerd, Source},
        certificates::Certificates,
        echo::Echo,
    },
    row::{Goal, Row},
};

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let [rate, p99, rest @ ..] = measured(bench, None)?;
    let (rate, p99) = (rate.with_goal(Goal::AtLeast(0.90)), p99.with_goal(Goal::AtMost(1.15)));
    Ok([rate, p99].into_iter().chain(rest).collect())
}

/// Throughput, the slowest hundredth, and processor time, with or without certificates on both sides.
pub fn measured(bench: &Bench, tls: Option<&Certificates>) -> Result<[Row; 3], Error> {
    let bearerd = Bearerd::start(bench, &How::Plainly, Source::Memory, tls)?;
    let echo = Echo::start(bench, &How::Plainly, bearerd.prime()?, tls)?;
    let load = Load { connections: 10, streams: 10, requests: bench.requests };
    let pairs = take_turns(bench.rounds, || load.on(bench, &bearerd, tls), || load.on(bench, &echo, tls))?;
    let peer = if tls.is_some() { "bare tonic echo, mutual TLS" } else { "bare tonic echo" };
    let busy = pairs.iter().all(|pair| pair.ours.is_the_servers_limit() && pair.theirs.is_the_servers_limit());
    let doubt = (!busy).then_some("not known: a server waited for the machine");
    Ok([
        Row::of("calls a second, one server core", peer, &pairs, "/s", |loaded| loaded.rate).doubted(doubt),
        Row::of("p99, 100 calls under way", peer, &pairs, "µs", |loaded| loaded.p99).doubted(doubt),
        Row::of("the server's processor time for one call", peer, &pairs, "µs", |loaded| loaded.cpu),
    ])
}
