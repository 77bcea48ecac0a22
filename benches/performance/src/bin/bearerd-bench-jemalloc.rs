//! The same program with bearerd's allocator: what of a difference to the bare echo is the allocator's, and what bearerd's.

use std::process::ExitCode;

/// As in bearerd's own `main`, with the same features of it in the manifest.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    bearerd_bench::run()
}
