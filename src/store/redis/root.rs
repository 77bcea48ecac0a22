//! The store's first record: the key that names are made with. As long as it is the one that this process opened the store
//! with, the names that are used here lead to the grants that other replicas see.
//!
//! A server that comes back may have lost it, or be another one. So it is looked at once after events were missed, before
//! anything else is asked; and it is put back where it is missing.

use parking_lot::Mutex;
use redis::RedisResult;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tracing::error;

use super::{
    link::{Link, unavailable},
    primaries::Care,
    refusal::opening,
    script::{self, Script},
};
use crate::store::{Event, Names, Ring, StoreError};

/// The root as this process knows it.
pub(super) struct Root {
    key: String,
    script: Script,
    /// As it was last seen, to be put back if it is gone: then it has to open with the keys of today.
    sealed: Mutex<Vec<u8>>,
    trust: Mutex<Trust>,
}

/// Whether the root was seen on the connection of the moment.
struct Trust {
    events: Receiver<Event>,
    seen: bool,
    told: bool,
}

impl Root {
    /// Reads the root, or writes it: the first replica draws the key of names, and `SET NX` makes all of them use it.
    pub(super) async fn open(
        link: &Link,
        prefix: &str,
        ring: &Ring,
        events: Receiver<Event>,
    ) -> Result<(Self, Names), StoreError> {
        let key = format!("{prefix}:root");
        let fresh = Names::draw_sealed_key(ring)?;
        let script = script::root();
        let sealed = put(link, &script, &key, &fresh).await.map_err(opening)?;
        let names = Names::open(ring, &sealed)?;
        let trust = Mutex::new(Trust { events, seen: true, told: false });
        Ok((Self { key, script, sealed: Mutex::new(sealed), trust }, names))
    }

    /// Makes sure that the root is there, if anything could have happened to it.
    pub(super) async fn check(&self, link: &Link, ring: &Ring, names: &Names) -> Result<(), StoreError> {
        if self.is_seen() { Ok(()) } else { self.look(link, ring, names).await }
    }

    /// Makes sure that the root is there.
    pub(super) async fn look(&self, link: &Link, ring: &Ring, names: &Names) -> Result<(), StoreError> {
        let found = self.find(link).await?;
        let is_ours = self.is_known(&found) || Names::open(ring, &found).is_ok_and(|found| found.are_the_same(names));
        let mut trust = self.trust.lock();
        trust.seen = is_ours;
        if is_ours {
            trust.told = false;
            drop(trust);
            // The same key may have been sealed anew.
            self.remember(found);
            return Ok(());
        }
        if !std::mem::replace(&mut trust.told, true) {
            error!(key = %self.key, "another store is here than the one that was opened; bearerd has to be started again");
        }
        Err(another())
    }

    /// Whether these keys open it. If so it is known as it is now: keys that are taken away are not needed for it any more.
    pub(super) async fn opens_with(&self, link: &Link, ring: &Ring, names: &Names) -> Result<(), StoreError> {
        let found = self.find(link).await?;
        if !Names::open(ring, &found)?.are_the_same(names) {
            return Err(another());
        }
        self.remember(found);
        Ok(())
    }

    /// Its key in Redis.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// What is there; where nothing is, the root is put back.
    pub(super) async fn find(&self, link: &Link) -> Result<Vec<u8>, StoreError> {
        let known = self.sealed.lock().clone();
        put(link, &self.script, &self.key, &known).await.map_err(unavailable)
    }

    /// This is how it is sealed now.
    pub(super) fn remember(&self, sealed: Vec<u8>) {
        *self.sealed.lock() = sealed;
    }

    fn is_known(&self, found: &[u8]) -> bool {
        *self.sealed.lock() == found
    }

    fn is_seen(&self) -> bool {
        let mut trust = self.trust.lock();
        loop {
            match trust.events.try_recv() {
                Ok(Event::Gap) | Err(TryRecvError::Lagged(_)) => trust.seen = false,
                Ok(Event::Changed(_) | Event::Unverified { .. } | Event::Heard) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return trust.seen,
            }
        }
    }
}

fn another() -> StoreError {
    StoreError::Unreadable("another store is here than the one that was opened".into())
}

/// Writes the root where there is none, and returns the one that is there.
async fn put(link: &Link, script: &Script, key: &str, sealed: &[u8]) -> RedisResult<Vec<u8>> {
    if let Some(found) = get(link, script, key).await? {
        return Ok(found);
    }
    link.send(key, redis::cmd("SET").arg(key).arg(sealed).arg("NX"), Care::Durable).await?;
    Ok(get(link, script, key).await?.unwrap_or_default())
}

async fn get(link: &Link, script: &Script, key: &str) -> RedisResult<Option<Vec<u8>>> {
    script.call().key(key.to_owned()).run(link, Care::Plain).await
}
