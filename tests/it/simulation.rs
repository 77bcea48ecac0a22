//! The refresh protocol, simulated: the real brokers of several replicas in one thread, on a clock that stands still
//! while anything happens, with a store and providers where anything can go wrong. A seed decides all of it.
//!
//! `SEED=7 cargo test --test it simulation::holds -- --nocapture` does the run of one seed and tells it step by step;
//! `make soak SEEDS=10000 FIRST=5000` does many, and adds up what happened.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use bearerd::store::Store;
use parking_lot::Mutex;

use self::{
    figures::{Figures, Sums},
    flaw::Flaw,
    run::{Report, run},
    store::SimStore,
};

mod callers;
mod chance;
mod faults;
mod figures;
mod flaw;
mod keys;
mod oracle;
mod provider;
mod run;
mod store;
mod wire;

/// How many seeds a run of the tests takes, unless `SEEDS` says otherwise.
const SEEDS: u64 = 1_200;

/// After so many seeds that failed, more would tell nothing new, unless `FAILURES` says otherwise.
const ENOUGH: u64 = 10;

/// A store for the contract; nothing else has to live with it.
pub async fn new_store() -> (Arc<dyn Store>, ()) {
    (Arc::new(SimStore::new(None)), ())
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn tell(seed: u64, report: &Report) -> String {
    let faults = report.faults.join("\n  ");
    format!("seed {seed}:\n  {faults}\nagain: SEED={seed} cargo test --test it simulation::holds -- --nocapture")
}

fn on_all_cores(work: impl Fn() + Sync) {
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..threads).for_each(|_| drop(scope.spawn(&work)));
    });
}

/// Does the runs of many seeds, on all cores, and adds up what happened.
fn soak(seeds: std::ops::Range<u64>) -> (Figures, Vec<String>) {
    let enough = number("FAILURES").unwrap_or(ENOUGH);
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let sums = Sums::default();
    let failures: Mutex<Vec<(u64, String)>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end || failures.lock().len() as u64 >= enough {
                return;
            }
            let report = run(seed, None, false);
            if !report.faults.is_empty() {
                failures.lock().push((seed, tell(seed, &report)));
            }
            sums.add(&report);
        }
    };
    on_all_cores(work);
    let mut failures = failures.into_inner();
    failures.sort();
    (sums.total(), failures.into_iter().map(|(_, text)| text).collect())
}

#[test]
fn holds() {
    if let Some(seed) = number("SEED") {
        let report = run(seed, None, true);
        println!("{}\n{:#?}", report.trace.join("\n"), report.counts);
        assert!(report.faults.is_empty(), "{}", tell(seed, &report));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST").unwrap_or(0);
    let (figures, failures) = soak(first..first + seeds);
    println!("{figures}");
    assert!(failures.is_empty(), "{} seeds failed, from {first} on\n{}", failures.len(), failures.join("\n"));
}

/// The same seed, the same run: what was found once is found again.
#[test]
fn repeats_itself() {
    for seed in 0..number("SEEDS").unwrap_or(3) {
        let (one, other) = (run(seed, None, true), run(seed, None, true));
        let differs = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!((differs, one.trace.len()), (None, other.trace.len()), "seed {seed}");
    }
}

/// The oracle has teeth: a store that breaks its contract is found out.
#[test]
fn notices_every_flaw() {
    let next = AtomicUsize::new(0);
    let found: Mutex<BTreeMap<usize, Option<(u64, String)>>> = Mutex::default();
    let work = || {
        while let Some((index, flaw)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, Flaw::ALL.get(n)?)))
        {
            let first = |seed| Some((seed, run(seed, Some(*flaw), false).faults.into_iter().next()?));
            let first = (0..flaw.teeth()).find_map(first);
            found.lock().insert(index, first);
        }
    };
    on_all_cores(work);
    let found = found.into_inner();
    for (index, first) in &found {
        let flaw = format!("{:?}", Flaw::ALL[*index]);
        let noticed = first.as_ref().map(|(seed, fault)| format!("{:>3} seeds  {fault}", seed + 1));
        println!("{flaw:<20} {}", noticed.unwrap_or_else(|| "not noticed".to_owned()));
    }
    assert_eq!(found.len(), Flaw::ALL.len());
    assert!(found.values().all(Option::is_some), "a flaw was not noticed");
}
