//! `kill -9` of the replica that verifies an import, at each step, and a Redis that is away meanwhile: no grant that is good
//! is lost, and no refresh token waits for ever.

use bearerd::proto::{
    DescribeGrantRequest, ImportGrantRequest, grant_admin_client::GrantAdminClient, import_grant_request::Secret,
};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::{
    chaos::scene::{Scene, is_retryable},
    support::{PATIENCE, eventually},
};

/// Has the first replica import a new grant of this refresh token.
async fn import(scene: &Scene, token: &str) -> JoinHandle<Result<u64, Status>> {
    let mut admin = GrantAdminClient::connect(scene.replicas.each[0].grpc()).await.unwrap();
    let (credential, secret) = ("crm".to_owned(), Some(Secret::RefreshToken(token.to_owned())));
    let import = ImportGrantRequest { credential, secret, ..ImportGrantRequest::default() };
    tokio::spawn(async move { admin.import_grant(import).await.map(|answer| answer.into_inner().generation) })
}

async fn is_pending(scene: &Scene, replica: usize) -> bool {
    let mut admin = GrantAdminClient::connect(scene.replicas.each[replica].grpc()).await.unwrap();
    let request = DescribeGrantRequest { credential: "crm".to_owned(), ..DescribeGrantRequest::default() };
    admin.describe_grant(request).await.unwrap().into_inner().import_pending
}

/// Reports a token until another one is there; until then callers are only told to try again.
async fn replaced(scene: &Scene, replica: usize, generation: u64) {
    eventually(PATIENCE, async || match scene.replicas.report(replica, generation).await {
        Ok((_, token)) => token.generation > generation,
        Err(status) => {
            assert!(is_retryable(&status), "{status:?}");
            false
        }
    })
    .await;
}

/// Kills the importing replica at this step, and returns the imported refresh token once callers have another token.
async fn killed_at(scene: &mut Scene, step: &str) -> String {
    let before = scene.token_from(1).await.generation;
    let new = scene.replicas.provider.mint_refresh_token("service", "offline_access read").await;
    scene.replicas.each[0].hold_at(step);
    let importing = import(scene, &new).await;
    scene.replicas.each[0].is_held_at(step).await;
    scene.replicas.each[0].process().kill();
    assert!(importing.await.unwrap().is_err());
    assert_eq!(scene.token_from(2).await.generation, before, "a valid token is served");
    replaced(scene, 1, before).await;
    assert!(!is_pending(scene, 2).await);
    new
}

async fn the_import_is_finished_when_killed_at(step: &str) {
    let mut scene = Scene::strict(3600).await;
    let new = killed_at(&mut scene, step).await;
    // The former refresh token was presented for the first token alone.
    assert_eq!(scene.presented().await.len(), 2, "{:?}", scene.presented().await);
    let current = scene.token_from(1).await.generation;
    replaced(&scene, 2, current).await;
    assert!(scene.replicas.provider.alive(&new).await);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn killed_before_the_intent_another_replica_finishes_the_import() {
    the_import_is_finished_when_killed_at("claimed").await;
}

#[tokio::test]
async fn killed_with_the_intent_another_replica_finishes_the_import() {
    the_import_is_finished_when_killed_at("dispatched").await;
}

#[tokio::test]
async fn killed_between_the_token_and_the_swap_another_replica_finishes_the_import() {
    the_import_is_finished_when_killed_at("committed").await;
}

#[tokio::test]
async fn killed_with_the_only_answer_the_import_is_lost_and_the_former_grant_is_not() {
    let mut scene = Scene::strict(3600).await;
    let new = killed_at(&mut scene, "answered").await;
    assert!(!scene.replicas.provider.alive(&new).await);
    let current = scene.token_from(2).await.generation;
    replaced(&scene, 1, current).await;
    assert!(scene.replicas.provider.alive(&scene.replicas.first).await);
}

#[tokio::test]
async fn an_answer_that_redis_could_not_take_finishes_the_import_when_redis_is_back() {
    let mut scene = Scene::strict(3600).await;
    let before = scene.token_from(1).await.generation;
    let new = scene.replicas.provider.mint_refresh_token("service", "offline_access read").await;
    scene.replicas.each[0].hold_at("answered");
    let importing = import(&scene, &new).await;
    scene.replicas.each[0].is_held_at("answered").await;
    scene.replicas.redis.kill();
    scene.replicas.each[0].let_go();
    eventually(PATIENCE, async || !scene.spooled(0).is_empty()).await;
    scene.replicas.redis.start_again().await;
    eventually(PATIENCE, async || scene.spooled(0).is_empty()).await;
    // Whatever the operator was told.
    let _ = importing.await.unwrap();
    replaced(&scene, 1, before).await;
    assert!(!is_pending(&scene, 2).await);
    let current = scene.token_from(1).await.generation;
    replaced(&scene, 2, current).await;
    assert!(scene.replicas.provider.alive(&new).await);
    scene.is_unharmed().await;
}
