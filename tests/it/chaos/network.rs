//! Connections that hang or break: between one replica and Redis, and between the replicas and the provider.

use tonic::Code;

use crate::{
    chaos::{
        load::Load,
        scene::{Scene, why},
    },
    support::{Flow, PATIENCE, Way, eventually},
};

/// The others go on. The one that is cut off serves what it has, says so, refreshes nothing, and comes back by itself.
async fn one_replica_is_cut_off_from_redis(how: Option<Flow>) {
    let scene = Scene::strict(3600).await;
    let line = &scene.redis_lines[0];
    let old = scene.token_from(0).await;
    match how {
        Some(flow) => line.set_both(flow),
        None => {
            line.refuse().await;
            line.reset();
        }
    }
    let (_, new) = scene.replicas.report(1, old.generation).await.unwrap();
    assert_eq!(scene.token_from(2).await.generation, new.generation);
    eventually(PATIENCE, async || scene.replicas.get(0).await.unwrap().degraded).await;
    let status = scene.replicas.report(0, old.generation).await.unwrap_err();
    assert_eq!((status.code(), why(&status).0.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    line.heal().await;
    eventually(PATIENCE, async || {
        let now = scene.replicas.get(0).await.unwrap();
        now.generation == new.generation && !now.degraded
    })
    .await;
    assert_eq!(scene.presented().await.len(), 2);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn a_replica_whose_packets_to_redis_wait_serves_what_it_has_and_comes_back() {
    one_replica_is_cut_off_from_redis(Some(Flow::Hold)).await;
}

#[tokio::test]
async fn a_replica_whose_packets_to_redis_vanish_serves_what_it_has_and_comes_back() {
    one_replica_is_cut_off_from_redis(Some(Flow::Swallow)).await;
}

#[tokio::test]
async fn a_replica_that_redis_refuses_serves_what_it_has_and_comes_back() {
    one_replica_is_cut_off_from_redis(None).await;
}

#[tokio::test]
async fn connections_to_redis_are_reset_under_load_and_nothing_is_lost() {
    let scene = Scene::strict(4).await;
    let load = Load::start(&scene.replicas.clients, &scene.replicas.provider.desk());
    load.moves_on().await;
    for turn in 0..9 {
        scene.redis_lines[turn % 3].reset();
        load.moves_on().await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.unanswered(), tally.ended, tally.unknown.len()), (0, 0, 0), "{tally:?}");
    scene.is_unharmed().await;
}

#[tokio::test]
async fn a_provider_that_nobody_listens_for_is_told_and_the_grant_lives() {
    let scene = Scene::strict(3600).await;
    scene.provider_line.refuse().await;
    let status = scene.replicas.get(0).await.unwrap_err();
    assert_eq!((status.code(), why(&status).0.as_str()), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
    scene.provider_line.heal().await;
    scene.token_from(1).await;
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

/// Whether the provider got the refresh token is not known; it is presented once more, to one that never saw it.
async fn a_request_that_never_arrives(reset: bool) {
    let scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::There, Flow::Swallow);
    let asking = scene.replicas.ask(0);
    eventually(PATIENCE, async || scene.provider_line.losses() > 0).await;
    if reset {
        scene.provider_line.reset();
    }
    let status = asking.await.unwrap().unwrap_err();
    assert_eq!((status.code(), why(&status).0.as_str()), (Code::Unavailable, "REFRESH_OUTCOME_UNKNOWN"));
    scene.provider_line.heal().await;
    for replica in [1, 2, 0] {
        scene.token_from(replica).await;
    }
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn a_request_that_vanishes_on_its_way_to_a_strict_provider_is_made_again_and_the_grant_lives() {
    a_request_that_never_arrives(false).await;
}

#[tokio::test]
async fn a_connection_that_breaks_on_the_way_to_a_strict_provider_is_made_again_and_the_grant_lives() {
    a_request_that_never_arrives(true).await;
}

/// A slow network is not a broken one.
#[tokio::test]
async fn a_slow_way_to_provider_and_redis_changes_nothing() {
    let scene = Scene::strict(3600).await;
    for line in scene.redis_lines.iter().chain([&scene.provider_line]) {
        line.set_both(Flow::Late(std::time::Duration::from_millis(40)));
    }
    let token = scene.token_from(0).await;
    let (_, new) = scene.replicas.report(1, token.generation).await.unwrap();
    assert_eq!(scene.token_from(2).await.generation, new.generation);
    assert_eq!(scene.presented().await.len(), 2);
    scene.is_unharmed().await;
}
