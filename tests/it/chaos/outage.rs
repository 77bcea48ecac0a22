//! Redis is away for a while, under load of callers who have tokens.

use std::{env, time::Duration};

use tokio::time::{Instant, sleep};

use super::{load::Load, scene::Scene};
use crate::support::{PATIENCE, eventually};

/// It lasts until callers feel it, or for `OUTAGE_SECONDS` if that is longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_killed_cached_tokens_are_served_and_then_all_is_as_before() {
    outage(
        "kill -9",
        async |scene| scene.replicas.redis.kill(),
        async |scene| scene.replicas.redis.start_again().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_stands_still_cached_tokens_are_served_and_then_all_is_as_before() {
    let signal = async |scene: &mut Scene, name| scene.replicas.redis.process().signal(name);
    outage("SIGSTOP", async |scene| signal(scene, "STOP").await, async |scene| signal(scene, "CONT").await).await;
}

async fn outage(name: &str, down: impl AsyncFn(&mut Scene), up: impl AsyncFn(&mut Scene)) {
    let seconds = env::var("OUTAGE_SECONDS").map_or(0, |text| text.parse().unwrap());
    let mut scene = Scene::strict(3600).await;
    for replica in 0..3 {
        scene.token_from(replica).await;
    }
    let load = Load::without_reports(&scene.replicas.clients, &scene.replicas.provider.desk());
    down(&mut scene).await;
    let went = Instant::now();
    // That Redis stands still is noticed only after a while.
    load.feels_the_stores_absence(100).await;
    sleep(Duration::from_secs(seconds).saturating_sub(went.elapsed())).await;
    let lasted = went.elapsed();
    let before = load.so_far(|tally| tally.calls);
    up(&mut scene).await;
    let began = Instant::now();
    for replica in 0..3 {
        eventually(PATIENCE, async || scene.replicas.get(replica).await.is_ok_and(|token| !token.degraded)).await;
    }
    let recovered = began.elapsed();
    let token = scene.token_from(0).await;
    let (_, new) = scene.replicas.report(1, token.generation).await.unwrap();
    for replica in 0..3 {
        eventually(PATIENCE, async || scene.replicas.get(replica).await.unwrap().generation == new.generation).await;
    }
    let tally = load.stop().await;
    println!(
        "{name} of Redis for {lasted:?}: {before} calls in it; in all {} calls, {} tokens ({} degraded), errors {:?}; \
         recovered {recovered:?} after it was back",
        tally.calls, tally.tokens, tally.degraded, tally.errors
    );
    assert_eq!(tally.calls, tally.tokens, "{:?}", tally.errors);
    assert!(tally.unknown.is_empty(), "{tally:?}");
    assert_eq!(scene.presented().await.len(), 2);
    scene.is_unharmed().await;
}
