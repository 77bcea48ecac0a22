//! A call through bearerd beside the same call through Envoy's credential injector, before the same upstream.

use crate::{
    bench::Bench,
    error::Error,
    load::{Load, Loaded, doubt},
    pair::take_turns,
    parts::{Server, bearerd::sandbox, envoy::Envoy, nginx::Nginx, through::Through},
    row::{Goal, Row},
};

/// What one turn of one proxy shows.
struct Turn {
    /// Under load.
    loaded: Loaded,
    /// The median with one call under way, in µs.
    alone: f64,
    /// How much of that the upstream itself does not take, in µs.
    added: f64,
}

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (provider, upstream) = (sandbox(bench)?, Nginx::start(bench)?);
    let bearerd = Through::start(bench, &provider.token_url(), upstream.port())?;
    let envoy = Envoy::start(bench, &provider.token_url(), upstream.port())?;
    let pairs =
        take_turns(bench.rounds, || turn(bench, &bearerd, &upstream, 10), || turn(bench, &envoy, &upstream, 100))?;
    let peer = "Envoy, credential injector";
    let doubt = doubt(&pairs, |turn| turn.loaded);
    let rate = Row::of("calls a second, one core for the proxy", peer, &pairs, "/s", |turn| turn.loaded.rate);
    let added = Row::of("added to the median of one call, one under way", peer, &pairs, "µs", |turn| turn.added);
    Ok(vec![
        rate.doubted(doubt).with_goal(Goal::AtLeast(1.0)),
        added.with_goal(Goal::AtMost(1.0)),
        Row::of("median of one call, one under way", peer, &pairs, "µs", |turn| turn.alone),
        Row::of("p99, 100 calls under way", peer, &pairs, "µs", |turn| turn.loaded.p99).doubted(doubt),
        Row::of("the proxy's processor time for one call", peer, &pairs, "µs", |turn| turn.loaded.cpu)
            .with_goal(Goal::AtMost(1.0)),
    ])
}

/// A hundred calls under way on so many connections, then one at a time, then the same without a proxy.
fn turn(bench: &Bench, proxy: &impl Server, upstream: &Nginx, connections: u32) -> Result<Turn, Error> {
    let many = Load { connections, streams: 100 / connections, requests: bench.requests };
    let one = Load { connections: 1, streams: 1, requests: bench.requests / 10 };
    let loaded = many.on(bench, proxy, None)?;
    let alone = one.on(bench, proxy, None)?.p50;
    let direct = one.on(bench, upstream, None)?.p50;
    Ok(Turn { loaded, alone, added: alone - direct })
}
