//! What a grant and a token cost in memory, and whether many of them make bearerd slower.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    bench::Bench,
    crowd::{Crowd, subject},
    error::{Error, failed},
    flood::flood,
    load::is_busy,
    pair::take_turns,
    parts::{
        How,
        provider::Provider,
        redis::Redis,
        replica::Replica,
        settings::{Settings, refresh_token},
    },
    report::whole,
    row::{Beside, Figure, Goal, Row},
};

/// The first step of grants, and of tokens in memory.
const FEW: usize = 10_000;

/// All tokens in memory.
const TOKENS: usize = 100_000;

/// What bearerd may take before anybody asked, in MiB.
const IDLE: f64 = 12.0;

/// What must be left of the throughput. As many grants may make a call that much dearer, which is known also where the
/// client was the limit.
const LEAST: f64 = 0.9;

/// How many calls are under way while grants and tokens are made.
const UNDER_WAY: usize = 256;

/// A replica with its Redis and its provider.
struct Side {
    redis: Redis,
    replica: Replica,
    crowd: Crowd,
    _provider: Provider,
}

/// What a turn of the flood shows.
struct Turn {
    rate: f64,
    cpu: f64,
}

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (many, one) = (Side::start(bench)?, Side::start(bench)?);
    let idle = many.memory()?;
    let grants = many.import(bench, bench.grants)?;
    let tokens = many.fill(bench, TOKENS.min(bench.grants))?;
    one.import(bench, 1)?;
    one.fill(bench, 1)?;
    let all = Arc::new((0..TOKENS.min(bench.grants)).map(subject).collect::<Vec<_>>());
    let first = Arc::new(vec![subject(0)]);
    let pairs = take_turns(bench.rounds, || many.flood(bench, &all), || one.flood(bench, &first))?;
    let busy = pairs.iter().all(|pair| [&pair.ours, &pair.theirs].iter().all(|turn| is_busy(turn.rate, turn.cpu)));
    let doubt = (!busy).then_some("not known: a server waited for the machine");
    let (what, peer) =
        (format!("with {} grants, {} of them in memory", whole(bench.grants), whole(all.len())), "one grant");
    let rate = Row::of(&format!("calls a second {what}"), peer, &pairs, "/s", |turn| turn.rate);
    let cpu = Row::of("the server's processor time for one call", peer, &pairs, "µs", |turn| turn.cpu);
    let idle = beside("memory in use before anybody asked", idle / 1_048_576.0, "MiB", "allowed", IDLE);
    let alone = [idle.with_goal(Goal::AtMost(1.0))].into_iter().chain(grants).chain(tokens);
    let rate = rate.doubted(doubt).with_goal(Goal::AtLeast(LEAST));
    Ok(alone.chain([rate, cpu.with_goal(Goal::AtMost(1.0 / LEAST))]).collect())
}

fn beside(what: &str, ours: f64, unit: &'static str, name: &str, theirs: f64) -> Row {
    let (ours, figure) = (Figure::exactly(ours, unit), Figure::exactly(theirs, unit));
    let ratio = Figure::exactly(ours.median / theirs, "");
    Row { beside: Some(Beside { name: name.to_owned(), figure, ratio }), ..Row::alone(what, ours) }
}

fn rate(what: &str, number: usize, began: Instant) -> Row {
    let rate = Figure::exactly(number as f64 / began.elapsed().as_secs_f64(), "/s");
    Row::alone(&format!("{what}, {} of them, {UNDER_WAY} under way", whole(number)), rate)
}

impl Side {
    fn start(bench: &Bench) -> Result<Self, Error> {
        let provider = Provider::start(bench, Duration::ZERO, Duration::from_secs(86_400))?;
        let redis = Redis::start(bench)?;
        let credential = refresh_token(&provider.token_url());
        // What is in memory is believed all the time, so that the calls of the flood find it there.
        let cache = format!("max_tokens = {}\nmax_age = \"1h\"", 2 * TOKENS);
        let settings = Settings { redis: Some(redis.port()), tls: None, cache: &cache, credential: &credential };
        let replica = Replica::start(bench, &How::Plainly, &settings)?;
        let crowd = bench.runtime.block_on(Crowd::connect(&[&replica], 8))?;
        Ok(Self { redis, replica, crowd, _provider: provider })
    }

    fn memory(&self) -> Result<f64, Error> {
        Ok(self.replica.process().memory()? as f64)
    }

    /// Imports this many grants, and tells what each one takes in Redis.
    fn import(&self, bench: &Bench, grants: usize) -> Result<Vec<Row>, Error> {
        let few = FEW.min(grants);
        let mut rows = Vec::new();
        for (from, to) in [(0, few), (few, grants)].into_iter().filter(|(from, to)| from < to) {
            let (before, began) = (self.redis.memory()?, Instant::now());
            bench.runtime.block_on(self.crowd.import(from..to, UNDER_WAY))?;
            rows.push(rate("grants imported a second", to - from, began));
            let each = (self.redis.memory()? - before) / (to - from) as f64;
            rows.push(Row::alone(
                &format!("Redis' memory for each grant, {} of them", whole(to - from)),
                Figure::exactly(each, "bytes"),
            ));
        }
        Ok(rows)
    }

    /// Has this many tokens got, and tells what each one takes in bearerd.
    fn fill(&self, bench: &Bench, tokens: usize) -> Result<Vec<Row>, Error> {
        let few = FEW.min(tokens);
        let mut rows = Vec::new();
        for (from, to) in [(0, few), (few, tokens)].into_iter().filter(|(from, to)| from < to) {
            let (before, began) = (self.memory()?, Instant::now());
            bench.runtime.block_on(self.crowd.get_tokens(from..to, UNDER_WAY))?;
            rows.push(rate("refreshes a second", to - from, began));
            let each = (self.memory()? - before) / (to - from) as f64;
            rows.push(Row::alone(
                &format!("bearerd's memory for each token, {} of them", whole(to - from)),
                Figure::exactly(each, "bytes"),
            ));
        }
        Ok(rows)
    }

    /// Asks for tokens of these subjects, all of which must come from memory.
    fn flood(&self, bench: &Bench, subjects: &Arc<Vec<String>>) -> Result<Turn, Error> {
        let (before, began) = (self.served_from_memory()?, self.replica.process().cpu()?);
        let rate = bench.runtime.block_on(flood(&self.replica.address(), subjects, bench.requests))?;
        let (after, ended) = (self.served_from_memory()?, self.replica.process().cpu()?);
        if after - before != bench.requests {
            return Err(failed(format!("{} of {} calls were served from memory", after - before, bench.requests)));
        }
        Ok(Turn { rate, cpu: (ended - began).as_secs_f64() * 1e6 / bench.requests as f64 })
    }

    fn served_from_memory(&self) -> Result<u64, Error> {
        let meant = |series: &str| series.starts_with("bearerd_token_lookups_total{") && series.contains(r#""memory""#);
        Ok(self.replica.metrics()?.sum(meant))
    }
}
