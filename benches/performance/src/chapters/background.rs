//! Tokens that live four minutes and are all kept alive: how evenly their provider is asked, and what that costs.

use std::{thread, time::Duration};

use crate::{
    bench::Bench,
    crowd::Crowd,
    error::{Error, failed},
    parts::{
        How,
        provider::Provider,
        redis::Redis,
        replica::Replica,
        settings::{Settings, refresh_token},
    },
    report::whole,
    row::{Beside, Figure, Row},
    say,
};

/// How many grants; fewer where fewer are asked for.
const GRANTS: usize = 100_000;

/// How long a token lives.
const LIFETIME: Duration = Duration::from_secs(240);

/// How long the provider is watched: two waves of refreshes.
const WATCH: Duration = Duration::from_secs(330);

/// How many calls are under way while grants and tokens are made.
const UNDER_WAY: usize = 64;

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (provider, redis) = (Provider::start(bench, Duration::ZERO, LIFETIME)?, Redis::start(bench)?);
    let credential = format!("{}\nkeep_alive = true", refresh_token(&provider.token_url()));
    let settings =
        Settings { redis: Some(redis.port()), tls: None, cache: "max_tokens = 200_000", credential: &credential };
    let replica = Replica::start(bench, &How::Plainly, &settings)?;
    let grants = GRANTS.min(bench.grants);
    bench.runtime.block_on(async {
        let crowd = Crowd::connect(&[&replica], 8).await?;
        crowd.import(0..grants, UNDER_WAY).await?;
        crowd.get_tokens(0..grants, UNDER_WAY).await
    })?;
    let (before, began) = (provider.asked()?, replica.process().cpu()?);
    thread::sleep(WATCH);
    let (after, ended) = (provider.asked()?, replica.process().cpu()?);
    if after.refused > 0 {
        return Err(failed(format!("the provider refused {} refresh tokens", after.refused)));
    }
    // The second in which this began, and the last one, were not watched as a whole. Those after the last request are
    // missing in what the provider says.
    let watched = usize::try_from(WATCH.as_secs()).unwrap_or_default() - 1;
    let seconds = after.seconds.into_iter().skip(before.seconds.len()).chain(std::iter::repeat(0));
    let seconds: Vec<u64> = seconds.take(watched).collect();
    say(&format!("requests in each second: {seconds:?}"));
    let requests = (after.requests - before.requests) as f64;
    Ok(rows(grants, &seconds, requests, (ended - began).as_secs_f64()))
}

fn rows(grants: usize, seconds: &[u64], requests: f64, cpu: f64) -> Vec<Row> {
    let mean = Figure::exactly(seconds.iter().sum::<u64>() as f64 / seconds.len() as f64, "/s");
    let most = Figure::exactly(seconds.iter().copied().max().unwrap_or_default() as f64, "/s");
    let ratio = Figure::exactly(most.median / mean.median, "");
    let beside = Some(Beside { name: "the mean".to_owned(), figure: mean, ratio });
    let what = format!("requests at the provider in the busiest second, {} grants", whole(grants));
    let busy = Figure::exactly(100.0 * cpu / WATCH.as_secs_f64(), "% of one core");
    let each = Figure::exactly(cpu * 1e6 / requests, "µs");
    vec![
        Row { beside, ..Row::alone(&what, most) },
        Row::alone("processor time of all that", busy),
        Row::alone("processor time for one refresh", each),
    ]
}
