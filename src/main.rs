//! The door: starts the runtime and hands the arguments to the command line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// With it a call took 6,000 instructions less, of about 100,000, than with glibc's; `docs/performance.md` has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(bearerd::cli::run(std::env::args_os())),
        Err(error) => {
            // Nobody is left to tell when stderr is closed as well.
            let _ = writeln!(io::stderr(), "error: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
