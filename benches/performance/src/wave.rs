//! Calls that are made all at once to several servers, by one h2load for each of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    load::{Load, framed, succeeded},
};

/// Connections to each server.
const CONNECTIONS: u32 = 4;

/// Makes this many calls with one message, spread evenly over these URLs, and tells how long it took from the first request
/// until the last answer.
pub fn send(bench: &Bench, urls: &[String], message: &[u8], calls: u32) -> Result<Duration, Error> {
    let body = bench.scratch().join("request.bin");
    fs::write(&body, framed(message)?).map_err(cannot("write a request"))?;
    let servers = u32::try_from(urls.len()).map_err(|_| failed("there are too many servers"))?;
    let parts = urls.iter().zip(0..).map(|(url, number)| (url, number, (calls + number) / servers));
    let parts = parts.filter(|(.., calls)| *calls > 0).map(|(url, number, calls)| {
        let log = bench.scratch().join(format!("wave-{number}.log"));
        Part::send(bench, url, &body, log, calls)
    });
    // All of them are at work before the first one is waited for.
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let times = parts.into_iter().map(Part::times).collect::<Result<Vec<_>, _>>()?.concat();
    let first = times.iter().map(|(asked, _)| *asked).min();
    let last = times.iter().map(|(_, answered)| *answered).max();
    let (first, last) = first.zip(last).ok_or_else(|| failed("nobody asked"))?;
    Ok(Duration::from_micros(last - first))
}

/// The calls to one server.
struct Part {
    h2load: Child,
    log: PathBuf,
    calls: u32,
}

impl Part {
    fn send(bench: &Bench, url: &str, body: &Path, log: PathBuf, calls: u32) -> Result<Self, Error> {
        if log.exists() {
            fs::remove_file(&log).map_err(cannot("remove an old log"))?;
        }
        let connections = CONNECTIONS.min(calls);
        let load = Load { connections, streams: calls.div_ceil(connections), requests: calls.into() };
        let mut command = load.of_grpc(bench, body, url);
        command.arg("--log-file").arg(&log).stdout(Stdio::piped());
        let h2load = command.spawn().map_err(cannot("start h2load (scripts/bench-setup installs it)"))?;
        Ok(Self { h2load, log, calls })
    }

    /// When each call was asked and answered, in µs of the clock on the wall.
    fn times(self) -> Result<Vec<(u64, u64)>, Error> {
        let output = self.h2load.wait_with_output().map_err(cannot("wait for h2load"))?;
        succeeded(&output, self.calls.into())?;
        let log = fs::read_to_string(&self.log).map_err(cannot("read h2load's log"))?;
        let times = log.lines().map(|line| {
            let mut columns = line.split('\t').map(str::parse::<u64>);
            // Between the two stands the status.
            let (asked, took) = (columns.next()?.ok()?, columns.nth(1)?.ok()?);
            Some((asked, asked + took))
        });
        let times = times.collect::<Option<Vec<_>>>().filter(|times| times.len() == self.calls as usize);
        times.ok_or_else(|| failed("h2load logs something new"))
    }
}
