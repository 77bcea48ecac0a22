//! What bearerd costs, each figure beside its limit or peer in the same run: `make bench`, `make bench-check`.
//!
//! Processes, load and clocks of one machine differ from minute to minute far more than what is looked for here. So
//! nothing is measured alone: bearerd and what stands beside it take turns, and what is reported is their ratio.
//! Instructions are counted besides, which no neighbour disturbs; a baseline of them is kept in the repository.
//!
//! In reading order: `chapters` says what is compared, `parts` what runs, `pair`, `load`, `crowd` and `callgrind`
//! how it is measured, `row`, `report` and `baseline` what becomes of it.
//!
//! There are two programs of it, which differ in their allocator alone: `main` has the system's, as most programs have, and
//! `bin/bearerd-bench-jemalloc` has bearerd's. The bare echo is served by either.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

mod baseline;
mod bench;
mod callgrind;
mod chapters;
mod crowd;
mod error;
mod load;
mod machine;
mod pair;
mod parts;
mod pin;
mod preload;
mod report;
mod row;
mod wave;

use bench::Bench;
use error::{Error, failed};

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match carried_out(&words) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when stderr is closed as well.
            let _ = writeln!(io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carried_out(words: &[&str]) -> Result<ExitCode, Error> {
    match words {
        ["serve-echo", response, tls @ ..] => parts::echo::serve(response, tls).map(|()| ExitCode::SUCCESS),
        ["serve-provider", latency, lifetime] => parts::provider::serve(latency, lifetime).map(|()| ExitCode::SUCCESS),
        ["ask-redis", port, requests] => parts::redis::ask(port, requests).map(|()| ExitCode::SUCCESS),
        ["read-challenges", times] => chapters::instructions::read_challenges(times).map(|()| ExitCode::SUCCESS),
        ["check"] => baseline::check(&Bench::new()?),
        ["baseline"] => baseline::write(&Bench::new()?).map(|()| ExitCode::SUCCESS),
        names => measure(names).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs the chapters of these names, or all, and writes each one's table as soon as it is there.
fn measure(names: &[&str]) -> Result<(), Error> {
    if let Some(unknown) = names.iter().find(|name| chapters::ALL.iter().all(|chapter| chapter.name != **name)) {
        let known: Vec<&str> = chapters::ALL.iter().map(|chapter| chapter.name).collect();
        return Err(failed(format!("there is no chapter {unknown}; there are {}", known.join(", "))));
    }
    let bench = Bench::new()?;
    for chapter in chapters::ALL.iter().filter(|chapter| names.is_empty() || names.contains(&chapter.name)) {
        say(&format!("{}: {}", chapter.name, chapter.what));
        let rows = (chapter.run)(&bench)?;
        say(&report::table(&rows));
        report::write(&bench, chapter.name, &rows)?;
    }
    Ok(())
}

/// One line for whoever waits.
fn say(line: &str) {
    // Nobody waits when stdout is closed.
    let _ = writeln!(io::stdout(), "{line}");
}
