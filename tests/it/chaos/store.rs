//! What happens to Redis under load: it is killed, stops, forgets scripts and connections, and fills up.

use crate::{
    chaos::{
        load::Load,
        scene::{Scene, why},
    },
    support::{Flow, PATIENCE, Way, eventually},
};

async fn under_load() -> (Scene, Load) {
    let scene = Scene::strict(4).await;
    let load = Load::start(&scene.replicas.clients, &scene.replicas.provider.desk());
    load.moves_on().await;
    (scene, load)
}

/// Ends the load: the replicas always answered, nobody was told that a grant ended, and none did.
async fn nothing_was_lost(scene: Scene, load: Load) {
    load.moves_on().await;
    let tally = load.stop().await;
    assert_eq!((tally.unanswered(), tally.ended), (0, 0), "{tally:?}");
    assert!(tally.unknown.is_empty(), "{:?}", tally.unknown);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn redis_is_killed_three_times_under_load_and_nothing_is_lost() {
    let (mut scene, load) = under_load().await;
    for _ in 0..3 {
        scene.replicas.redis.kill();
        load.feels_the_stores_absence(100).await;
        scene.replicas.redis.start_again().await;
        load.moves_on().await;
    }
    nothing_was_lost(scene, load).await;
}

#[tokio::test]
async fn redis_stands_still_under_load_and_nothing_is_lost() {
    let (mut scene, load) = under_load().await;
    for _ in 0..2 {
        scene.replicas.redis.process().signal("STOP");
        load.feels_the_stores_absence(200).await;
        scene.replicas.redis.process().signal("CONT");
        load.moves_on().await;
    }
    nothing_was_lost(scene, load).await;
}

#[tokio::test]
async fn redis_forgets_scripts_and_connections_under_load_and_nothing_is_lost() {
    let (scene, load) = under_load().await;
    for _ in 0..5 {
        scene.replicas.redis.cli::<()>(&["SCRIPT", "FLUSH"]).await;
        load.moves_on().await;
        for kind in ["normal", "pubsub"] {
            scene.replicas.redis.cli::<usize>(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        load.moves_on().await;
    }
    nothing_was_lost(scene, load).await;
}

#[tokio::test]
async fn while_redis_has_no_memory_left_tokens_are_served_and_none_is_asked_for() {
    let scene = Scene::strict(3600).await;
    let memory = async |limit| scene.replicas.redis.cli::<()>(&["CONFIG", "SET", "maxmemory", limit]).await;
    let token = scene.token_from(0).await;
    memory("1").await;
    for replica in [0, 1] {
        assert_eq!(scene.replicas.get(replica).await.unwrap().generation, token.generation, "replica {replica}");
    }
    // A report wants another token. Nobody may ask for one who cannot write down that it was asked for.
    for replica in 0..3 {
        let status = scene.replicas.report(replica, token.generation).await.unwrap_err();
        assert_eq!((status.code(), why(&status).0.as_str()), (tonic::Code::Unavailable, "STORE_UNAVAILABLE"));
    }
    assert_eq!(scene.presented().await.len(), 1);
    memory("0").await;
    for replica in 0..3 {
        assert!(scene.token_from(replica).await.generation > token.generation);
    }
    assert_eq!(scene.presented().await.len(), 2);
    scene.is_unharmed().await;
}

#[tokio::test]
async fn an_answer_that_comes_while_redis_has_no_memory_left_is_not_lost() {
    let scene = Scene::strict(3600).await;
    scene.provider_line.set(Way::Back, Flow::Hold);
    let asking = scene.replicas.ask(0);
    eventually(PATIENCE, async || scene.presented().await.iter().any(|(_, status)| *status == Some(200))).await;
    scene.replicas.redis.cli::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    scene.provider_line.heal().await;
    // Redis takes what a script writes after its first write, and the first one of a commit only deletes.
    let token = asking.await.unwrap().unwrap();
    assert_eq!(scene.token_from(1).await.generation, token.generation);
    scene.replicas.redis.cli::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(scene.presented().await.len(), 1);
    scene.is_unharmed().await;
}
