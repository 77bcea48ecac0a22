//! The harness, and the bare echo as tonic's own examples are: with the system's allocator.

use std::process::ExitCode;

fn main() -> ExitCode {
    bearerd_bench::run()
}
