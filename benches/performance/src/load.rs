//! Load by h2load, which is not of our making, and what came of it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    pair::Pair,
    parts::{Answered, Protocol, Server, certificates::Certificates},
    preload::library,
};

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections.
    pub connections: u32,
    /// Requests under way on each.
    pub streams: u32,
    /// Requests in all.
    pub requests: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Calls a second.
    pub rate: f64,
    /// How long half of the calls took at most, in µs.
    pub p50: f64,
    /// How long all but one in a hundred took at most, in µs.
    pub p99: f64,
    /// The server's processor time for each call, in µs.
    pub cpu: f64,
}

/// A server that had its core to itself and was busy for less of the time than this waited for load: what was measured
/// then is something else's limit.
const BUSY: f64 = 0.85;

impl Loaded {
    /// Whether the server worked as much as it could, so that the rate is its own.
    fn is_the_servers_limit(self) -> bool {
        self.rate * self.cpu / 1e6 >= BUSY
    }
}

/// Why nothing follows from the rates of these pairs, if nothing does.
pub fn doubt<T>(pairs: &[Pair<T>], loaded: impl Fn(&T) -> Loaded) -> Option<&'static str> {
    let sides = pairs.iter().flat_map(|pair| [&pair.ours, &pair.theirs]);
    let all_busy = sides.map(loaded).all(Loaded::is_the_servers_limit);
    (!all_busy).then_some("not known: who was measured waited for the machine")
}

impl Load {
    /// Sends it, and makes sure that each call was answered well.
    pub fn on(self, bench: &Bench, server: &impl Server, tls: Option<&Certificates>) -> Result<Loaded, Error> {
        let (before, began) = (server.answered()?, server.cpu()?);
        let log = bench.scratch().join("h2load.log");
        let printed = self.send(bench, server, tls, &log)?;
        let (after, ended) = (server.answered()?, server.cpu()?);
        let answered = after.since(before);
        if answered != (Answered { well: self.requests, ..Answered::default() }) {
            return Err(failed(format!("{} calls were not all answered well: {answered:?}", self.requests)));
        }
        self.read(&printed, &log, ended.saturating_sub(began))
    }

    fn send(
        self,
        bench: &Bench,
        server: &impl Server,
        tls: Option<&Certificates>,
        log: &Path,
    ) -> Result<String, Error> {
        let requests = server.requests().iter().map(|message| framed(message)).collect::<Result<Vec<_>, _>>()?;
        let body = bench.scratch().join("request.bin");
        fs::write(&body, requests.first().map_or(&[][..], Vec::as_slice)).map_err(cannot("write a request"))?;
        // It appends to a log that is there.
        if log.exists() {
            fs::remove_file(log).map_err(cannot("remove an old log"))?;
        }
        let mut command = match server.protocol() {
            Protocol::Grpc => self.of_grpc(bench, &body, &server.url()),
            Protocol::Get(authorization) => self.of_http1(bench, authorization, &server.url()),
        };
        command.arg("--log-file").arg(log);
        if let Some(certificates) = tls {
            command.env("LD_PRELOAD", library(bench, "client_certificate")?);
            command.env("CLIENT_CERTIFICATE", certificates.directory().join("client"));
            command.env("CLIENT_KEY", certificates.directory().join("client.key"));
        }
        if requests.len() > 1 {
            let bodies = bench.scratch().join("requests.bin");
            fs::write(&bodies, requests.concat()).map_err(cannot("write requests"))?;
            command.env("LD_PRELOAD", library(bench, "varied_body")?).env("BODIES", bodies);
        }
        let output = command.output().map_err(cannot("start h2load (scripts/bench-setup installs it)"))?;
        succeeded(&output, self.requests)
    }

    /// The command for calls with what is in a file, to which more can be added.
    pub fn of_grpc(self, bench: &Bench, body: &Path, url: &str) -> Command {
        let mut command = self.command(bench);
        command.arg("-d").arg(body).args(["-H", "content-type: application/grpc", "-H", "te: trailers"]).arg(url);
        bench.note(&command, &[(&*body.to_string_lossy(), "request.bin"), (&authority(url), "$ADDRESS")]);
        command
    }

    fn of_http1(self, bench: &Bench, authorization: Option<&str>, url: &str) -> Command {
        let mut command = self.command(bench);
        let field = authorization.map(|value| format!("authorization: {value}"));
        command.arg("--h1").args(field.iter().flat_map(|field| ["-H", field])).arg(url);
        bench.note(&command, &[(&authority(url), "$ADDRESS")]);
        command
    }

    fn command(self, bench: &Bench) -> Command {
        let mut command = bench.cores.load("h2load");
        command.args(["-t1", &format!("-c{}", self.connections), &format!("-m{}", self.streams)]);
        command.arg(format!("-n{}", self.requests));
        command
    }

    fn read(self, printed: &str, log: &Path, cpu: Duration) -> Result<Loaded, Error> {
        let rate = printed.split(", ").find_map(|part| part.strip_suffix(" req/s")?.parse().ok());
        let log = fs::read_to_string(log).map_err(cannot("read h2load's log"))?;
        let times = log.lines().filter_map(|line| line.rsplit('\t').next()?.parse::<f64>().ok());
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        let percentile = |percent: usize| times.get(times.len() * percent / 100).copied();
        let (Some(rate), Some(p50), Some(p99)) = (rate, percentile(50), percentile(99)) else {
            return Err(failed(format!("h2load says something new: {printed}")));
        };
        Ok(Loaded { rate, p50, p99, cpu: cpu.as_secs_f64() * 1e6 / times.len() as f64 })
    }
}

/// What h2load printed, if it says that all of so many requests were answered.
pub fn succeeded(output: &Output, requests: u64) -> Result<String, Error> {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = format!(" {requests} succeeded, 0 failed, 0 errored, 0 timeout");
    if printed.contains(&wanted) && printed.contains(&format!("status codes: {requests} 2xx")) {
        return Ok(printed);
    }
    Err(failed(format!("h2load failed: {printed}{}", String::from_utf8_lossy(&output.stderr))))
}

/// A message as gRPC sends it: not compressed, its length in front.
pub fn framed(message: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(message.len()).map_err(|_| failed("the request is too long"))?;
    Ok([&[0][..], &length.to_be_bytes(), message].concat())
}

fn authority(url: &str) -> String {
    url.split('/').nth(2).unwrap_or_default().to_owned()
}
