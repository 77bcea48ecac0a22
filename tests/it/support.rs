//! What the tests stand on. Every server is real, listens on loopback, keeps its files in a directory of its own, and
//! ends with the test that started it.

use std::{fs, future::Future, panic::Location, path::Path, time::Duration};

use tokio::time::{Instant, sleep};

pub use self::{
    bearerd::{AUTHORITIES, BUILT, Bearerd},
    process::Process,
    provider::{Desk, Entry, Provider, fingerprint},
    proxy::{Flow, Proxy, Way},
    redis::{Cluster, Redis, Sentinel, Watched},
};

pub mod house;
pub mod replicas;

#[cfg(feature = "failpoints")]
mod failpoints;

mod bearerd;
mod free_port;
mod process;
mod provider;
mod proxy;
mod redis;
mod shared;

/// How long a test waits for what should come at once. Far beyond what a busy machine needs, so that only a fault
/// reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds, and fails the test where it was called if it does not within the limit.
#[track_caller]
pub fn eventually(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let called = Location::caller();
    async move {
        let end = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        while !condition().await {
            assert!(Instant::now() < end, "still not so after {limit:?}: {called}");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// The value of a metric; `series` is its name with its labels, as it is served. Zero if it is not there yet.
async fn metric(admin: &str, series: &str) -> f64 {
    let text = reqwest::get(format!("{admin}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Puts content into a file in one step: whoever reads it finds the old or the new one, never a part.
pub fn replace(file: &Path, content: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, content).unwrap();
    fs::rename(&draft, file).unwrap();
}

#[tokio::test]
async fn waiting_ends_when_the_condition_holds() {
    let mut asked = 0;
    eventually(PATIENCE, async || {
        asked += 1;
        asked == 3
    })
    .await;
    assert_eq!(asked, 3);
}

#[tokio::test]
#[should_panic(expected = "still not so after 5ms: tests/it/support.rs")]
async fn waiting_in_vain_names_the_place() {
    eventually(Duration::from_millis(5), async || false).await;
}
