//! Refusals of one token: the others of its grant know nothing of them.

use super::*;
use crate::support::{PATIENCE, eventually};

const NEEDED: Purpose = Purpose { needed: true, yields: false, dead: false };
const YIELDS: Purpose = Purpose { needed: true, yields: true, dead: false };
const NONE: Duration = Duration::ZERO;

/// Two tokens of Jane's grant, and its revision.
async fn two(store: &Arc<dyn Store>) -> (Desk, Desk, Generation) {
    let (one, other) = (Desk::new(store), Desk::of(store, "jane", "write"));
    let revision = one.hand_over("first").await;
    (one, other, revision)
}

async fn claim(desk: &Desk, purpose: Purpose) -> Claimed {
    let owner = AttemptId::random();
    let claimed = desk.claim_as(&owner, LONG, Generation::MAX, purpose).await;
    desk.release(&owner).await;
    claimed
}

async fn refusal(desk: &Desk) -> TokenRefusal {
    let loaded = desk.load().await.refusal.unwrap();
    match claim(desk, NEEDED).await {
        Claimed::Refused(refusal) => assert_eq!((refusal.cause, refusal.count), (loaded.cause, loaded.count)),
        other @ (Claimed::Held { .. } | Claimed::Newer(_) | Claimed::Resting(_) | Claimed::Busy(_)) => {
            panic!("not refused but {other:?}")
        }
    }
    loaded
}

/// S1, P-K2 row 7.
pub async fn a_refusal_concerns_one_token(store: Arc<dyn Store>) {
    let (one, other, revision) = two(&store).await;
    assert_eq!(one.refuse(revision, LONG, false, NONE).await, Written::Done);
    let refusal = refusal(&one).await;
    assert_eq!((refusal.cause, refusal.count), (FailureCause::InsufficientScope, 1));
    assert!(refusal.wait > LONG / 2 && refusal.wait <= LONG, "{refusal:?}");
    let record = other.record().await;
    assert_eq!((record.state, record.failure), (bearerd::store::GrantState::Active, None));
    assert_eq!(other.load().await.refusal, None);
    held(claim(&other, NEEDED).await);
}

pub async fn refusals_are_counted_until_the_token_is_obtained(store: Arc<dyn Store>) {
    let (one, other, revision) = two(&store).await;
    for count in 1..=3 {
        one.refuse(revision, NONE, false, NONE).await;
        assert_eq!(one.load().await.refusal.unwrap().count, count);
    }
    other.refresh("second").await;
    assert_eq!(one.load().await.refusal.unwrap().count, 3);
    one.refresh("third").await;
    assert_eq!(one.load().await.refusal, None);
}

pub async fn a_refusal_ends_with_its_grant(store: Arc<dyn Store>) {
    let (one, other, revision) = two(&store).await;
    one.refuse(revision, LONG, false, NONE).await;
    other.hand_over("second").await;
    assert_eq!(one.load().await.refusal, None);
    held(claim(&one, NEEDED).await);
}

pub async fn a_refusal_withdraws_its_own_intent_and_gives_its_lease_back(store: Arc<dyn Store>) {
    let (one, _, revision) = two(&store).await;
    let sender = AttemptId::random();
    one.hold(&sender).await;
    one.dispatch(&sender, revision, None).await;
    one.refuse(revision, NONE, false, NONE).await;
    assert_eq!(one.record().await.intent.unwrap().attempt, sender);
    assert!(one.is_busy().await);
    let refuse = Refuse {
        place: &one.place,
        attempt: &sender,
        expected: revision,
        cause: FailureCause::InsufficientScope,
        wait: NONE,
        early: false,
        give_way: NONE,
    };
    assert_eq!(one.store.refuse(&refuse).await.unwrap(), Written::Done);
    assert_eq!(one.record().await.intent, None);
    assert!(!one.is_busy().await);
}

pub async fn a_repeated_refusal_counts_once(store: Arc<dyn Store>) {
    let (one, _, expected) = two(&store).await;
    let (place, attempt, cause) = (&one.place, &AttemptId::random(), FailureCause::ReauthorizationRequired);
    for _ in 0..2 {
        let refuse = Refuse { place, attempt, expected, cause, wait: LONG, early: false, give_way: NONE };
        assert_eq!(store.refuse(&refuse).await.unwrap(), Written::Done);
    }
    assert_eq!(refusal(&one).await.count, 1);
}

pub async fn a_stale_refusal_notes_nothing(store: Arc<dyn Store>) {
    let (one, _, revision) = two(&store).await;
    for expected in [Generation::ZERO, beside(revision, -1), beside(revision, 1)] {
        assert_eq!(one.refuse(expected, LONG, false, LONG).await, Written::Moved);
    }
    assert_eq!(one.load().await.refusal, None);
    held(claim(&one, YIELDS).await);
}

/// P-K5, row 17.
pub async fn a_needed_token_does_not_wait_for_early_refusals(store: Arc<dyn Store>) {
    let (one, _, revision) = two(&store).await;
    for _ in 0..2 {
        one.refuse(revision, LONG, true, NONE).await;
    }
    assert!(matches!(claim(&one, Purpose::default()).await, Claimed::Refused(_)));
    held(claim(&one, NEEDED).await);
    one.refuse(revision, LONG, false, NONE).await;
    assert_eq!(refusal(&one).await.count, 1);
    one.refuse(revision, LONG, true, NONE).await;
    assert_eq!(refusal(&one).await.count, 2);
}

/// S1: a loop over made-up scopes must not keep the lease from others.
pub async fn claims_that_yield_wait_after_a_refusal(store: Arc<dyn Store>) {
    let (one, other, revision) = two(&store).await;
    one.refuse(revision, NONE, false, LONG).await;
    for desk in [&one, &other] {
        assert!(matches!(claim(desk, YIELDS).await, Claimed::Busy(_)));
    }
    held(claim(&other, NEEDED).await);
    let third = Desk::of(&store, "joe", "write");
    held(claim(&third, YIELDS).await);
    one.refuse(revision, NONE, false, NONE).await;
    eventually(PATIENCE, async || matches!(claim(&other, YIELDS).await, Claimed::Held { .. })).await;
}
