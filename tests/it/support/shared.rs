//! What is slow to start and can be used by several tests at once. It ends with the last of them, not with the process:
//! what a static holds is never dropped, and its servers would stay.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use tokio::sync::Mutex;

/// A place for one thing that is used by whoever needs it at the moment.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    /// What others use, or a new one.
    pub async fn get<F: Future<Output = T>>(&self, start: impl FnOnce() -> F) -> Arc<T> {
        let mut held = self.0.lock().await;
        if let Some(there) = held.upgrade() {
            return there;
        }
        let made = Arc::new(start().await);
        *held = Arc::downgrade(&made);
        made
    }
}

#[tokio::test]
async fn it_lives_as_long_as_it_is_used() {
    static NUMBER: Shared<u32> = Shared::new();
    let one = NUMBER.get(async || 1).await;
    let two = NUMBER.get(async || 2).await;
    assert_eq!((*one, *two), (1, 1));
    drop((one, two));
    assert_eq!(*NUMBER.get(async || 3).await, 3);
}
