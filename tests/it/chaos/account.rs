//! What is told of rounds of faults: the figures, what became of the grant and of the callers, and where to look when
//! something went wrong.

use std::{
    collections::BTreeMap,
    env, fmt,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    faults::Blow,
    load::{Load, Tally},
    scene::why,
};
use crate::support::replicas::Replicas;

/// Longer than the longest way back: a takeover, a back-off that has grown, and a busy machine.
pub const WAY_BACK: Duration = Duration::from_secs(60);

/// The figures.
#[derive(Default)]
pub struct Account {
    pub rounds: u64,
    pub faults: BTreeMap<&'static str, usize>,
    pub tally: Tally,
    pub requests: usize,
    pub tokens: usize,
    pub repeats: BTreeMap<&'static str, usize>,
    /// Answers in the spool of a killed replica that were stored after its restart.
    pub saved: usize,
    pub lost: BTreeMap<&'static str, usize>,
}

/// Waits until every replica gives new tokens, or all of them say that the grant has ended. True: it lives.
pub async fn comes_back<R>(replicas: &Replicas<R>, grant: &str, load: &Load) -> Result<bool, String> {
    let mark = load.so_far(|tally| tally.newest.values().copied().max().unwrap_or_default());
    let all_new = |tally: &Tally| (0..3).all(|replica| tally.newest.get(&replica).is_some_and(|now| *now > mark));
    let give_up = Instant::now() + WAY_BACK;
    while Instant::now() < give_up {
        if load.so_far(all_new) && replicas.provider.alive(grant).await {
            return Ok(true);
        }
        if has_ended(replicas).await {
            return Ok(false);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no way back from {mark}: {:?}", load.so_far(|tally| tally.newest.clone())))
}

async fn has_ended<R>(replicas: &Replicas<R>) -> bool {
    for replica in 0..3 {
        let answer = replicas.get(replica).await;
        if !answer.is_err_and(|status| why(&status).0 == "REAUTHORIZATION_REQUIRED") {
            return false;
        }
    }
    true
}

/// Callers got a valid token or a word to try again, unless their replica was not there or the grant was lost.
pub fn callers_are_content(tally: &Tally, blows: &[Blow], lost: bool) -> Result<(), String> {
    let silent = blows.iter().any(Blow::silences_a_replica);
    if !tally.wrong.is_empty() {
        return Err(format!("callers were told what nobody may be told: {:?}", tally.wrong));
    }
    if tally.unanswered() > 0 && !silent {
        return Err(format!("callers found nobody: {:?}", tally.errors));
    }
    if !lost && (tally.ended > 0 || !tally.unknown.is_empty()) {
        return Err(format!("no grant was lost, but {} were told so, and {:?}", tally.ended, tally.unknown));
    }
    Ok(())
}

/// Keeps what tells how it came to this; says where.
pub async fn keep<R>(seed: u64, replicas: &Replicas<R>, logs: &str, changes: &[Vec<String>]) -> String {
    let directory = env::temp_dir().join(format!("bearerd-chaos-{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut logs = logs.to_owned();
    for (number, replica) in replicas.each.iter().enumerate() {
        logs.push_str(&format!("--- replica {number}\n{}", replica.log()));
    }
    let changes: Vec<String> = changes.iter().map(|words| words.join(" ")).collect();
    let asked: Vec<String> = replicas.provider.log().await.iter().map(|entry| format!("{entry:?}")).collect();
    for (name, text) in [("replicas", logs), ("redis", changes.join("\n")), ("provider", asked.join("\n"))] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    directory.display().to_string()
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, faults, tally, requests, tokens, repeats, saved, lost } = self;
        let of = |map: &BTreeMap<&str, usize>| map.values().sum::<usize>();
        writeln!(f, "{rounds} rounds, {} faults: {faults:#?}", of(faults))?;
        writeln!(
            f,
            "{} calls: {} tokens ({} degraded), {} told that the grant ended, 0 wrong answers; errors: {:#?}",
            tally.calls, tally.tokens, tally.degraded, tally.ended, tally.errors
        )?;
        writeln!(f, "{tokens} refresh tokens presented in {requests} requests")?;
        writeln!(f, "{} double presentations, allowed because {repeats:#?}", requests - tokens)?;
        writeln!(f, "{saved} answers of killed replicas stored out of their spool")?;
        writeln!(f, "{} grants lost, because {lost:#?}", of(lost))
    }
}
