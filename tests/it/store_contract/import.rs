//! Imports: a grant that is handed over takes the place of whatever was there.

use bearerd::store::GrantState;

use super::*;

pub async fn a_grant_is_handed_over(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let next = desk.hand_over("first").await;
    let loaded = desk.load().await;
    assert!(loaded.token.is_none());
    let record = loaded.record.unwrap();
    assert_eq!((record.revision, record.state), (next, GrantState::Active));
    assert_eq!((record.intent.as_ref(), record.failure), (None, None));
    assert_eq!(refresh_token(&record), "first-refresh");
}

pub async fn an_import_revives_a_dead_grant(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.hand_over("first").await;
    let (lost, last) = (AttemptId::random(), AttemptId::random());
    desk.hold(&lost).await;
    desk.dispatch(&lost, revision, None).await;
    desk.settle(&last, revision, DEAD).await;
    desk.release(&lost).await;
    assert!(matches!(desk.claim(&last).await, Claimed::Resting(_)));

    desk.hand_over("second").await;
    let (record, _) = held(desk.claim(&last).await);
    let record = record.unwrap();
    assert_eq!((record.state, record.failure), (GrantState::Active, None));
    assert_eq!(record.intent, None);
    assert_eq!(refresh_token(&record), "second-refresh");
}

pub async fn tokens_of_before_are_never_served(store: Arc<dyn Store>) {
    let (read, write) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    read.refresh("read").await;
    write.refresh("write").await;
    let imported = read.hand_over("new").await;
    for desk in [&read, &write] {
        assert_eq!(desk.token().await, None);
        // Nor do they stop anybody from getting to work.
        let owner = AttemptId::random();
        held(desk.claim_for(&owner, LONG, Generation::ZERO).await);
        desk.release(&owner).await;
    }
    assert!(read.refresh("read-again").await > imported);
    assert_eq!(read.token().await.as_deref(), Some("read-again-access"));
    // What the next commit leaves is still not the token of the grant that was replaced.
    assert_eq!(write.token().await, None);
}

pub async fn an_answer_from_before_is_refused(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let late = AttemptId::random();
    desk.hand_over("old").await;
    let old = desk.hold(&late).await;
    let new = desk.hand_over("new").await;
    assert_eq!(desk.commit(&late, old, beside(new, 1), "old").await, Written::Moved);
    assert_eq!(desk.settle(&late, old, DEAD).await, Written::Moved);
    let record = desk.record().await;
    assert_eq!((record.revision, record.state), (new, GrantState::Active));
    assert_eq!(refresh_token(&record), "new-refresh");
}

pub async fn a_stale_import_changes_nothing(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let current = desk.refresh("first").await;
    for expected in [Generation::ZERO, beside(current, -1), beside(current, 1)] {
        let written = desk.import(&AttemptId::random(), expected, beside(current, 2), "stale").await;
        assert_eq!(written, Written::Moved, "{expected}");
    }
    assert_eq!(refresh_token(&desk.record().await), "first-refresh");
    assert_eq!(desk.token().await.as_deref(), Some("first-access"));
}

pub async fn a_repeated_import_is_done_once(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (attempt, sender) = (AttemptId::random(), AttemptId::random());
    let next = desk.load().await.next;
    assert_eq!(desk.import(&attempt, Generation::ZERO, next, "first").await, Written::Done);
    desk.hold(&sender).await;
    desk.dispatch(&sender, next, None).await;
    assert_eq!(desk.import(&attempt, Generation::ZERO, next, "first").await, Written::Done);
    let record = desk.record().await;
    assert_eq!(record.revision, next);
    assert_eq!(record.intent.unwrap().attempt, sender);
}
