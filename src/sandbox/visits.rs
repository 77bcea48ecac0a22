//! How often each path was asked for.

use std::collections::HashMap;

use parking_lot::Mutex;

/// A stranger can make up paths without end, so only so many are told apart.
const MAX_PATHS: usize = 1000;

/// Counters by path.
#[derive(Debug, Default)]
pub(super) struct Visits(Mutex<HashMap<String, u64>>);

impl Visits {
    /// Counts one request.
    pub fn count(&self, path: &str) {
        let mut visits = self.0.lock();
        if let Some(count) = visits.get_mut(path) {
            *count += 1;
        } else if visits.len() < MAX_PATHS {
            visits.insert(path.to_owned(), 1);
        }
    }

    /// The requests for one path so far.
    pub fn of(&self, path: &str) -> u64 {
        self.0.lock().get(path).copied().unwrap_or_default()
    }
}
