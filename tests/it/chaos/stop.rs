//! SIGSTOP of the replica that refreshes, at each step, until its lease is over; then SIGCONT. It goes on as if no time
//! had passed, and finds that others did not wait.

use bearerd::proto::Token;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::{
    chaos::scene::{Scene, is_lost, is_retryable, why},
    support::{Flow, PATIENCE, Way, eventually, fingerprint},
};

type Asking = JoinHandle<Result<Token, Status>>;

/// Has the first replica refresh, and stops it at this step, where it stays until its lease is over.
async fn stop_at(scene: &mut Scene, step: &str) -> Asking {
    scene.replicas.each[0].hold_at(step);
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at(step).await;
    stop_past_the_lease(scene).await;
    asking
}

async fn stop_past_the_lease(scene: &mut Scene) {
    scene.replicas.each[0].process().signal("STOP");
    scene.replicas.each[0].let_go();
    scene.lease_is_over().await;
}

fn go_on(scene: &mut Scene) {
    scene.replicas.each[0].process().signal("CONT");
}

/// Others get a token while the first replica stands still, and when it goes on it uses theirs.
async fn others_go_on_without_the_one_stopped_at(step: &str) {
    let mut scene = Scene::strict(3600).await;
    let asking = stop_at(&mut scene, step).await;
    let token = scene.token_from(1).await;
    go_on(&mut scene);
    // What its caller was told depends on how long that one waits; it is a token or a word to try again.
    if let Err(status) = asking.await.unwrap() {
        assert!(is_retryable(&status), "{status:?}");
    }
    for replica in 0..3 {
        assert_eq!(scene.token_from(replica).await.generation, token.generation, "replica {replica}");
    }
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn stopped_with_the_lease_before_the_intent_it_uses_what_others_got() {
    others_go_on_without_the_one_stopped_at("claimed").await;
}

#[tokio::test]
async fn stopped_with_the_intent_before_the_request_it_does_not_send_it_any_more() {
    others_go_on_without_the_one_stopped_at("dispatched").await;
}

#[tokio::test]
async fn stopped_after_the_commit_others_have_the_token_already() {
    others_go_on_without_the_one_stopped_at("committed").await;
}

/// A write is fenced by the revision and not by the lease: the answer holds the only living refresh token.
#[tokio::test]
async fn stopped_with_the_answer_it_stores_it_after_its_lease() {
    let mut scene = Scene::strict(3600).await;
    let asking = stop_at(&mut scene, "answered").await;
    go_on(&mut scene);
    assert_eq!(asking.await.unwrap().unwrap().generation, scene.token_from(1).await.generation);
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn stopped_with_the_answer_in_the_spool_it_stores_it_after_its_lease() {
    let mut scene = Scene::strict(3600).await;
    scene.replicas.each[0].hold_at("answered");
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at("answered").await;
    scene.replicas.redis.kill();
    scene.replicas.each[0].hold_at("spooled");
    std::fs::remove_file(scene.replicas.each[0].failpoints().join("answered.reached")).unwrap();
    scene.replicas.each[0].is_held_at("spooled").await;
    scene.replicas.redis.start_again().await;
    stop_past_the_lease(&mut scene).await;
    go_on(&mut scene);
    let token = scene.token_from(1).await;
    assert!(asking.await.unwrap().is_ok_and(|got| got.generation == token.generation));
    assert!(scene.spooled(0).is_empty());
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

/// With a grace period both get the same answer. The one that comes late finds a newer revision, and leaves it.
#[tokio::test]
async fn stopped_with_an_answer_that_another_got_too_it_overwrites_nothing() {
    let mut scene = Scene::grace().await;
    let asking = stop_at(&mut scene, "answered").await;
    let token = scene.token_from(1).await;
    go_on(&mut scene);
    if let Err(status) = asking.await.unwrap() {
        assert!(is_retryable(&status), "{status:?}");
    }
    for replica in 0..3 {
        assert_eq!(scene.token_from(replica).await.generation, token.generation, "replica {replica}");
    }
    let first = fingerprint(&scene.replicas.first);
    assert_eq!(scene.presented().await, [(first.clone(), Some(200)), (first, Some(200))]);
    // What is stored is a refresh token that works.
    let (_, next) = scene.replicas.report(2, token.generation).await.unwrap();
    assert!(scene.replicas.provider.introspect(&next.access_token).await);
}

/// Somebody needed a token before it could store the answer: the one repeat that is allowed, and no more.
#[tokio::test]
async fn stopped_with_a_strict_providers_answer_until_others_asked_the_grant_ends_and_says_so() {
    let mut scene = Scene::strict(3600).await;
    let asking = stop_at(&mut scene, "answered").await;
    eventually(PATIENCE, async || is_lost(&scene.replicas.get(1).await.unwrap_err())).await;
    go_on(&mut scene);
    // Its answer is stored, as it could hold a living refresh token; the provider has ended what came from it.
    match asking.await.unwrap() {
        Ok(token) => {
            let status = scene.replicas.report(0, token.generation).await.unwrap_err();
            assert_eq!(why(&status).0, "REAUTHORIZATION_REQUIRED");
        }
        Err(status) => assert!(is_lost(&status) || is_retryable(&status), "{status:?}"),
    }
    let first = fingerprint(&scene.replicas.first);
    let presented = scene.presented().await;
    assert_eq!(presented.iter().filter(|(token, _)| *token == first).count(), 2, "{presented:?}");
    assert!(presented.len() <= 3, "{presented:?}");
}

/// More time has passed than a request may take, and the answer has come all the same.
#[tokio::test]
async fn stopped_while_the_provider_answers_it_takes_and_stores_the_answer() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::Back, Flow::Hold);
    let asking = scene.replicas.ask(0);
    eventually(PATIENCE, async || scene.presented().await.iter().any(|(_, status)| *status == Some(200))).await;
    scene.replicas.each[0].process().signal("STOP");
    scene.provider_line.heal().await;
    scene.lease_is_over().await;
    go_on(&mut scene);
    let token = asking.await.unwrap().unwrap();
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}
