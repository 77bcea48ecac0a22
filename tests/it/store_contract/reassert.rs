//! Reassertion: what was acknowledged before is written again where the store has less, and nowhere else.

use bearerd::store::{Acknowledged, GrantState, Quarantine};

use super::{events::change, *};

/// What a process knows of a revision: refresh token `word-refresh`, and at its own place the token `word-access`.
async fn reassert(desk: &Desk, revision: Generation, word: &str, life: Option<Duration>) -> Written {
    let token = bearer(revision, &format!("{word}-access"), life);
    reassert_with(desk, revision, word, Some((&desk.place, &token))).await
}

async fn reassert_with(desk: &Desk, revision: Generation, word: &str, token: Option<(&Place, &Token)>) -> Written {
    let (unit, secrets, attempt) = (&desk.place.unit, &refreshable(&format!("{word}-refresh")), &AttemptId::random());
    desk.store.reassert(&Acknowledged { unit, attempt, revision, secrets, token }).await.unwrap()
}

pub async fn what_is_older_is_written_again(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let mut events = store.events();
    let first = desk.hand_over("first").await;
    let (sender, current) = (AttemptId::random(), desk.refresh("second").await);
    let late = refreshable("late-refresh");
    let (unit, attempt) = (&desk.place.unit, &AttemptId::random());
    let quarantine = Quarantine { unit, attempt, expected: first, next: beside(first, 1), secrets: &late };
    store.quarantine(&quarantine).await.unwrap();
    desk.hold(&sender).await;
    desk.dispatch(&sender, current, None).await;
    desk.settle(&AttemptId::random(), current, DEAD).await;
    let newer = beside(current, 1_000);
    assert_eq!(reassert(&desk, newer, "newer", Some(LONG)).await, Written::Done);

    let record = desk.record().await;
    assert_eq!((record.revision, record.state, refresh_token(&record)), (newer, GrantState::Active, "newer-refresh"));
    assert!(record.intent.is_none() && record.failure.is_none() && record.quarantine.is_none());
    assert_eq!(desk.token().await.as_deref(), Some("newer-access"));
    for revision in [first, current] {
        assert_eq!(change(&mut events).await.floor, beside(revision, -1));
    }
    let told = change(&mut events).await;
    assert_eq!((told.unit, told.token, told.floor), (desk.place.unit.clone(), None, beside(newer, -1)));
    // Whoever works from the older revision under its lease finds out before it sends anything.
    assert!(desk.is_busy().await);
    assert_eq!(desk.dispatch(&sender, current, None).await, Dispatched::Moved);
}

pub async fn what_is_gone_is_written_again(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.load().await.next;
    assert_eq!(reassert(&desk, revision, "only", None).await, Written::Done);
    assert_eq!(refresh_token(&desk.record().await), "only-refresh");
    assert_eq!(desk.token().await.as_deref(), Some("only-access"));
    assert!(desk.refresh("next").await > revision);
}

pub async fn what_is_there_or_newer_stays(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let mut events = store.events();
    let first = desk.hand_over("first").await;
    let current = desk.refresh("current").await;
    for step in [-1, 0] {
        assert_eq!(reassert(&desk, beside(current, step), "older", Some(LONG)).await, Written::Moved, "{step}");
    }
    let record = desk.record().await;
    assert_eq!((record.revision, refresh_token(&record)), (current, "current-refresh"));
    assert_eq!(desk.token().await.as_deref(), Some("current-access"));
    // Nothing is told between one commit and the next.
    let next = desk.refresh("next").await;
    for told in [first, current, next] {
        assert_eq!(change(&mut events).await.floor, beside(told, -1));
    }
    // A grant that was handed over since is newer, too.
    let imported = desk.hand_over("imported").await;
    assert_eq!(reassert(&desk, next, "next", Some(LONG)).await, Written::Moved);
    assert_eq!(desk.record().await.revision, imported);
}

pub async fn tokens_of_an_older_revision_are_not_served(store: Arc<dyn Store>) {
    let (read, write) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    read.refresh("read").await;
    let current = write.refresh("write").await;
    // Between these two revisions a grant may have been handed over; nobody can tell any more.
    assert_eq!(reassert_with(&read, beside(current, 10), "imported", None).await, Written::Done);
    assert_eq!((read.token().await, write.token().await), (None, None));
    let again = write.refresh("again").await;
    assert_eq!(reassert(&write, beside(again, 10), "committed", Some(LONG)).await, Written::Done);
    assert_eq!((read.token().await, write.token().await), (None, Some("committed-access".to_owned())));
}

pub async fn a_token_that_ended_meanwhile_is_not_written(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.load().await.next;
    assert_eq!(reassert(&desk, revision, "ended", Some(Duration::ZERO)).await, Written::Done);
    assert_eq!(desk.token().await, None);
    assert_eq!(refresh_token(&desk.record().await), "ended-refresh");
}
