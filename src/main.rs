//! The door: starts the runtime and hands the arguments to the command line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tokio::runtime::Builder;

/// It hands out first what came back last, which the processor still has at hand; `docs/performance.md` has what it was compared
/// with. How it is set is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// After so many tasks the runtime looks at what came over the network; on its own it would after 61. While thousands begin to
/// wait for a refresh, the refresh goes on that much sooner with each answer of Redis.
const TASKS_AT_A_TIME: u32 = 16;

fn main() -> ExitCode {
    match Builder::new_multi_thread().event_interval(TASKS_AT_A_TIME).enable_all().build() {
        Ok(runtime) => runtime.block_on(bearerd::cli::run(std::env::args_os())),
        Err(error) => {
            // Nobody is left to tell when stderr is closed as well.
            let _ = writeln!(io::stderr(), "error: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
