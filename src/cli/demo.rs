//! `bearerd demo`: a provider, a protected API and bearerd between them, in this process, and a tour through them that
//! checks each of its claims.

use std::{pin::pin, time::Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use self::{
    show::Show,
    stage::Stage,
    stay::{Invitation, program},
    tour::Tour,
};
use super::{
    log,
    output::{Exit, Failure, Streams},
    serve,
};
use crate::config::{Log, LogFormat};

mod scratch;
mod show;
mod stage;
mod stay;
mod tour;
mod wire;

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd demo --stay\n\n\
    It needs no configuration and no network: everything runs in this process on loopback, and its files are in a\n\
    temporary directory that is removed at the end. The exit code is 0 only if every step did what it says.";

/// The arguments of `bearerd demo`.
#[derive(ClapArgs)]
pub struct Args {
    /// Keep everything running after the tour, and print commands to try
    #[arg(long)]
    stay: bool,
    /// Print one JSON object for each step
    #[arg(long)]
    json: bool,
    /// Log to standard error, as `bearerd serve` does
    #[arg(long)]
    verbose: bool,
}

/// Sets the stage, walks through the tour, stays if that is wanted, and leaves nothing behind.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    if args.verbose {
        log::to_stderr(&Log { filter: "info".to_owned(), format: LogFormat::Text })?;
    }
    let mut stopped = pin!(serve::stop_signal()?);
    let stage = Stage::set().await?;
    let outcome = tokio::select! {
        outcome = play(&args, &stage, streams) => outcome,
        () = &mut stopped => Err(Failure::new(Exit::Failure, "interrupted before the end of the tour")),
    };
    let stays = args.stay && outcome.is_ok();
    stage
        .strike(async {
            if stays {
                stopped.await;
            }
        })
        .await?;
    outcome.map(|()| Exit::Success)
}

async fn play(args: &Args, stage: &Stage, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let began = Instant::now();
    let mut show = Show::new(streams, args.json);
    show.open()?;
    Tour::begin(stage).await?.walk(&mut show).await?;
    show.close(began.elapsed())?;
    if args.stay { show.invite(&Invitation::new(&program(), stage)) } else { show.farewell() }
}

/// What a step saw when it did what it says.
#[derive(Debug, Serialize)]
pub struct Saw {
    /// How often the provider was asked during the step.
    asked: u64,
    /// What happened, for people.
    saw: String,
    /// What happened, for programs.
    facts: serde_json::Value,
}

/// Why a step did not do what it says.
#[derive(Debug, thiserror::Error)]
pub enum Surprise {
    /// Something else happened.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What the step promises.
        expected: String,
        /// What it saw.
        got: String,
    },
    /// bearerd refused.
    #[error("bearerd refused: {}", .0.message())]
    Refused(#[from] tonic::Status),
    /// The sandbox did not answer.
    #[error("no answer over HTTP: {0}")]
    Unreachable(String),
}

/// Holds a step to a promise.
fn ensure(holds: bool, expected: &str, got: impl FnOnce() -> String) -> Result<(), Surprise> {
    if holds { Ok(()) } else { Err(Surprise::Unexpected { expected: expected.to_owned(), got: got() }) }
}
