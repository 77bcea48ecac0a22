//! `kill -9` of the replica that refreshes, at each step. What it did before tells what the others may do.

use std::time::{Duration, Instant};

use crate::{
    chaos::scene::{Scene, is_lost, is_retryable},
    support::{PATIENCE, eventually, fingerprint},
};

/// Has the first replica refresh, and kills it at this step. Its caller sees the connection break.
async fn kill_at(scene: &mut Scene, step: &str) {
    scene.replicas.each[0].hold_at(step);
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at(step).await;
    scene.replicas.each[0].process().kill();
    assert!(asking.await.unwrap().is_err());
}

async fn nothing_is_lost_when_killed_at(step: &str) {
    let mut scene = Scene::strict(3600).await;
    kill_at(&mut scene, step).await;
    let token = scene.token_from(1).await;
    assert_eq!(scene.token_from(2).await.generation, token.generation);
    scene.replicas.each[0].let_go();
    scene.replicas.restart(0).await;
    assert_eq!(scene.token_from(0).await.generation, token.generation);
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn killed_with_the_lease_before_the_intent_nothing_is_lost() {
    nothing_is_lost_when_killed_at("claimed").await;
}

#[tokio::test]
async fn killed_with_the_intent_before_the_request_nothing_is_lost() {
    nothing_is_lost_when_killed_at("dispatched").await;
}

#[tokio::test]
async fn killed_after_the_commit_nothing_is_lost() {
    nothing_is_lost_when_killed_at("committed").await;
}

/// The answer was in the killed process alone. The refresh token is presented once more, because it might not have
/// arrived; the provider takes that for theft; callers are told what happened, and it is never presented again.
async fn the_strict_grant_ends_and_says_so(scene: &Scene) {
    let mut last = None;
    eventually(PATIENCE, async || {
        let status = scene.replicas.get(1).await.unwrap_err();
        let lost = is_lost(&status);
        assert!(lost || is_retryable(&status), "{status:?}");
        last = Some(status);
        lost
    })
    .await;
    assert!(is_lost(&scene.replicas.get(2).await.unwrap_err()));
    assert!(is_lost(&scene.replicas.get(1).await.unwrap_err()));
    let first = fingerprint(&scene.replicas.first);
    assert_eq!(scene.presented().await, [(first.clone(), Some(200)), (first, Some(400))]);
    assert!(!scene.replicas.provider.alive(&scene.replicas.first).await);
}

#[tokio::test]
async fn killed_with_the_only_copy_of_a_strict_providers_answer_the_grant_ends_and_says_so() {
    let mut scene = Scene::strict(3600).await;
    kill_at(&mut scene, "answered").await;
    assert!(scene.spooled(0).is_empty());
    the_strict_grant_ends_and_says_so(&scene).await;
}

#[tokio::test]
async fn killed_before_it_heard_a_strict_provider_the_grant_ends_and_says_so() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.hold_next_answer();
    let asking = scene.replicas.ask(0);
    eventually(PATIENCE, async || scene.provider_line.losses() > 0).await;
    scene.replicas.each[0].process().kill();
    assert!(asking.await.unwrap().is_err());
    the_strict_grant_ends_and_says_so(&scene).await;
}

#[tokio::test]
async fn killed_with_the_only_copy_of_an_answer_in_a_grace_period_the_next_one_gets_it_again() {
    let mut scene = Scene::grace().await;
    kill_at(&mut scene, "answered").await;
    let token = scene.token_from(1).await;
    assert_eq!(scene.token_from(2).await.generation, token.generation);
    let first = fingerprint(&scene.replicas.first);
    assert_eq!(scene.presented().await, [(first.clone(), Some(200)), (first, Some(200))]);
    assert!(scene.replicas.provider.alive(&scene.replicas.first).await);
}

#[tokio::test]
async fn killed_with_the_answer_in_the_spool_the_next_process_stores_it() {
    let mut scene = Scene::strict(3600).await;
    scene.replicas.each[0].hold_at("answered");
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at("answered").await;
    scene.replicas.redis.kill();
    scene.replicas.each[0].hold_at("spooled");
    std::fs::remove_file(scene.replicas.each[0].failpoints().join("answered.reached")).unwrap();
    scene.replicas.each[0].is_held_at("spooled").await;
    scene.replicas.each[0].process().kill();
    assert!(asking.await.unwrap().is_err());
    assert_eq!(scene.spooled(0).len(), 1);

    scene.replicas.each[0].let_go();
    scene.replicas.redis.start_again().await;
    scene.replicas.restart(0).await;
    let token = scene.token_from(0).await;
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    assert!(scene.spooled(0).is_empty());
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

/// What Redis is told about the life of a token was true when it was sent, and can be read much later.
#[tokio::test]
async fn killed_with_a_commit_on_its_way_to_a_redis_that_stands_still_nobody_gets_an_expired_token() {
    let mut scene = Scene::strict(4).await;
    // Redis has to know the script of a commit already.
    let first = scene.token_from(0).await;
    scene.replicas.each[0].hold_at("answered");
    let clients = scene.replicas.clients.clone();
    let reporting = tokio::spawn(async move { clients.report(0, first.generation).await });
    scene.replicas.each[0].is_held_at("answered").await;
    let answered = Instant::now();
    scene.replicas.redis.process().signal("STOP");
    scene.replicas.each[0].let_go();
    eventually(PATIENCE, async || answered.elapsed() > Duration::from_secs(4)).await;
    scene.replicas.each[0].process().kill();
    assert!(reporting.await.unwrap().is_err());
    scene.replicas.redis.process().signal("CONT");
    scene.token_from(1).await;
    assert_eq!(scene.presented().await.len(), 3, "the refresh token of the late commit, and no access token");
    scene.is_unharmed().await;
}

#[tokio::test]
async fn killed_while_redis_holds_up_the_commit_the_answer_is_in_the_spool_already() {
    let mut scene = Scene::strict(3600).await;
    scene.replicas.each[0].hold_at("answered");
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at("answered").await;
    scene.replicas.redis.process().signal("STOP");
    scene.replicas.each[0].hold_at("spooled");
    std::fs::remove_file(scene.replicas.each[0].failpoints().join("answered.reached")).unwrap();
    scene.replicas.each[0].is_held_at("spooled").await;
    assert!(!scene.replicas.each[0].log().contains("cannot be stored yet"), "no outcome is known yet");
    assert_eq!(scene.spooled(0).len(), 1);
    scene.replicas.each[0].process().kill();
    assert!(asking.await.unwrap().is_err());

    scene.replicas.each[0].let_go();
    scene.replicas.redis.process().signal("CONT");
    scene.replicas.restart(0).await;
    let token = scene.token_from(0).await;
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    assert!(scene.spooled(0).is_empty());
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}
