//! Instructions: the cost of a call where neither neighbours nor clocks disturb.

use std::{collections::BTreeMap, hint::black_box};

use bearerd::rejection::challenge;

use crate::{
    bench::Bench,
    callgrind::{per_call, per_turn},
    error::{Error, failed},
    parts::{
        How, Sizes,
        bearerd::{Bearerd, Source},
        echo::{Allocator, Echo, JEMALLOC},
        redis::Redis,
        scattered::Scattered,
    },
    row::{Beside, Figure, Goal, Row},
};

/// `GetToken` from memory.
pub const CACHED: &str = "cached_get_token";
/// The bare echo.
pub const ECHO: &str = "bare_echo";
/// The same with bearerd's allocator.
pub const ECHO_JEMALLOC: &str = "bare_echo_jemalloc";
/// `GetToken` that asks Redis whether the token in memory still is the one.
pub const LOOKED: &str = "redis_look";
/// `GetToken` that reads the sealed records from Redis and opens them.
pub const SEALED: &str = "sealed_record_read";
/// Reading one answer's `WWW-Authenticate`.
pub const CHALLENGE: &str = "challenge_parser";

/// Two header lines, three challenges, an escape: more than most APIs say.
const CHALLENGES: [&str; 2] = [
    r#"Bearer realm="api.example.org", error="invalid_token", error_description="The \"access token\" expired", scope="read write""#,
    r#"DPoP algs="ES256 PS256", Negotiate YIIJvwYGKwYBBQUC="#,
];

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let counts = counts(bench)?;
    let figure = |name: &str| {
        let count = counts.get(name).ok_or_else(|| failed(format!("{name} was not counted")))?;
        Ok::<_, Error>(Figure::exactly(*count, "instructions"))
    };
    let (cached, echo, looked, sealed) = (figure(CACHED)?, figure(ECHO)?, figure(LOOKED)?, figure(SEALED)?);
    let alike = figure(ECHO_JEMALLOC)?;
    let beside = |name: &str, ours: Figure, figure: Figure| {
        Some(Beside { name: name.to_owned(), figure, ratio: Figure::exactly(ours.median / figure.median, "") })
    };
    let (bare, from_memory) = ("bare tonic echo", "`GetToken` from memory");
    Ok(vec![
        Row { beside: beside(bare, cached, echo), ..Row::alone(from_memory, cached) }.with_goal(Goal::AtMost(1.25)),
        Row { beside: beside(JEMALLOC, cached, alike), ..Row::alone(from_memory, cached) },
        Row {
            beside: beside(bare, looked, echo),
            ..Row::alone("`GetToken` that asks Redis about the token in memory", looked)
        },
        Row {
            beside: beside(bare, sealed, echo),
            ..Row::alone("`GetToken` that reads the sealed records from Redis and opens them", sealed)
        },
        Row::alone("reading `WWW-Authenticate` (two lines, three challenges)", figure(CHALLENGE)?),
    ])
}

/// All counts by their names.
pub fn counts(bench: &Bench) -> Result<BTreeMap<&'static str, f64>, Error> {
    let primed = |how: &How, source| {
        let bearerd = Bearerd::start(bench, how, source, None)?;
        let sizes = bearerd.prime()?;
        Ok::<_, Error>((bearerd, sizes))
    };
    let (_, sizes): (_, Sizes) = primed(&How::Plainly, Source::Memory)?;
    let redis = Redis::start(bench)?;
    let looked = Source::Looked(redis.port());
    Ok(BTreeMap::from([
        (CACHED, per_call(bench, |how| primed(how, Source::Memory).map(|(bearerd, _)| bearerd))?),
        (ECHO, per_call(bench, |how| Echo::start(bench, how, Allocator::System, sizes, None))?),
        (ECHO_JEMALLOC, per_call(bench, |how| Echo::start(bench, how, Allocator::Jemalloc, sizes, None))?),
        (LOOKED, per_call(bench, |how| primed(how, looked).map(|(bearerd, _)| bearerd))?),
        (SEALED, per_call(bench, |how| Scattered::start(bench, how, redis.port()))?),
        (CHALLENGE, per_turn(bench, "read-challenges")?),
    ]))
}

/// Reads challenges so many times; this is what the child process does.
pub fn read_challenges(times: &str) -> Result<(), Error> {
    let times: u64 = times.parse().map_err(|_| failed("how many times is no number"))?;
    for _ in 0..times {
        let read = challenge::parse(black_box(CHALLENGES));
        if black_box(read).len() != 3 {
            return Err(failed("the challenges are not read as three"));
        }
    }
    Ok(())
}
