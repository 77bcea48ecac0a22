//! Rejections: a token that an upstream refused is gone, and nothing else is.

use super::*;

pub async fn a_rejected_token_is_gone_and_a_newer_one_stays(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let stale = desk.refresh("first").await;
    let current = desk.refresh("second").await;
    for older in [Generation::ZERO, stale, beside(current, -1)] {
        desk.reject(older).await;
        assert_eq!(desk.token().await.as_deref(), Some("second-access"), "{older}");
    }
    for _ in 0..2 {
        desk.reject(current).await;
        assert_eq!(desk.token().await, None);
    }
    // The grant itself is as it was.
    let (record, _) = held(desk.claim_for(&AttemptId::random(), LONG, Generation::ZERO).await);
    let record = record.unwrap();
    assert_eq!((record.revision, refresh_token(&record)), (current, "second-refresh"));
}

pub async fn only_the_place_is_rejected(store: Arc<dyn Store>) {
    let (read, write) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    read.refresh("read").await;
    write.refresh("write").await;
    read.reject(Generation::MAX).await;
    assert_eq!(read.token().await, None);
    assert_eq!(write.token().await.as_deref(), Some("write-access"));
}

pub async fn rejecting_nothing_is_no_fault(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    desk.reject(Generation::MAX).await;
    assert!(desk.load().await.record.is_none());
}

pub async fn strikes_are_kept_until_a_grant_is_imported(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let current = desk.refresh("first").await;
    let strikes = async || desk.load().await.record.unwrap().strikes;
    desk.strike(current, 3).await;
    assert_eq!(strikes().await, 3);
    desk.refresh("second").await;
    assert_eq!(strikes().await, 3, "a new token forgives nothing");
    desk.hand_over("third").await;
    assert_eq!(strikes().await, 0);
}
