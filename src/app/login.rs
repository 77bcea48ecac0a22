//! Follows the login for Redis: its files are read again and again, whatever the rest of the configuration is like. Passwords
//! that are tokens of a cloud provider change every few minutes.

use parking_lot::Mutex;
use tracing::warn;

use super::store::OpenStore;
use crate::config;

/// The login that is in force.
pub(super) struct StoreLogin {
    opened: OpenStore,
    store: Mutex<config::Store>,
    /// Why its files could not be read, so that it is told once.
    trouble: Mutex<Option<String>>,
}

impl StoreLogin {
    pub(super) fn new(opened: OpenStore, store: config::Store) -> Self {
        Self { opened, store: Mutex::new(store), trouble: Mutex::default() }
    }

    /// Another configuration is in force.
    pub(super) async fn change(&self, store: &config::Store) {
        *self.store.lock() = store.clone();
        self.look().await;
    }

    /// Reads the files, and logs in anew if they have changed.
    pub(super) async fn look(&self) {
        let store = self.store.lock().clone();
        let trouble = self.opened.log_in_as(store).await.err();
        let before = std::mem::replace(&mut *self.trouble.lock(), trouble.clone());
        if let Some(error) = trouble.filter(|error| before.as_ref() != Some(error)) {
            warn!(%error, "the login for Redis cannot be read again; the one before stays in use");
        }
    }
}
