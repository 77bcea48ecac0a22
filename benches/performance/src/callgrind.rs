//! How many instructions one call costs, counted by valgrind: over the whole process, in two runs that differ in nothing
//! but the number of calls, so that starting and ending cancel out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    load::Load,
    parts::{How, Server},
    pin::Cores,
};

/// The two numbers of calls. Timers go off during both, so the difference must be large beside what they cost.
const CALLS: [u64; 2] = [1_000, 11_000];

/// A program on the server's core, with its instructions counted into a file.
pub fn command(cores: &Cores, file: &Path, program: &str) -> Command {
    let mut command = cores.server("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", file.display())).arg(program);
    command
}

/// The instructions of each call of a server that this starts. The calls come one after the other: how many find
/// themselves in one wake-up would otherwise depend on the machine.
pub fn per_call<S: Server>(bench: &Bench, start: impl Fn(&How) -> Result<S, Error>) -> Result<f64, Error> {
    difference(bench, |file, requests| {
        let server = start(&How::Counted(file))?;
        Load { connections: 1, streams: 1, requests }.on(bench, &server, None)?;
        server.stop()
    })
}

/// The instructions of each turn of this program's own work, named by a word of its command line.
pub fn per_turn(bench: &Bench, work: &str) -> Result<f64, Error> {
    difference(bench, |file, turns| {
        let mut command = command(&bench.cores, &file, &bench.itself()?.to_string_lossy());
        command.args([work, &turns.to_string()]);
        let status = command.status().map_err(cannot("start valgrind (scripts/bench-setup installs it)"))?;
        if status.success() { Ok(()) } else { Err(failed(format!("{work} under valgrind: {status}"))) }
    })
}

fn difference(bench: &Bench, run: impl Fn(PathBuf, u64) -> Result<(), Error>) -> Result<f64, Error> {
    let [few, many] = CALLS;
    let count = |calls| {
        let file = bench.scratch().join("callgrind.out");
        run(file.clone(), calls)?;
        total(&file)
    };
    let (less, more): (u64, u64) = (count(few)?, count(many)?);
    Ok((more - less) as f64 / (many - few) as f64)
}

/// The sum over all threads, as callgrind writes it at the end.
fn total(file: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(file).map_err(cannot("read what callgrind wrote"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.ok_or_else(|| failed("callgrind wrote no total"))
}
