//! What a grant and a token cost in memory, and whether many of them make bearerd slower.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::{Duration, Instant},
};

use prost::Message;

use crate::{
    bench::Bench,
    crowd::{Crowd, subject},
    error::Error,
    load::{Load, Loaded, doubt},
    pair::take_turns,
    parts::{
        Answered, How, Server,
        provider::Provider,
        redis::Redis,
        replica::{Replica, token_of},
        settings::{Settings, refresh_token},
    },
    report::whole,
    row::{Beside, Figure, Goal, Row},
};

/// The first step of grants, and of tokens in memory.
const FEW: usize = 10_000;

/// All tokens in memory.
const TOKENS: usize = 100_000;

/// Tokens that are in use while the others only lie in memory.
const OFTEN: usize = 1_000;

/// What bearerd may take before anybody asked, in MiB.
const IDLE: f64 = 12.0;

/// What must be left of the throughput. As many grants may make a call that much dearer, which is known also where the
/// client was the limit.
const LEAST: f64 = 0.9;

/// What is looked for here is less than what a machine does by itself from one round to the next, so there are so many times as
/// many rounds as for others.
const MORE: usize = 3;

/// How many calls are under way while grants and tokens are made.
const UNDER_WAY: usize = 256;

/// A replica with its Redis and its provider.
struct Side {
    redis: Redis,
    replica: Replica,
    crowd: Crowd,
    requests: Vec<Vec<u8>>,
    _provider: Provider,
}

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (mut many, mut one) = (Side::start(bench)?, Side::start(bench)?);
    let idle = many.memory()?;
    let grants = many.import(bench, bench.grants)?;
    let tokens = many.fill(bench, TOKENS.min(bench.grants))?;
    one.import(bench, 1)?;
    one.fill(bench, 1)?;
    let idle = beside("memory in use before anybody asked", idle / 1_048_576.0, "MiB", "allowed", IDLE);
    let alone = [idle.with_goal(Goal::AtMost(1.0))].into_iter().chain(grants).chain(tokens);
    let held = TOKENS.min(bench.grants);
    let what = format!("with {} grants, {} of them in memory", whole(bench.grants), whole(held));
    let [rate, cpu] = beside_one(bench, &what, &mut many, &(0..held).collect::<Vec<_>>(), &mut one)?;
    let goals = [rate.with_goal(Goal::AtLeast(LEAST)), cpu.with_goal(Goal::AtMost(1.0 / LEAST))];
    let by_zipf = beside_one(bench, &format!("{what}, by Zipf's law"), &mut many, &skewed(held), &mut one)?;
    let few = OFTEN.min(held);
    let often = format!("{what}, {} in use", whole(few));
    let often = beside_one(bench, &often, &mut many, &(0..few).collect::<Vec<_>>(), &mut one)?;
    Ok(alone.chain(goals).chain(by_zipf).chain(often).collect())
}

/// Calls for these subjects, beside as many different requests for the only grant of the other side: so h2load does the same
/// for both.
fn beside_one(
    bench: &Bench,
    what: &str,
    many: &mut Side,
    subjects: &[usize],
    one: &mut Side,
) -> Result<[Row; 2], Error> {
    many.ask_for(subjects);
    one.ask_for(&vec![0; subjects.len()]);
    let load = Load { connections: 10, streams: 10, requests: bench.requests };
    let pairs = take_turns(MORE * bench.rounds, || load.on(bench, many, None), || load.on(bench, one, None))?;
    let peer = "one grant";
    let rate = Row::of(&format!("calls a second {what}"), peer, &pairs, "/s", |loaded: &Loaded| loaded.rate);
    let cpu = Row::of("the server's processor time for one call", peer, &pairs, "µs", |loaded| loaded.cpu);
    Ok([rate.doubted(doubt(&pairs, |loaded| *loaded)), cpu])
}

/// As many draws out of as many, by Zipf's law: the second one is drawn half as often as the first, the third a third as
/// often. They are evenly spread draws, so the same ones come each time.
fn skewed(number: usize) -> Vec<usize> {
    let mut sums = Vec::with_capacity(number);
    let total = (1..=number).fold(0.0, |sum, rank| {
        sums.push(sum);
        sum + 1.0 / rank as f64
    });
    let draw = |draw: usize| {
        let drawn = total * (draw as f64 + 0.5) / number as f64;
        sums.partition_point(|sum| *sum <= drawn).saturating_sub(1)
    };
    (0..number).map(draw).collect()
}

/// The same in an order in which nothing follows from what came before, and which is the same each time.
fn mixed<T>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let by_chance = BuildHasherDefault::<DefaultHasher>::default();
    let mut items: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    items.sort_by_cached_key(|(place, _)| by_chance.hash_one(place));
    items.into_iter().map(|(_, item)| item).collect()
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
        Ok(Self { redis, replica, crowd, requests: Vec::new(), _provider: provider })
    }

    /// From now on calls are for these subjects, in an order that jumps about.
    fn ask_for(&mut self, subjects: &[usize]) {
        self.requests = mixed(subjects.iter().map(|number| token_of(&subject(*number)).encode_to_vec()));
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
}

impl Server for Side {
    fn url(&self) -> String {
        self.replica.get_token_url()
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.clone()
    }

    fn answered(&self) -> Result<Answered, Error> {
        self.replica.lookups("memory")
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.replica.process().cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.replica.stop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_by_zipf_s_law_are_skewed_as_it_says() {
        let number = 10_000;
        let draws = skewed(number);
        let drawn = |rank| draws.iter().filter(|draw| **draw == rank).count();
        let total: f64 = (1..=number).map(|rank| 1.0 / rank as f64).sum();
        for rank in [0, 1, 9] {
            let expected = number as f64 / total / (rank + 1) as f64;
            assert!((drawn(rank) as f64 - expected).abs() <= 1.0, "{rank}: {} of {expected}", drawn(rank));
        }
        assert!(draws.iter().all(|draw| *draw < number) && draws.len() == number);
    }
}
