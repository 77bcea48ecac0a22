//! Looks by somebody who has a token at hand: whatever changed is told, by a store that others write to also that nothing did.

use bearerd::store::Look;

use super::*;

impl Desk {
    /// If nothing changed, whether refreshing fails; `None`, if something did.
    async fn is_unchanged(&self, at_hand: Generation) -> Option<bool> {
        match self.store.look(&self.place, at_hand).await.unwrap() {
            Look::Unchanged { failing } => Some(failing),
            Look::Changed => None,
        }
    }
}

pub async fn nothing_is_told_of_the_token_at_hand(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let current = desk.refresh("first").await;
    let unchanged = |failing| store.is_shared().then_some(failing);
    assert_eq!(desk.is_unchanged(current).await, unchanged(false));
    // Whoever is at work changes nothing, and neither does a failure.
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    assert_eq!(desk.dispatch(&attempt, current, None).await, Dispatched::Go);
    assert_eq!(desk.is_unchanged(current).await, unchanged(false));
    desk.settle(&attempt, current, Verdict::BackOff { wait: Duration::ZERO }).await;
    assert_eq!(desk.is_unchanged(current).await, unchanged(true));
    for other in [Generation::ZERO, beside(current, -1), beside(current, 1), Generation::MAX] {
        assert_eq!(desk.is_unchanged(other).await, None, "{other}");
    }
}

pub async fn every_change_is_told(store: Arc<dyn Store>) {
    let (read, write) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    assert_eq!(read.is_unchanged(Generation::ZERO).await, None, "nothing is there");
    let first = read.refresh("first").await;
    let second = write.refresh("second").await;
    assert_eq!(read.is_unchanged(first).await, None, "the grant has another revision");
    assert_eq!(read.is_unchanged(second).await, None, "it is the revision, but another place's token");
    let third = read.refresh("third").await;
    assert_eq!(read.is_unchanged(second).await, None, "it was replaced");
    write.reject(third).await;
    assert_eq!(read.is_unchanged(third).await, store.is_shared().then_some(false), "another one was rejected");
    read.reject(third).await;
    assert_eq!(read.is_unchanged(third).await, None, "it was rejected");
    let fourth = read.refresh("fourth").await;
    read.hand_over("fifth").await;
    assert_eq!(read.is_unchanged(fourth).await, None, "the grant was replaced");
}

pub async fn an_expired_token_is_not_at_hand(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    let (_, next) = held(desk.claim(&attempt).await);
    let token = bearer(next, "access", Some(SHORT));
    assert_eq!(desk.commit_token(&attempt, Generation::ZERO, &token, "word").await.unwrap(), Written::Done);
    crate::support::eventually(crate::support::PATIENCE, async || desk.token().await.is_none()).await;
    // The sealed end may come a moment before the store's own.
    crate::support::eventually(crate::support::PATIENCE, async || desk.is_unchanged(next).await.is_none()).await;
}
