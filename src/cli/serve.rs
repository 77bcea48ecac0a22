//! `bearerd serve`: runs the service.

use std::{
    future::Future,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::Args as ClapArgs;
#[cfg(target_os = "linux")]
use rustix::process::DumpableBehavior;
use rustix::process::{self, Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, warn};

use super::{
    log,
    output::{Exit, Failure, Streams},
};
use crate::{
    app::{App, AppError},
    config::{self, Config, ConfigErrors, Log, LogFormat, Warning},
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
    let config = match read(args.config.as_deref()) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors, streams),
    };
    let format = config.log.format;
    log::to_stderr(&config.log)?;
    config
        .warnings
        .iter()
        .for_each(|warning| warn!(place = warning.place(), remedy = warning.remedy(), "{}", warning.title()));
    if let Err(error) = undumpable {
        warn!(%error, "core dumps could not be switched off; one would hold secrets");
    }
    match (serve(args, config).await, format) {
        (Err(failure), LogFormat::Json) => {
            error!(exit_code = failure.exit() as u64, "{}", failure.message());
            Ok(failure.exit())
        }
        (ended, LogFormat::Text | LogFormat::Json) => ended,
    }
}

async fn serve(args: Args, config: Config) -> Result<Exit, Failure> {
    #[cfg(feature = "failpoints")]
    if let Some(directory) = std::env::var_os("BEARERD_FAILPOINTS") {
        crate::failpoint::watch(directory.into());
    }
    let stopped = stop_signal()?;
    let hangup = listen_for(SignalKind::hangup())?;
    let mut app = App::start(config).await.map_err(|error| failure(&error))?;
    app.follow(move || config::load(args.config.as_deref(), &environment), hangup);
    app.run_until(stopped).await.map_err(|error| failure(&error))?;
    Ok(Exit::Success)
}

/// Tells why a configuration cannot be started with: in the form of its log, as far as that can be read.
fn refuse(errors: &ConfigErrors, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    if errors.log_format() == LogFormat::Json {
        log::to_stderr(&Log { filter: "info".to_owned(), format: LogFormat::Json })?;
        for mistake in errors.mistakes() {
            error!(place = mistake.place(), remedy = mistake.remedy(), "{}", mistake.title());
        }
    } else {
        tell_mistakes(errors, streams);
    }
    Ok(Exit::Configuration)
}

/// No core dump of this process is written, and no other process of the same user may look into its memory. Neither is
/// taken back by anything that a request does.
fn forbid_core_dumps() -> io::Result<()> {
    process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Reads the configuration.
pub fn read(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    config::load(path, &environment)
}

/// Writes mistakes to stderr, each with its place in the file.
pub fn tell_mistakes(errors: &ConfigErrors, streams: &mut Streams<'_>) {
    streams.text(&format!("{}\n", errors.render(io::stderr().is_terminal())));
}

/// Writes warnings to stderr, likewise.
pub fn tell_warnings(warnings: &[Warning], streams: &mut Streams<'_>) {
    let colour = io::stderr().is_terminal();
    warnings.iter().for_each(|warning| streams.text(&format!("{}\n", warning.render(colour))));
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
        AppError::Server(ServerError::Listener(_)) => Exit::System,
        AppError::Client(_) | AppError::Tls(_) | AppError::Ended => Exit::Failure,
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
