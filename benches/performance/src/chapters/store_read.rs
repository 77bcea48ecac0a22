//! A token for which Redis is asked each time, beside what cannot be left out of that: one bare round trip to the same Redis,
//! and one bare echo.

use crate::{
    bench::Bench,
    error::Error,
    load::Load,
    pair::take_turns,
    parts::{
        How, Server, Sizes,
        bearerd::{Bearerd, Source},
        echo::{Allocator, Echo},
        redis::Redis,
        scattered::Scattered,
    },
    row::{Goal, Row},
};

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let redis = Redis::start(bench)?;
    let looked = Bearerd::start(bench, &How::Plainly, Source::Looked(redis.port()), None)?;
    let sizes = looked.prime()?;
    let what = "the cache believes nothing: Redis is asked about the token in memory";
    let looked = row(bench, &redis, what, &looked, sizes)?.with_goal(Goal::AtMost(1.3));
    let scattered = Scattered::start(bench, &How::Plainly, redis.port())?;
    let what = "the token is not in memory: it is read from Redis and opened";
    Ok(vec![looked, row(bench, &redis, what, &scattered, scattered.sizes())?])
}

/// The median time of one call, one under way.
fn row(bench: &Bench, redis: &Redis, what: &str, bearerd: &impl Server, sizes: Sizes) -> Result<Row, Error> {
    let echo = Echo::start(bench, &How::Plainly, Allocator::System, sizes, None)?;
    let load = Load { connections: 1, streams: 1, requests: bench.requests / 10 };
    let ours = || Ok(load.on(bench, bearerd, None)?.p50);
    let theirs = || Ok(load.on(bench, &echo, None)?.p50 + redis.round_trip(bench, load.requests)?);
    let pairs = take_turns(bench.rounds, ours, theirs)?;
    let peer = "bare Redis round trip + bare tonic echo";
    Ok(Row::of(what, peer, &pairs, "µs", |median| *median))
}
