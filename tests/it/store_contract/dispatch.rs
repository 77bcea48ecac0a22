//! Intents: what is known of refresh tokens that were, perhaps, sent.

use super::*;

pub async fn an_intent_outlives_its_lease(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    desk.hand_over("first").await;
    let (sender, next) = (AttemptId::random(), AttemptId::random());
    let revision = desk.hold(&sender).await;
    let sent = Moment::now();
    assert_eq!(desk.dispatch(&sender, revision, None).await, Dispatched::Go);
    desk.release(&sender).await;

    let (record, _) = held(desk.claim(&next).await);
    let intent = record.unwrap().intent.expect("an intent");
    assert_eq!((&intent.attempt, intent.sends, intent.settled), (&sender, 1, false));
    // By the store's clock, which may tick otherwise than ours.
    assert!(intent.age <= Moment::now().since(&sent) + Duration::from_secs(1), "{intent:?}");
}

pub async fn a_repeated_dispatch_counts_once(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let sender = AttemptId::random();
    desk.hold(&sender).await;
    for _ in 0..2 {
        assert_eq!(desk.dispatch(&sender, Generation::ZERO, None).await, Dispatched::Go);
    }
    assert_eq!(desk.record().await.intent.unwrap().sends, 1);
}

pub async fn sending_takes_a_lease_that_lasts(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (owner, other) = (AttemptId::random(), AttemptId::random());
    let send = async |attempt, need| desk.dispatch_within(attempt, Generation::ZERO, None, need).await;
    assert_eq!(send(&owner, Duration::ZERO).await, Dispatched::LeaseLost, "no lease at all");
    desk.hold(&owner).await;
    assert_eq!(send(&other, Duration::ZERO).await, Dispatched::LeaseLost, "another's lease");
    assert_eq!(send(&owner, LONG * 2).await, Dispatched::LeaseLost, "too little is left");
    assert!(desk.load().await.record.is_none());
    assert_eq!(send(&owner, LONG / 2).await, Dispatched::Go);
}

pub async fn sending_takes_the_record_that_was_seen(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (sender, stranger) = (AttemptId::random(), AttemptId::random());
    desk.hand_over("first").await;
    let revision = desk.hold(&sender).await;
    for (expected, seen) in [(beside(revision, -1), None), (beside(revision, 1), None), (revision, Some(&stranger))] {
        assert_eq!(desk.dispatch(&sender, expected, seen).await, Dispatched::Moved, "{expected} {seen:?}");
    }
    assert_eq!(desk.record().await.intent, None);

    // An intent that came up since the claim means that somebody else sends.
    assert_eq!(desk.dispatch(&sender, revision, None).await, Dispatched::Go);
    desk.release(&sender).await;
    desk.hold(&stranger).await;
    assert_eq!(desk.dispatch(&stranger, revision, None).await, Dispatched::Moved);
    assert_eq!(desk.record().await.intent.unwrap().attempt, sender);
}

pub async fn a_second_send_is_counted_and_aged_from_the_first(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (first, second) = (AttemptId::random(), AttemptId::random());
    desk.hold(&first).await;
    desk.dispatch(&first, Generation::ZERO, None).await;
    desk.release(&first).await;
    crate::support::eventually(LONG, async || desk.record().await.intent.unwrap().age > SHORT).await;
    desk.hold(&second).await;
    assert_eq!(desk.dispatch(&second, Generation::ZERO, Some(&first)).await, Dispatched::Go);
    let intent = desk.record().await.intent.unwrap();
    assert_eq!((&intent.attempt, intent.sends), (&second, 2));
    assert!(intent.age > SHORT && intent.quiet < intent.age, "{intent:?}");
}

pub async fn a_commit_ends_the_intent(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let sender = AttemptId::random();
    let next = desk.hand_over("first").await;
    desk.hold(&sender).await;
    desk.dispatch(&sender, next, None).await;
    // A write that is refused does not.
    assert_eq!(desk.commit(&sender, beside(next, -1), beside(next, 1), "stale").await, Written::Moved);
    assert_eq!(desk.record().await.intent.unwrap().attempt, sender);
    assert_eq!(desk.commit(&sender, next, beside(next, 1), "second").await, Written::Done);
    assert_eq!(desk.record().await.intent, None);
}
