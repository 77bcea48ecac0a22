//! A token that is read from Redis each time, beside what cannot be left out of that: one bare round trip to the same
//! Redis, and one bare echo.

use crate::{
    bench::Bench,
    error::Error,
    load::Load,
    pair::take_turns,
    parts::{
        How,
        bearerd::{Bearerd, Source},
        echo::{Allocator, Echo},
        redis::Redis,
    },
    row::{Goal, Row},
};

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let redis = Redis::start(bench)?;
    let bearerd = Bearerd::start(bench, &How::Plainly, Source::Redis(redis.port()), None)?;
    let echo = Echo::start(bench, &How::Plainly, Allocator::System, bearerd.prime()?, None)?;
    let load = Load { connections: 1, streams: 1, requests: bench.requests / 10 };
    let ours = || Ok(load.on(bench, &bearerd, None)?.p50);
    let theirs = || Ok(load.on(bench, &echo, None)?.p50 + redis.round_trip(bench, load.requests)?);
    let pairs = take_turns(bench.rounds, ours, theirs)?;
    let peer = "bare Redis round trip + bare tonic echo";
    let row = Row::of("median time of one call, one under way", peer, &pairs, "µs", |median| *median);
    Ok(vec![row.with_goal(Goal::AtMost(1.3))])
}
