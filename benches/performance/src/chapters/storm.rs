//! Two thousand callers on three replicas who all want the token that nobody has: how long the last one waits, beside one
//! caller who is alone with the same wish.

use std::time::Duration;

use bearerd::proto::Token;
use prost::Message;

use crate::{
    bench::Bench,
    error::{Error, failed},
    pair::{Pair, take_turns},
    parts::{
        Answered, How,
        provider::Provider,
        redis::Redis,
        replica::{Replica, get_token, import, report_of, token_of},
        settings::{Settings, refresh_token},
    },
    row::{Beside, Figure, Goal, Row},
    wave,
};

/// How many ask at once.
const CALLERS: u32 = 2_000;

/// How long the provider takes.
const LATENCY: Duration = Duration::from_millis(100);

/// One storm, or one lone caller.
struct Turn {
    /// From the question to the last answer, in ms.
    last: f64,
    /// Requests that reached the provider.
    requests: f64,
}

/// What all turns share.
struct Scene<'a> {
    bench: &'a Bench,
    provider: Provider,
    replicas: [Replica; 3],
}

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (provider, redis) = (Provider::start(bench, LATENCY, Duration::from_secs(86_400))?, Redis::start(bench)?);
    let credential = refresh_token(&provider.token_url());
    let settings = Settings { redis: Some(redis.port()), tls: None, cache: "", credential: &credential };
    let replica = || Replica::start(bench, &How::Plainly, &settings);
    let scene = Scene { bench, provider, replicas: [replica()?, replica()?, replica()?] };
    let mut subjects = (0_u32..).map(|number| format!("tenant-{number}"));
    let mut subject = || scene.new_grant(subjects.next().unwrap_or_default());
    let mut others = (0_u32..).map(|number| format!("lone-{number}"));
    let mut other = || scene.new_grant(others.next().unwrap_or_default());
    let known = subject()?;
    scene.storm(&known)?;
    let from_memory = take_turns(bench.rounds, || scene.storm(&known), || scene.lone(&other()?))?;
    let asked = take_turns(bench.rounds, || scene.storm(&subject()?), || scene.lone(&other()?))?;
    let reported = take_turns(bench.rounds, || scene.reports(&subject()?), || scene.lone(&other()?))?;
    if scene.provider.asked()?.refused > 0 {
        return Err(failed("the provider saw a refresh token that was used before"));
    }
    let from_memory = last("ask for a token that all replicas have in memory", &from_memory);
    Ok([rows("ask for a token that nobody has", &asked), rows("report the same token", &reported), vec![from_memory]]
        .concat())
}

fn last(what: &str, pairs: &[Pair<Turn>]) -> Row {
    let what = format!("2,000 callers {what}: the last one is served");
    Row::of(&what, "one caller alone, nobody has it", pairs, "ms", |turn| turn.last)
}

fn rows(what: &str, pairs: &[Pair<Turn>]) -> Vec<Row> {
    let requests = Figure::of(pairs.iter().map(|pair| pair.ours.requests).collect(), "requests");
    let one = Figure::exactly(1.0, "requests");
    let beside = Beside { name: "one".to_owned(), figure: one, ratio: Figure { unit: "", ..requests } };
    let requests = Row { beside: Some(beside), ..Row::alone("requests that reached the provider meanwhile", requests) };
    vec![last(what, pairs).with_goal(Goal::AtMost(1.5)), requests.with_goal(Goal::AtMost(1.0))]
}

impl Scene<'_> {
    fn new_grant(&self, subject: String) -> Result<String, Error> {
        let [replica, ..] = &self.replicas;
        self.bench.runtime.block_on(async { import(replica.connect().await?, &subject).await })?;
        Ok(subject)
    }

    /// All of them ask for it.
    fn storm(&self, subject: &str) -> Result<Turn, Error> {
        let turn = self.watched(Replica::get_token_url, &token_of(subject).encode_to_vec(), CALLERS)?;
        self.generation(subject).map(|_| turn)
    }

    /// One asks for it.
    fn lone(&self, subject: &str) -> Result<Turn, Error> {
        self.watched(Replica::get_token_url, &token_of(subject).encode_to_vec(), 1)
    }

    /// All of them report the token that all of them have.
    fn reports(&self, subject: &str) -> Result<Turn, Error> {
        let reported = self.generation(subject)?;
        let turn =
            self.watched(Replica::invalidate_token_url, &report_of(subject, reported).encode_to_vec(), CALLERS)?;
        if self.generation(subject)? > reported { Ok(turn) } else { Err(failed("the reports led to no new token")) }
    }

    /// The generation of the token that all replicas serve.
    fn generation(&self, subject: &str) -> Result<u64, Error> {
        let served = |replica: &Replica| {
            let answer = self.bench.runtime.block_on(async { get_token(replica.connect().await?, subject).await })?;
            let Some(Token { generation, .. }) = answer.token else { return Err(failed("an answer without a token")) };
            Ok(generation)
        };
        let mut generations = self.replicas.iter().map(served).collect::<Result<Vec<_>, _>>()?;
        generations.dedup();
        match generations[..] {
            [generation] => Ok(generation),
            _ => Err(failed(format!("replicas serve tokens of several generations: {generations:?}"))),
        }
    }

    /// Until the last one has its answer. Each must have got one, and none an error.
    fn watched(&self, url: fn(&Replica) -> String, message: &[u8], callers: u32) -> Result<Turn, Error> {
        let (requests, before) = (self.provider.asked()?.requests, self.answered()?);
        let urls = self.replicas.each_ref().map(url);
        let last = wave::send(self.bench, &urls, message, callers)?;
        let answered = self.answered()?.since(before);
        if answered != (Answered { well: callers.into(), ..Answered::default() }) {
            return Err(failed(format!("{callers} calls were not all answered well: {answered:?}")));
        }
        let requests = self.provider.asked()?.requests - requests;
        Ok(Turn { last: last.as_secs_f64() * 1e3, requests: requests as f64 })
    }

    /// The calls that the replicas have answered.
    fn answered(&self) -> Result<Answered, Error> {
        self.replicas.iter().try_fold(Answered::default(), |sum, replica| Ok(sum.and(replica.answered()?)))
    }
}
