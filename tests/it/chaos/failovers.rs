//! Rounds of failovers, each on servers of its own: how the primary goes, when, and whether a replica has to have what
//! counts are drawn.
//!
//! The append-only file of the server that took over is what Redis remembers. With `wait_replicas = 1` it has to tell the
//! same story as the provider's log. Without, what only the fallen server had written down excuses the rest: replication is
//! asynchronous.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::sleep;

use super::{
    account::{Account, WAY_BACK, callers_are_content, comes_back, keep},
    failover::{Failover, Fall, Servers},
    rounds::number,
    scene::TAKEOVER,
    witness::{Presented, story},
};

const LOST_BY_REDIS: &str = "asynchronous replication lost what was written";
const LOST_ANSWER: &str = "the answer was lost on its way";

/// `FAILOVERS` and `SEED` say how many and which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn failovers_lose_nothing_but_what_cannot_be_promised() {
    let (mut account, began) = (Account::default(), Instant::now());
    let first = number("SEED", 1);
    for seed in first..first + number("FAILOVERS", 6) {
        Round::draw(seed).play(seed, &mut account).await;
    }
    println!("{account}in {:?}", began.elapsed());
}

/// One failover.
#[derive(Debug)]
struct Round {
    cluster: bool,
    fall: Fall,
    moment: Moment,
    wait_replicas: u32,
    /// Whether the server that fell is told at once who the primary is now.
    at_once: bool,
}

/// When the primary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Any,
    AnswerOnItsWay,
    AnswerLost,
}

