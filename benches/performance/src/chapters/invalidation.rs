//! A token that two replicas have in memory is reported at one of them: how long until the other one serves the next one.

use std::time::{Duration, Instant};

use tonic::transport::Channel;

use crate::{
    bench::Bench,
    error::{Error, failed},
    parts::{
        How,
        provider::Provider,
        redis::Redis,
        replica::{Replica, get_token, import, report},
        settings::{Settings, refresh_token},
    },
    row::{Beside, Figure, Row},
};

/// How many reports.
const REPORTS: usize = 200;

/// How many round trips to Redis are measured, before and after.
const ROUND_TRIPS: u64 = 5_000;

const SUBJECT: &str = "tenant";

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (provider, redis) =
        (Provider::start(bench, Duration::ZERO, Duration::from_secs(86_400))?, Redis::start(bench)?);
    let credential = refresh_token(&provider.token_url());
    let settings = Settings { redis: Some(redis.port()), tls: None, cache: "", credential: &credential };
    let replica = || Replica::start(bench, &How::Plainly, &settings);
    let [here, there] = [replica()?, replica()?];
    let before = redis.round_trip(bench, ROUND_TRIPS)?;
    let times = bench.runtime.block_on(async {
        let (here, there) = (here.connect().await?, there.connect().await?);
        import(here.clone(), SUBJECT).await?;
        let mut times = Vec::new();
        for _ in 0..REPORTS {
            times.push(until_seen(&here, &there).await?);
        }
        Ok::<_, Error>(times)
    })?;
    let after = redis.round_trip(bench, ROUND_TRIPS)?;
    let round_trip = Figure::exactly(f64::midpoint(before, after), "µs");
    let row = |what, figure: Figure| {
        let ratio = Figure::exactly(figure.median / round_trip.median, "");
        let beside = Some(Beside { name: "one Redis round trip".to_owned(), figure: round_trip, ratio });
        Row { beside, ..Row::alone(what, figure) }
    };
    Ok(vec![
        row("the other replica serves the next token, median of 200 reports", percentile(times.clone(), 50)),
        row("the same, p99", percentile(times, 99)),
    ])
}

/// One report: µs from the answer to the reporter until whoever looks all the time has the next token from the other
/// replica.
async fn until_seen(here: &Channel, there: &Channel) -> Result<f64, Error> {
    let old = generation(here).await?.max(generation(there).await?);
    let looking = tokio::spawn(look(there.clone(), old));
    let next = report(here.clone(), SUBJECT, old).await?;
    let answered = Instant::now();
    let (seen, generation) = looking.await.map_err(|why| failed(why.to_string()))??;
    if generation != next.generation {
        return Err(failed("the replicas disagree about the next token"));
    }
    // The other replica may have been first.
    Ok(seen.saturating_duration_since(answered).as_secs_f64() * 1e6)
}

/// Asks until there is a newer one: when it was there, and its generation.
async fn look(there: Channel, old: u64) -> Result<(Instant, u64), Error> {
    loop {
        let generation = generation(&there).await?;
        if generation > old {
            return Ok((Instant::now(), generation));
        }
    }
}

async fn generation(channel: &Channel) -> Result<u64, Error> {
    let answer = get_token(channel.clone(), SUBJECT).await?;
    answer.token.map(|token| token.generation).ok_or_else(|| failed("an answer without a token"))
}

fn percentile(mut times: Vec<f64>, percent: usize) -> Figure {
    times.sort_by(f64::total_cmp);
    Figure::exactly(times.get(times.len() * percent / 100).copied().unwrap_or_default(), "µs")
}
