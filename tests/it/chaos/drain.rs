//! SIGTERM while a refresh is under way: it is finished and stored, new work is refused so that it can be done
//! elsewhere, and the process ends in time.

use bearerd::proto::token_service_client::TokenServiceClient;
use tokio::time::timeout;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    chaos::scene::{Scene, why},
    support::{Flow, PATIENCE, Way, eventually},
};

/// Waits until the provider has answered, be the answer on its way or not.
async fn the_provider_has_acted(scene: &Scene) {
    eventually(PATIENCE, async || scene.presented().await.iter().any(|(_, status)| *status == Some(200))).await;
}

/// Asks the first replica to end, and waits until nobody listens there any more.
async fn asked_to_end(scene: &mut Scene) {
    scene.replicas.each[0].process().signal("TERM");
    let address = scene.replicas.each[0].grpc();
    eventually(PATIENCE, async || TokenServiceClient::connect(address.clone()).await.is_err()).await;
}

async fn ends_well(scene: &mut Scene) {
    let replica = &mut scene.replicas.each[0];
    eventually(PATIENCE, async || replica.process().ended().is_some()).await;
    assert!(replica.process().ended().is_some_and(|status| status.success()), "{}", replica.log());
}

/// C-K7: whoever watches is told at once, while the requests under way still have their time.
#[tokio::test]
async fn a_process_that_is_asked_to_end_is_not_ready_at_once() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::Back, Flow::Hold);
    let asking = scene.replicas.ask(0);
    the_provider_has_acted(&scene).await;
    let mut health = HealthClient::new(Channel::from_shared(scene.replicas.each[0].grpc()).unwrap().connect_lazy());
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    scene.replicas.each[0].process().signal("TERM");
    let told = timeout(PATIENCE, watched.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    assert!(!asking.is_finished());
    scene.provider_line.heal().await;
    asking.await.unwrap().unwrap();
    ends_well(&mut scene).await;
}

#[tokio::test]
async fn a_refresh_that_the_provider_is_answering_is_stored_before_the_end() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::Back, Flow::Hold);
    let asking = scene.replicas.ask(0);
    the_provider_has_acted(&scene).await;
    asked_to_end(&mut scene).await;
    scene.provider_line.heal().await;
    let token = asking.await.unwrap().unwrap();
    ends_well(&mut scene).await;
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_answer_that_is_not_stored_yet_is_stored_before_the_end() {
    let mut scene = Scene::strict(3600).await;
    scene.replicas.each[0].hold_at("answered");
    let asking = scene.replicas.ask(0);
    scene.replicas.each[0].is_held_at("answered").await;
    asked_to_end(&mut scene).await;
    scene.replicas.each[0].let_go();
    let token = asking.await.unwrap().unwrap();
    ends_well(&mut scene).await;
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

/// No refresh begins that may not get to store its answer; whoever waits for it is told to ask again.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_refresh_that_was_not_sent_leaves_no_trace() {
    for step in ["claimed", "dispatched"] {
        let mut scene = Scene::strict(3600).await;
        scene.replicas.each[0].hold_at(step);
        let asking = scene.replicas.ask(0);
        scene.replicas.each[0].is_held_at(step).await;
        asked_to_end(&mut scene).await;
        scene.replicas.each[0].let_go();
        if let Err(status) = asking.await.unwrap() {
            assert!(super::scene::is_retryable(&status), "{step}: {status:?}");
        }
        ends_well(&mut scene).await;
        scene.token_from(1).await;
        assert_eq!(scene.presented().await.len(), 1, "{step}");
        scene.is_unharmed().await;
    }
}

#[tokio::test]
async fn a_request_that_goes_unanswered_does_not_keep_the_process() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::There, Flow::Swallow);
    let asking = scene.replicas.ask(0);
    eventually(PATIENCE, async || scene.provider_line.losses() > 0).await;
    asked_to_end(&mut scene).await;
    let status = asking.await.unwrap().unwrap_err();
    assert_eq!((status.code(), why(&status).0.as_str()), (Code::Unavailable, "REFRESH_OUTCOME_UNKNOWN"));
    ends_well(&mut scene).await;
    scene.provider_line.heal().await;
    scene.token_from(1).await;
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn a_process_that_may_not_wait_for_redis_any_longer_leaves_the_answer_in_its_spool() {
    let mut scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::Back, Flow::Hold);
    let asking = scene.replicas.ask(0);
    the_provider_has_acted(&scene).await;
    scene.replicas.redis.kill();
    scene.provider_line.heal().await;
    asked_to_end(&mut scene).await;
    ends_well(&mut scene).await;
    assert!(asking.await.unwrap().is_err());
    assert_eq!(scene.spooled(0).len(), 1);
    scene.replicas.redis.start_again().await;
    scene.replicas.restart(0).await;
    scene.token_from(0).await;
    scene.token_from(1).await;
    assert!(scene.spooled(0).is_empty());
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}
