//! The instruction counts that are kept in the repository, and what is told when they grow.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use serde::{Deserialize, Serialize};

use crate::{
    bench::Bench,
    chapters::instructions,
    error::{Error, cannot, failed},
    machine, say,
};

/// How much a count may grow. Repeated counts differ by less than two thirds of this.
const GROWTH: f64 = 0.03;

/// The file's content.
#[derive(Deserialize, Serialize)]
struct Baseline {
    /// The compiler that made what was counted; another one makes other instructions.
    compiler: String,
    /// Instructions of one call, by name.
    instructions: BTreeMap<String, f64>,
}

/// Counts, and says what grew by too much: then the exit code is 1.
pub fn check(bench: &Bench) -> Result<ExitCode, Error> {
    let text = fs::read_to_string(file()).map_err(cannot("read the baseline"))?;
    let kept: Baseline = toml::from_str(&text).map_err(|why| failed(format!("the baseline: {why}")))?;
    let compiler = machine::compiler();
    if kept.compiler != compiler {
        say(&format!("the baseline is of {}, this is {compiler}", kept.compiler));
    }
    let mut grown = false;
    for (name, now) in instructions::counts(bench)? {
        let before = kept.instructions.get(name);
        let before = before.ok_or_else(|| failed(format!("{name} is not in the baseline; make bench-baseline")))?;
        let growth = now / before - 1.0;
        grown |= growth > GROWTH;
        say(&format!("{name:<20} {before:>10.0} -> {now:>10.0} {:>+7.2} %{}", growth * 100.0, verdict(growth)));
    }
    Ok(if grown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn verdict(growth: f64) -> &'static str {
    if growth > GROWTH {
        "  too much"
    } else if growth < -GROWTH {
        "  less: keep it, make bench-baseline"
    } else {
        ""
    }
}

/// Counts, and keeps the counts.
pub fn write(bench: &Bench) -> Result<(), Error> {
    let counts = instructions::counts(bench)?.into_iter();
    let instructions = counts.map(|(name, count)| (name.to_owned(), count.round())).collect();
    let kept = Baseline { compiler: machine::compiler(), instructions };
    let text = toml::to_string(&kept).map_err(|why| failed(format!("the baseline: {why}")))?;
    let head = "# Instructions of one call, counted by callgrind; `make bench-baseline` writes this, `make bench-check` reads it.\n";
    fs::write(file(), format!("{head}{text}")).map_err(cannot("write the baseline"))?;
    say(&text);
    Ok(())
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.toml")
}
