//! Places in a refresh where a test can hold the process, to kill or stop it there for real. Without the feature
//! `failpoints`, which no release has, nothing is left of them.

#[cfg(feature = "failpoints")]
use std::{fs, path::PathBuf, sync::OnceLock, time::Duration};

/// A place in a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The lease is held, and the intent is not written yet.
    Claimed,
    /// The intent is stored, and no byte of the request was sent.
    Dispatched,
    /// The provider's answer is in this process and nowhere else.
    Answered,
    /// The answer is in the spool, and not in the store.
    Spooled,
    /// The store has acknowledged the answer, and nobody was told.
    Committed,
}

/// Passes a place, or waits there as long as a test wants.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub async fn reach(_: Step) {}

/// How often a process that is held looks whether it may go on.
#[cfg(feature = "failpoints")]
const LOOK: Duration = Duration::from_millis(5);

#[cfg(feature = "failpoints")]
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Names the directory in which tests lay the files that hold this process. Only the first call counts.
#[cfg(feature = "failpoints")]
pub fn watch(directory: PathBuf) {
    let _ = DIRECTORY.set(directory);
}

/// Passes a place. If a file with its name stands in the directory, the file gets the ending `.reached`, which tells the
/// test, and this waits until the test takes it away. A file holds one refresh; others pass.
#[cfg(feature = "failpoints")]
pub async fn reach(step: Step) {
    let Some(directory) = DIRECTORY.get() else { return };
    let reached = directory.join(format!("{}.reached", word(step)));
    if fs::rename(directory.join(word(step)), &reached).is_err() {
        return;
    }
    while reached.exists() {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(feature = "failpoints")]
fn word(step: Step) -> &'static str {
    match step {
        Step::Claimed => "claimed",
        Step::Dispatched => "dispatched",
        Step::Answered => "answered",
        Step::Spooled => "spooled",
        Step::Committed => "committed",
    }
}