impl Round {
    fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let cluster = random.random::<bool>();
        let fall = *[Fall::Kill, Fall::Kill, Fall::Stop, Fall::Ordered].choose(&mut random).unwrap();
        let moments = [Moment::Any, Moment::AnswerOnItsWay, Moment::AnswerOnItsWay, Moment::AnswerLost];
        let moment = *moments.choose(&mut random).unwrap();
        // A primary that Sentinels depose writes on until it hears of it, and then its file is gone.
        let wait_replicas = if fall == Fall::Ordered && !cluster { 1 } else { random.random_range(0..=1) };
        Self { cluster, fall, moment, wait_replicas, at_once: random.random() }
    }

    fn kind(&self) -> &'static str {
        match (self.cluster, self.fall) {
            (false, Fall::Kill) => "kill -9 of the primary under Sentinels",
            (false, Fall::Stop) => "SIGSTOP of the primary under Sentinels",
            (false, Fall::Ordered) => "SENTINEL FAILOVER",
            (true, Fall::Kill) => "kill -9 of the node with our slot",
            (true, Fall::Stop) => "SIGSTOP of the node with our slot",
            (true, Fall::Ordered) => "CLUSTER FAILOVER",
        }
    }

    async fn play(&self, seed: u64, account: &mut Account) {
        let servers = if self.cluster { Servers::cluster().await } else { Servers::watched().await };
        let (mut failover, load) = Failover::prepare(servers, self.wait_replicas).await;
        account.rounds += 1;
        *account.faults.entry(self.kind()).or_default() += 1;
        self.strike(&mut failover, seed).await;
        let began = Instant::now();
        failover.heir_takes_over().await;
        let taken_over = began.elapsed();
        let fallen = failover.comes_back(self.fall, self.at_once).await;
        let whole = began.elapsed();
        let alive = comes_back(&failover.replicas, &failover.replicas.first, &load).await;
        println!(
            "round {seed}: {self:?}: taken over after {taken_over:?}, whole after {whole:?}, new tokens everywhere or the \
             grant's end after {:?}",
            began.elapsed()
        );
        let tally = load.end().await;
        let judged = self.judge(&failover, &fallen, account).await;
        let judged = judged.and_then(|lost| match (alive, lost) {
            (Err(fault), _) => Err(fault),
            (Ok(false), false) => Err("the grant has ended, and nothing explains it".to_owned()),
            (Ok(_), _) => callers_are_content(&tally, &[], lost),
        });
        account.tally.add(tally);
        if let Err(fault) = judged {
            let changes = failover.replicas.redis.all()[failover.heir].changes();
            let kept = keep(seed, &failover.replicas, "", &changes).await;
            panic!(
                "round {seed}, {self:?}: {fault}\nlogs: {kept}\nagain: make chaos ROUNDS=0 FAILOVERS=1 SEED={seed}\n{account}"
            );
        }
    }

    /// Has the primary go at its moment.
    async fn strike(&self, failover: &mut Failover, seed: u64) {
        match self.moment {
            Moment::Any => sleep(Duration::from_millis(seed * 97 % 1000)).await,
            Moment::AnswerOnItsWay => failover.an_answer_is_on_its_way().await,
            Moment::AnswerLost => {
                failover.an_answer_is_on_its_way().await;
                failover.provider_line.reset();
            }
        }
        failover.strike(self.fall).await;
        failover.provider_line.heal().await;
    }

    /// Accounts for every refresh token. True: the grant was lost, with an excuse.
    async fn judge(
        &self,
        failover: &Failover,
        fallen: &HashSet<Vec<String>>,
        account: &mut Account,
    ) -> Result<bool, String> {
        let remembered = failover.replicas.redis.all()[failover.heir].changes();
        let forgotten = fallen.iter().filter(|words| matters(words) && !remembered.contains(words)).count();
        let excused = self.wait_replicas == 0 && forgotten > 0;
        println!("  {forgotten} writes on the fallen server alone{}", if excused { ", which counted" } else { "" });
        let story = self.story(failover, excused).await;
        let log = failover.replicas.provider.log().await;
        let (requests, refused) = (log.len(), log.iter().any(|entry| entry.status != Some(200)));
        account.requests += requests;
        let tokens = log.iter().map(|entry| &entry.presented).collect::<HashSet<_>>().len();
        account.tokens += tokens;
        let repeats = story.as_ref().map_err(Clone::clone).and_then(|story| repeats(story));
        match repeats {
            Ok(repeats) => repeats.into_iter().for_each(|why| *account.repeats.entry(why).or_default() += 1),
            Err(_) if excused => *account.repeats.entry(LOST_BY_REDIS).or_default() += requests - tokens,
            Err(fault) => return Err(fault),
        }
        if !refused {
            return Ok(false);
        }
        let excuse = match (self.moment == Moment::AnswerLost, excused) {
            (true, _) => LOST_ANSWER,
            (false, true) => LOST_BY_REDIS,
            (false, false) => return Err(format!("a grant was lost without an excuse: {log:#?}")),
        };
        *account.lost.entry(excuse).or_default() += 1;
        Ok(true)
    }

    /// What the heir and the provider tell; waits until it is the same, unless it need not be.
    async fn story(&self, failover: &Failover, excused: bool) -> Result<Vec<Presented>, String> {
        let mut story = Err(String::new());
        let give_up = Instant::now() + if excused { WAY_BACK / 20 } else { WAY_BACK };
        while story.is_err() && Instant::now() < give_up {
            let log = failover.replicas.provider.log().await;
            story = self::story(&failover.replicas.redis.all()[failover.heir].changes(), &log);
            sleep(Duration::from_millis(50)).await;
        }
        story
    }
}

/// Whether a write tells of a grant's secrets, or that one was sent.
fn matters(words: &[String]) -> bool {
    let (Some("HSET"), Some(key)) = (words.first().map(String::as_str), words.get(1)) else { return false };
    let told = ["rev", "sent_us", "settled"];
    key.ends_with(":grant") && words[2..].iter().step_by(2).any(|field| told.contains(&field.as_str()))
}

/// Why each refresh token that was presented more than once could be.
fn repeats(story: &[Presented]) -> Result<Vec<&'static str>, String> {
    let why =
        story.iter().map(|presented| presented.repeats(TAKEOVER).map_err(|fault| format!("{fault}: {presented:?}")));
    Ok(why.collect::<Result<Vec<_>, _>>()?.concat())
}
