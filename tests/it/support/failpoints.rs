//! Holding a replica in the middle of a refresh (`src/failpoint.rs`).

use std::fs;

use super::{Bearerd, PATIENCE, eventually};

impl Bearerd {
    /// Has the next refresh that comes to this step wait there.
    pub fn hold_at(&self, step: &str) {
        fs::write(self.failpoints().join(step), []).unwrap();
    }

    /// Waits until a refresh waits at this step.
    pub async fn is_held_at(&self, step: &str) {
        let reached = self.failpoints().join(format!("{step}.reached"));
        eventually(PATIENCE, async || reached.exists()).await;
    }

    /// Lets everything go on, and holds nothing any more.
    pub fn let_go(&self) {
        for file in self.failpoints().read_dir().unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}
