//! What happened in many runs, added up, as a table for people.

use std::{collections::BTreeMap, fmt};

use parking_lot::Mutex;

use super::{
    oracle::{DOUBLE, LOST},
    run::Report,
};

/// How often each thing happened.
#[derive(Default)]
pub struct Figures {
    seeds: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Figures that several threads add to.
#[derive(Default)]
pub struct Sums(Mutex<Figures>);

impl Sums {
    pub fn add(&self, report: &Report) {
        let mut figures = self.0.lock();
        figures.seeds += 1;
        report.counts.iter().for_each(|(what, count)| *figures.counts.entry(what).or_default() += count);
    }

    pub fn total(self) -> Figures {
        self.0.into_inner()
    }
}

/// What goes wrong in the world, by where it does.
const FAULTS: [&str; 6] = ["event ", "provider: ", "replica ", "store: ", "store is ", "store goes "];

/// What a grant is lost to, which `docs/reliability.md` says cannot be helped.
const LOSSES: &str = "lost: ";

impl Figures {
    fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    fn those<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.counts.iter().filter_map(move |(what, count)| Some((what.strip_prefix(prefix)?, *count)))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, count: u64| writeln!(f, "{count:>12}  {what}");
        line("seeds run", self.seeds)?;
        for what in ["get", "report", "import"] {
            line(&format!("calls: {what}"), self.of(what))?;
        }
        for (how, count) in self.those("import: ") {
            line(&format!("imports: {how}"), count)?;
        }
        line("answers with a token", self.of("served"))?;
        line("reports held back", self.of("held back"))?;
        for prefix in FAULTS {
            for (what, count) in self.those(prefix) {
                line(&format!("fault: {prefix}{what}"), count)?;
            }
        }
        line("calls to the store", self.of("store call"))?;
        line("requests to providers", self.of("request"))?;
        line("refreshes stored", self.of("refresh"))?;
        line("recoveries: asked again after an answer that went missing", self.of("recovery"))?;
        line("takeovers: asked again while another could not store its answer", self.of("takeover"))?;
        line("answers that came too late: kept", self.of("late answer kept"))?;
        line("answers that came too late: tried", self.of("late answer adopted"))?;
        line("writes that the store had lost: written once more", self.of("written once more"))?;
        line("refusals that were kept to one token", self.of("refused for what was asked"))?;
        line("dead grants: tried again without an operator", self.of("dead grant tried again"))?;
        line("dead grants: tried again by an operator", self.of("grant retried by an operator"))?;
        line("dead grants: alive again", self.of("grant revived"))?;
        line("providers that were left alone because they wanted a rest", self.of("left alone"))?;
        line(DOUBLE, self.of(DOUBLE))?;
        for (why, count) in self.those(LOSSES) {
            line(&format!("grant lost, as documented: {why}"), count)?;
        }
        line(LOST, self.of(LOST))
    }
}
