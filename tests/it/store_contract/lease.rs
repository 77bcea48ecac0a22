//! Claims and leases: one works on a grant, the others wait or use what it made.

use super::*;
use crate::support::{PATIENCE, eventually};

pub async fn nothing_is_known_of_a_new_place(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
    let desk = Desk::new(&store);
    let loaded = desk.load().await;
    assert!(loaded.record.is_none() && loaded.token.is_none(), "{loaded:?}");
    assert_eq!(loaded.revision(), Generation::ZERO);
    assert!(loaded.next > Generation::ZERO);
    let (record, next) = held(desk.claim(&AttemptId::random()).await);
    assert!(record.is_none());
    assert!(next >= loaded.next);
}

pub async fn one_holds_and_others_wait(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (owner, other) = (AttemptId::random(), AttemptId::random());
    desk.hold(&owner).await;
    // A claim that is repeated after a lost reply finds its own lease.
    desk.hold(&owner).await;
    let claimed = desk.claim(&other).await;
    let Claimed::Busy(left) = claimed else { panic!("{claimed:?}") };
    assert!(!left.is_zero() && left <= LONG, "{left:?}");
}

pub async fn a_lease_runs_out(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (slow, next) = (AttemptId::random(), AttemptId::random());
    desk.claim_for(&slow, SHORT, Generation::ZERO).await;
    eventually(PATIENCE, async || matches!(desk.claim(&next).await, Claimed::Held { .. })).await;
    assert_eq!(desk.dispatch(&slow, Generation::ZERO, None).await, Dispatched::LeaseLost);
}

pub async fn only_the_owner_releases(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (first, second) = (AttemptId::random(), AttemptId::random());
    desk.hold(&first).await;
    desk.release(&second).await;
    assert!(desk.is_busy().await);
    desk.release(&first).await;
    desk.hold(&second).await;
    // A release that is repeated late does not hit whoever came next.
    desk.release(&first).await;
    assert!(desk.is_busy().await);
}

pub async fn grants_do_not_wait_for_each_other(store: Arc<dyn Store>) {
    let (jane, joe) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "joe", "read"));
    jane.hold(&AttemptId::random()).await;
    joe.hold(&AttemptId::random()).await;
    // All tokens of a grant share its refresh token, and so its lease.
    assert!(Desk::of(&store, "jane", "write").is_busy().await);
}

pub async fn a_newer_token_makes_work_unnecessary(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let current = desk.refresh("first").await;
    let owner = AttemptId::random();
    let newer = async |refused| match desk.claim_for(&AttemptId::random(), LONG, refused).await {
        Claimed::Newer(token) => Some((token.generation, token.value.expose_secret().to_owned())),
        Claimed::Held { .. } | Claimed::Busy(_) | Claimed::Resting(_) | Claimed::Refused(_) => None,
    };
    let expected = Some((current, "first-access".to_owned()));
    assert_eq!(newer(Generation::ZERO).await, expected);
    assert_eq!(newer(beside(current, -1)).await, expected);

    // No lease was taken on the way, and whoever refuses the current token gets to work.
    let (record, _) = held(desk.claim_for(&owner, LONG, current).await);
    assert_eq!(record.unwrap().revision, current);
    // Nobody has to wait who can do with the token that is there.
    assert_eq!(newer(beside(current, -1)).await, expected);
    assert_eq!(newer(current).await, None);
}
