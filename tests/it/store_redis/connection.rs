//! A connection that is lost, or that leads to a server which takes no writes any more: told at once, and found again
//! without anybody's help.

use std::sync::atomic::{AtomicU16, Ordering};

use bearerd::store::{Claim, Event, Purpose};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::broadcast::Receiver,
};

use super::*;
use crate::{store_contract::events::change, support::eventually};

/// Waits for an event of this kind, past others.
pub(super) async fn heard(events: &mut Receiver<Event>, wanted: &Event) {
    while timeout(PATIENCE, events.recv()).await.unwrap_or_else(|_| panic!("no {wanted:?}")).unwrap() != *wanted {}
}

/// Tries to write; nothing is there to write, so that it can be done again and again.
pub(super) async fn write(desk: &Desk) -> Result<(), StoreError> {
    let owner = AttemptId::random();
    let claim =
        Claim { place: &desk.place, owner: &owner, lease: LONG, refused: Generation::MAX, purpose: Purpose::default() };
    desk.store.claim(&claim).await.map(drop)?;
    desk.store.release(&desk.place.unit, &owner).await
}

#[track_caller]
pub(super) fn assert_away(answer: Result<impl std::fmt::Debug, StoreError>, word: &str) {
    match answer {
        Err(StoreError::Unavailable(why)) => assert!(why.contains(word), "{why}"),
        other => panic!("not away but {other:?}"),
    }
}

/// Makes a server the replica of another, and waits until it has what that one has.
async fn follow(replica: &Redis, primary: &Redis) {
    let _: () = replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually(PATIENCE, async || replica.is_in_sync().await).await;
}

#[tokio::test]
async fn a_lost_connection_is_a_gap_and_comes_back() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let mut events = store.events();
    for kind in ["normal", "pubsub"] {
        let _: i64 = redis.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
    }
    // Nobody has to use the store for that.
    heard(&mut events, &Event::Gap).await;
    heard(&mut events, &Event::Heard).await;
    eventually(PATIENCE, async || store.load(&desk.place).await.is_ok()).await;
    desk.refresh("second").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_found_again() {
    let (store, mut redis) = new_store().await;
    let desk = Desk::new(&store);
    let made = desk.refresh("first").await;
    let mut events = store.events();
    redis.kill();
    heard(&mut events, &Event::Gap).await;
    let answer = timeout(PATIENCE, store.load(&desk.place)).await.expect("an answer within the limit");
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    redis.start_again().await;
    eventually(PATIENCE, async || store.ping().await.is_ok()).await;
    heard(&mut events, &Event::Heard).await;
    assert_eq!(desk.record().await.revision, made);
    assert_eq!(desk.token().await.as_deref(), Some("first-access"));
}

#[tokio::test]
async fn commands_fail_at_once_as_long_as_the_server_is_away() {
    let (store, mut redis) = new_store().await;
    let desk = Desk::new(&store);
    redis.kill();
    // Together they would take far more than the limit if each of them waited for a connection.
    let all = async {
        for _ in 0..200 {
            assert!(matches!(store.load(&desk.place).await, Err(StoreError::Unavailable(_))));
        }
    };
    timeout(PATIENCE, all).await.expect("200 errors within the limit");
    assert_away(store.load(&desk.place).await, "refused");
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up() {
    let (store, mut redis) = new_store().await;
    let desk = Desk::new(&store);
    let made = desk.refresh("first").await;
    let mut events = store.events();
    redis.process().signal("STOP");
    let answer = timeout(PATIENCE, store.load(&desk.place)).await.expect("an answer within the limit");
    assert_away(answer, "timed out");
    heard(&mut events, &Event::Gap).await;
    redis.process().signal("CONT");
    heard(&mut events, &Event::Heard).await;
    assert_eq!(desk.record().await.revision, made);
}

#[tokio::test]
async fn a_demoted_server_is_not_read_from_either() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    let made = desk.refresh("first").await;
    let other = Redis::start().await;
    follow(&other, &redis).await;
    let mut events = store.events();

    let _: () = other.cli(&["REPLICAOF", "NO", "ONE"]).await;
    follow(&redis, &other).await;
    assert_away(write(&desk).await, "ReadOnly");
    heard(&mut events, &Event::Gap).await;
    eventually(PATIENCE, async || {
        let answer = store.load(&desk.place).await;
        // Never what a replica holds.
        answer.is_err_and(|error| error.to_string().contains("is a replica"))
    })
    .await;

    let _: () = redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    heard(&mut events, &Event::Heard).await;
    assert_eq!(desk.record().await.revision, made);
    desk.refresh("second").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
}

#[tokio::test]
async fn a_demotion_is_noticed_without_a_write() {
    let (store, redis) = new_store().await;
    let mut events = store.events();
    store.ping().await.unwrap();
    let _: () = redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_away(store.ping().await, "is a replica");
    heard(&mut events, &Event::Gap).await;
    let _: () = redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    heard(&mut events, &Event::Heard).await;
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_primary_that_lacks_its_replicas_is_left_and_comes_back() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    let mut events = store.events();
    let _: () = redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_away(write(&desk).await, "NOREPLICAS");
    heard(&mut events, &Event::Gap).await;
    let _: () = redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    heard(&mut events, &Event::Heard).await;
    desk.refresh("first").await;
}

/// An address that leads to one server now and to another later, as a name or a virtual address does. Connections that
/// stand already stay where they are.
async fn signpost() -> (String, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let port = Arc::new(AtomicU16::new(0));
    let shown = Arc::clone(&port);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let port = shown.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                // An end is no news.
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (url, port)
}

#[tokio::test]
async fn a_failover_behind_one_address_is_followed() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let (url, port) = signpost().await;
    port.store(old.port(), Ordering::SeqCst);
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&settings(&url), ring("a", 1)).await.unwrap());
    let desk = Desk::new(&store);
    let made = desk.refresh("first").await;
    follow(&new, &old).await;
    let mut events = store.events();

    let _: () = new.cli(&["REPLICAOF", "NO", "ONE"]).await;
    follow(&old, &new).await;
    port.store(new.port(), Ordering::SeqCst);
    // The old primary lives on, and so does the connection to it.
    assert_away(write(&desk).await, "ReadOnly");
    heard(&mut events, &Event::Heard).await;
    assert_eq!(desk.record().await.revision, made);
    desk.refresh("second").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
    let there = Desk::new(&replica(&new).await);
    assert_eq!(there.token().await.as_deref(), Some("second-access"));
}
