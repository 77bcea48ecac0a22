//! The first record: the key of names. A store whose names lead elsewhere is not believed.

use super::*;

/// Ends every connection to the server, as a failover does.
async fn cut(redis: &Redis) {
    for kind in ["normal", "pubsub"] {
        let _: i64 = redis.cli(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
    }
}

async fn root(redis: &Redis) -> Option<Vec<u8>> {
    redis.cli(&["GET", "test:root"]).await
}

#[tokio::test]
async fn a_root_that_is_gone_is_put_back() {
    let (store, redis) = new_store().await;
    let sealed = root(&redis).await.unwrap();
    let _: () = redis.cli(&["FLUSHALL"]).await;
    store.ping().await.unwrap();
    assert_eq!(root(&redis).await.as_ref(), Some(&sealed));
    // After a lost connection the first thing that is asked puts it back, whatever it is.
    let _: () = redis.cli(&["FLUSHALL"]).await;
    cut(&redis).await;
    let desk = Desk::new(&store);
    eventually(PATIENCE, async || store.load(&desk.place).await.is_ok() && root(&redis).await.is_some()).await;
    assert_eq!(root(&redis).await, Some(sealed));
    desk.refresh("first").await;
}

#[tokio::test]
async fn another_root_is_not_believed() {
    let (store, redis) = new_store().await;
    let (other, other_redis) = new_store().await;
    let (desk, sealed) = (Desk::new(&store), root(&redis).await.unwrap());
    desk.refresh("first").await;
    Desk::new(&other).refresh("other").await;
    let move_in = async |sealed: &[u8]| {
        let mut connection =
            redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        redis::cmd("SET").arg("test:root").arg(sealed).exec_async(&mut connection).await.unwrap();
    };
    move_in(&root(&other_redis).await.unwrap()).await;
    cut(&redis).await;
    let disbelieved = async || matches!(store.load(&desk.place).await, Err(StoreError::Unreadable(_)));
    eventually(PATIENCE, disbelieved).await;
    let owner = AttemptId::random();
    let claim = bearerd::store::Claim {
        place: &desk.place,
        owner: &owner,
        lease: LONG,
        refused: Generation::MAX,
        purpose: bearerd::store::Purpose::default(),
    };
    assert!(matches!(store.claim(&claim).await, Err(StoreError::Unreadable(_))));
    assert!(matches!(store.release(&desk.place.unit, &owner).await, Err(StoreError::Unreadable(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Unreadable(_))));
    // The right server is back.
    move_in(&sealed).await;
    assert_eq!(desk.token().await.as_deref(), Some("first-access"));
    store.ping().await.unwrap();
}
