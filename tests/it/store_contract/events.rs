//! Events: whoever holds tokens in memory hears what became of them.

use bearerd::store::{Change, Event};
use tokio::{sync::broadcast::Receiver, time::timeout};

use super::*;
use crate::support::PATIENCE;

/// The next change that is heard.
pub async fn change(events: &mut Receiver<Event>) -> Change {
    loop {
        let event = timeout(PATIENCE, events.recv()).await.expect("an event within the limit").unwrap();
        match event {
            Event::Changed(change) => return change,
            Event::Unverified { .. } => panic!("an event without proof: {event:?}"),
            Event::Gap => panic!("a gap, but nothing broke"),
            // The shared store says so when it begins to listen.
            Event::Heard => {}
        }
    }
}

async fn assert_heard(listeners: &mut [Receiver<Event>; 2], expected: &Change) {
    for events in listeners {
        assert_eq!(change(events).await, *expected);
    }
}

fn of(desk: &Desk, floor: Generation) -> Change {
    Change { unit: desk.place.unit.clone(), token: Some(desk.place.token.clone()), floor }
}

pub async fn every_listener_hears_a_commit(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let mut listeners = [store.events(), store.events()];
    let next = desk.refresh("first").await;
    // The token that was just made is above the floor.
    assert_heard(&mut listeners, &of(&desk, beside(next, -1))).await;
}

pub async fn every_listener_hears_a_rejection(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let next = desk.refresh("first").await;
    let mut listeners = [store.events(), store.events()];
    // Also where no token is left to delete: another replica may hold it in memory.
    for _ in 0..2 {
        desk.reject(next).await;
    }
    while change(&mut listeners[0]).await != of(&desk, next) {}
    while change(&mut listeners[1]).await != of(&desk, next) {}
    assert_heard(&mut listeners, &of(&desk, next)).await;
}

pub async fn every_listener_hears_an_import(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let mut listeners = [store.events(), store.events()];
    let next = desk.hand_over("first").await;
    let expected = Change { unit: desk.place.unit.clone(), token: None, floor: beside(next, -1) };
    assert_heard(&mut listeners, &expected).await;
}

pub async fn what_changes_no_token_is_not_told(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let mut events = store.events();
    let (importer, attempt) = (AttemptId::random(), AttemptId::random());
    let first = desk.load().await.next;
    desk.import(&importer, Generation::ZERO, first, "first").await;
    desk.hold(&attempt).await;
    desk.commit(&attempt, first, beside(first, 1), "second").await;
    assert_eq!(change(&mut events).await.token, None);
    assert_eq!(change(&mut events).await, of(&desk, first));

    // Repeated writes, refused writes, and work that is under way.
    let second = beside(first, 1);
    desk.commit(&attempt, first, second, "second").await;
    desk.commit(&AttemptId::random(), first, beside(first, 5), "stale").await;
    desk.import(&AttemptId::random(), first, beside(first, 5), "stale").await;
    desk.hold(&attempt).await;
    desk.dispatch(&attempt, second, None).await;
    desk.settle(&attempt, second, Verdict::OutcomeUnknown { wait: Duration::ZERO }).await;
    desk.reject(Generation::new(7)).await;
    assert_eq!(change(&mut events).await, of(&desk, Generation::new(7)), "the rejection comes next");
}
