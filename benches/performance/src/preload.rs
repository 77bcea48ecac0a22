//! Libraries of a function or two, loaded into h2load for what it has no option for.

use std::{path::PathBuf, process::Command};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// A library, compiled from its one file when it is first asked for.
pub fn library(bench: &Bench, name: &str) -> Result<PathBuf, Error> {
    let library = bench.scratch().join(format!("{name}.so"));
    if !library.exists() {
        let source = format!("{}/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).args([&source, "-ldl"]);
        let status = compiler.status().map_err(cannot("start the C compiler"))?;
        if !status.success() {
            return Err(failed(format!("{name}.c cannot be compiled")));
        }
    }
    Ok(library)
}
