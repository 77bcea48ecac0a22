//! A token from memory, beside a bare echo of the same sizes: what bearerd adds to what tonic costs anyway.

use crate::{
    bench::Bench,
    error::Error,
    load::{Load, Loaded, doubt},
    pair::{Pair, take_turns},
    parts::{
        How,
        bearerd::{Bearerd, Source},
        certificates::Certificates,
        echo::{Allocator, Echo, JEMALLOC},
    },
    row::{Goal, Row},
};

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let [rate, p99, rest @ ..] = measured(bench, None)?;
    let (rate, p99) = (rate.with_goal(Goal::AtLeast(0.90)), p99.with_goal(Goal::AtMost(1.15)));
    Ok([rate, p99].into_iter().chain(rest).collect())
}

/// Throughput, the slowest hundredth, processor time, and throughput beside an echo with bearerd's allocator; with or without
/// certificates on both sides.
pub fn measured(bench: &Bench, tls: Option<&Certificates>) -> Result<[Row; 4], Error> {
    let bearerd = Bearerd::start(bench, &How::Plainly, Source::Memory, tls)?;
    let sizes = bearerd.prime()?;
    let load = Load { connections: 10, streams: 10, requests: bench.requests };
    let beside = |allocator| {
        let echo = Echo::start(bench, &How::Plainly, allocator, sizes, tls)?;
        take_turns(bench.rounds, || load.on(bench, &bearerd, tls), || load.on(bench, &echo, tls))
    };
    let (pairs, alike) = (beside(Allocator::System)?, beside(Allocator::Jemalloc)?);
    let peer = if tls.is_some() { "bare tonic echo, mutual TLS" } else { "bare tonic echo" };
    let rate = |pairs: &[Pair<Loaded>], peer| {
        Row::of("calls a second, one server core", peer, pairs, "/s", |loaded| loaded.rate)
            .doubted(doubt(pairs, |loaded| *loaded))
    };
    Ok([
        rate(&pairs, peer),
        Row::of("p99, 100 calls under way", peer, &pairs, "µs", |loaded| loaded.p99)
            .doubted(doubt(&pairs, |loaded| *loaded)),
        Row::of("the server's processor time for one call", peer, &pairs, "µs", |loaded| loaded.cpu),
        rate(&alike, JEMALLOC),
    ])
}
