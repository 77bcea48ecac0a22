//! Why something could not be measured.

use std::io;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// What it said.
        why: io::Error,
    },
    /// A part did not do what a measurement rests on.
    #[error("{0}")]
    Failed(String),
}

/// A part did not do what a measurement rests on.
pub fn failed(why: impl Into<String>) -> Error {
    Error::Failed(why.into())
}

/// The system refused to do this.
pub fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |why| Error::System { what, why }
}
