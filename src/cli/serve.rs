//! `bearerd serve`: runs the service.

use std::{
    future::Future,
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::Args as ClapArgs;
#[cfg(target_os = "linux")]
use rustix::process::DumpableBehavior;
use rustix::process::{self, Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::output::{Exit, Failure, Streams};
use crate::{
    app::{App, AppError},
    config::{self, Config, Log, LogFormat},
    server::ServerError,
    store::StoreError,
};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd serve --config /etc/bearerd/bearerd.toml";

/// The arguments of `bearerd serve`.
#[derive(ClapArgs)]
pub struct Args {
    /// The configuration file; without it ./bearerd.toml, then /etc/bearerd/bearerd.toml
    #[arg(long, value_name = "FILE", env = "BEARERD_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs the service until SIGTERM or SIGINT.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    // Before the first secret is read.
    let undumpable = forbid_core_dumps();
    let Some(config) = load(args.config.as_deref(), streams) else { return Ok(Exit::Configuration) };
    log_to_stderr(&config.log)?;
    #[cfg(feature = "failpoints")]
    if let Some(directory) = std::env::var_os("BEARERD_FAILPOINTS") {
        crate::failpoint::watch(directory.into());
    }
    if let Err(error) = undumpable {
        warn!(%error, "core dumps could not be switched off; one would hold secrets");
    }
    let stopped = stop_signal()?;
    let hangup = listen_for(SignalKind::hangup())?;
    let mut app = App::start(config).await.map_err(|error| failure(&error))?;
    app.follow(move || config::load(args.config.as_deref(), &environment), hangup);
    app.run_until(stopped).await.map_err(|error| failure(&error))?;
    Ok(Exit::Success)
}

/// No core dump of this process is written, and no other process of the same user may look into its memory. Neither is
/// taken back by anything that a request does.
fn forbid_core_dumps() -> io::Result<()> {
    process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Reads the configuration; every mistake and warning in it goes to stderr.
pub fn load(path: Option<&std::path::Path>, streams: &mut Streams<'_>) -> Option<Config> {
    let colour = io::stderr().is_terminal();
    match config::load(path, &environment) {
        Ok(config) => {
            for warning in &config.warnings {
                streams.text(&format!("{}\n", warning.render(colour)));
            }
            Some(config)
        }
        Err(errors) => {
            streams.text(&format!("{}\n", errors.render(colour)));
            None
        }
    }
}

/// The HTTP/2 library writes a warning for each answer to a ping that was not sent, so anybody who can connect could fill
/// the log. What stands in the configuration about exactly this module counts more.
const UNASKED: &str = "h2::proto::ping_pong=error";

/// Writes the log to stderr from here on.
pub fn log_to_stderr(log: &Log) -> Result<(), Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::new(Exit::Configuration, format!("log.filter: {error}"));
    let filter = EnvFilter::try_new(format!("{UNASKED},{}", log.filter)).map_err(|error| refused(&error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| refused(&error))
}

/// Ends at the first SIGTERM, as Kubernetes sends it, or SIGINT, as a terminal does.
pub fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminated = listen_for(SignalKind::terminate())?;
    let mut interrupted = listen_for(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Failure, format!("cannot listen for signals: {error}")))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn failure(error: &AppError) -> Failure {
    let exit = match error {
        AppError::Store(StoreError::Unavailable(_)) => Exit::Unavailable,
        AppError::Store(StoreError::Open(_) | StoreError::Unreadable(_))
        | AppError::Server(ServerError::Tls(_))
        | AppError::Audit(_) => Exit::Configuration,
        AppError::Server(ServerError::Listener(_)) | AppError::Client(_) | AppError::Tls(_) | AppError::Ended => {
            Exit::Failure
        }
    };
    Failure::new(exit, error.to_string())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn neither_a_dump_nor_another_process_shows_the_memory() {
        forbid_core_dumps().unwrap();
        let core = process::getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        assert_eq!(process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
