//! Two thousand callers on three replicas who all want the token that nobody has: how long the last one waits, beside one
//! caller who is alone with the same wish.

use std::time::Duration;

use bearerd::proto::{
    GetTokenResponse, InvalidateTokenRequest, Token, invalidate_token_request::Rejected,
    token_service_client::TokenServiceClient,
};
use tonic::transport::Channel;

use crate::{
    bench::Bench,
    crowd::Crowd,
    error::{Error, failed},
    pair::{Pair, take_turns},
    parts::{
        How,
        provider::Provider,
        redis::Redis,
        replica::{Replica, get_token, import},
        settings::{CREDENTIAL, Settings, refresh_token},
    },
    row::{Beside, Figure, Goal, Row},
};

/// How many ask at once.
const CALLERS: usize = 2_000;

/// How long the provider takes.
const LATENCY: Duration = Duration::from_millis(100);

/// Connections to each replica.
const CONNECTIONS: usize = 4;

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
    crowd: Crowd,
    replicas: [Replica; 3],
}

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let (provider, redis) = (Provider::start(bench, LATENCY, Duration::from_secs(86_400))?, Redis::start(bench)?);
    let credential = refresh_token(&provider.token_url());
    let settings = Settings { redis: Some(redis.port()), tls: None, cache: "", credential: &credential };
    let replica = || Replica::start(bench, &How::Plainly, &settings);
    let replicas = [replica()?, replica()?, replica()?];
    let crowd = bench.runtime.block_on(Crowd::connect(&replicas.each_ref(), CONNECTIONS))?;
    let scene = Scene { bench, provider, crowd, replicas };
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
        self.bench.runtime.block_on(import(self.crowd.channel(0)?, &subject))?;
        Ok(subject)
    }

    /// All of them ask for it.
    fn storm(&self, subject: &str) -> Result<Turn, Error> {
        self.watched(CALLERS, |channel| {
            let subject = subject.to_owned();
            async move { token(get_token(channel, &subject).await?) }
        })
    }

    /// One asks for it.
    fn lone(&self, subject: &str) -> Result<Turn, Error> {
        self.watched(1, |channel| {
            let subject = subject.to_owned();
            async move { token(get_token(channel, &subject).await?) }
        })
    }

    /// All of them report the token that all of them have.
    fn reports(&self, subject: &str) -> Result<Turn, Error> {
        let mut generation = 0;
        for replica in &self.replicas {
            let had = self.bench.runtime.block_on(async { get_token(replica.connect().await?, subject).await });
            generation = token(had?)?.generation;
        }
        self.watched(CALLERS, |channel| {
            let subject = subject.to_owned();
            async move { report(channel, &subject, generation).await }
        })
    }

    /// Until the last one has the token; all must have the same.
    fn watched<F>(&self, callers: usize, ask: impl Fn(Channel) -> F) -> Result<Turn, Error>
    where
        F: Future<Output = Result<Token, Error>> + Send + 'static,
    {
        let before = self.provider.asked()?.requests;
        let (last, tokens) = self.bench.runtime.block_on(self.crowd.at_once(callers, ask))?;
        let mut generations: Vec<u64> = tokens.iter().map(|token| token.generation).collect();
        generations.dedup();
        if generations.len() != 1 {
            return Err(failed(format!("callers got tokens of several generations: {generations:?}")));
        }
        let requests = self.provider.asked()?.requests - before;
        Ok(Turn { last: last.as_secs_f64() * 1e3, requests: requests as f64 })
    }
}

fn token(answer: GetTokenResponse) -> Result<Token, Error> {
    answer.token.ok_or_else(|| failed("an answer without a token"))
}

/// Reports a generation, and gets the next token.
pub async fn report(channel: Channel, subject: &str, generation: u64) -> Result<Token, Error> {
    let request = InvalidateTokenRequest {
        credential: CREDENTIAL.to_owned(),
        subject: subject.to_owned(),
        rejected: Some(Rejected::Generation(generation)),
        ..InvalidateTokenRequest::default()
    };
    let answer = TokenServiceClient::new(channel).invalidate_token(request).await;
    let answer = answer.map_err(|status| failed(format!("a report was refused: {status:?}")))?.into_inner();
    let next = answer.token.as_ref().filter(|token| token.generation > generation).cloned();
    next.ok_or_else(|| failed(format!("a report led to no new token: {:?}", answer.outcome())))
}
