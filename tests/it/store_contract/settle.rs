//! Failures: a grant rests, counts, keeps what is unknown, and dies.

use bearerd::store::GrantState;

use super::*;
use crate::support::{PATIENCE, eventually};

const NO_WAIT: Verdict = Verdict::BackOff { wait: Duration::ZERO };

async fn resting(desk: &Desk) -> GrantRecord {
    let claimed = desk.claim(&AttemptId::random()).await;
    let Claimed::Resting(record) = claimed else { panic!("not resting but {claimed:?}") };
    record
}

pub async fn a_back_off_rests_and_ends(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    assert_eq!(desk.settle(&attempt, Generation::ZERO, Verdict::BackOff { wait: LONG }).await, Written::Done);
    let failure = resting(&desk).await.failure.unwrap();
    assert_eq!((failure.cause, failure.count), (FailureCause::ProviderUnavailable, 1));
    assert!(failure.wait > LONG / 2 && failure.wait <= LONG, "{failure:?}");
    eventually(PATIENCE, async || desk.record().await.failure.unwrap().wait < failure.wait).await;

    let again = AttemptId::random();
    desk.settle(&again, Generation::ZERO, Verdict::BackOff { wait: SHORT }).await;
    eventually(PATIENCE, async || matches!(desk.claim(&again).await, Claimed::Held { .. })).await;
    assert_eq!(desk.record().await.failure.unwrap().wait, Duration::ZERO);
}

pub async fn no_wait_is_longer_than_an_hour(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    for wait in [Duration::from_secs(7200), Duration::MAX] {
        desk.settle(&AttemptId::random(), Generation::ZERO, Verdict::BackOff { wait }).await;
        let wait = resting(&desk).await.failure.unwrap().wait;
        assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600), "{wait:?}");
    }
}

pub async fn failures_are_counted_until_a_success(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.hand_over("first").await;
    for count in 1..=3 {
        desk.settle(&AttemptId::random(), revision, NO_WAIT).await;
        assert_eq!(desk.record().await.failure.unwrap().count, count);
    }
    desk.refresh("second").await;
    assert_eq!(desk.record().await.failure, None);
}

pub async fn a_repeated_settle_counts_once(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    for _ in 0..2 {
        assert_eq!(desk.settle(&attempt, Generation::ZERO, NO_WAIT).await, Written::Done);
    }
    assert_eq!(desk.record().await.failure.unwrap().count, 1);
}

pub async fn a_settle_gives_back_its_own_lease_only(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let owner = AttemptId::random();
    desk.hold(&owner).await;
    desk.settle(&AttemptId::random(), Generation::ZERO, NO_WAIT).await;
    assert!(desk.is_busy().await);
    desk.settle(&owner, Generation::ZERO, NO_WAIT).await;
    assert!(!desk.is_busy().await);
}

pub async fn a_settle_withdraws_its_own_intent_only(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let sender = AttemptId::random();
    desk.hold(&sender).await;
    desk.dispatch(&sender, Generation::ZERO, None).await;
    desk.settle(&AttemptId::random(), Generation::ZERO, NO_WAIT).await;
    let intent = desk.record().await.intent.unwrap();
    assert_eq!((&intent.attempt, intent.sends), (&sender, 1));
    desk.settle(&sender, Generation::ZERO, NO_WAIT).await;
    assert_eq!(desk.record().await.intent, None);
}

pub async fn an_unknown_outcome_keeps_the_intent(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let sender = AttemptId::random();
    desk.hold(&sender).await;
    desk.dispatch(&sender, Generation::ZERO, None).await;
    desk.settle(&sender, Generation::ZERO, Verdict::OutcomeUnknown { wait: LONG }).await;
    let record = resting(&desk).await;
    let intent = record.intent.unwrap();
    assert_eq!((&intent.attempt, intent.sends, intent.settled), (&sender, 1, true));
    assert!(!record.failure.unwrap().wait.is_zero());
}

pub async fn a_definitive_outcome_withdraws_one_send(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (first, second) = (AttemptId::random(), AttemptId::random());
    desk.hold(&first).await;
    desk.dispatch(&first, Generation::ZERO, None).await;
    desk.settle(&first, Generation::ZERO, Verdict::OutcomeUnknown { wait: Duration::ZERO }).await;
    desk.hold(&second).await;
    assert_eq!(desk.dispatch(&second, Generation::ZERO, Some(&first)).await, Dispatched::Go);
    assert_eq!(desk.record().await.intent.unwrap().sends, 2);
    // What became of the first send is as unknown as before.
    desk.settle(&second, Generation::ZERO, NO_WAIT).await;
    assert_eq!(desk.record().await.intent.unwrap().sends, 1);
}

pub async fn a_stale_settle_notes_nothing(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    let revision = desk.hand_over("first").await;
    desk.hold(&attempt).await;
    desk.dispatch(&attempt, revision, None).await;
    for expected in [Generation::ZERO, beside(revision, -1), beside(revision, 1)] {
        assert_eq!(desk.settle(&attempt, expected, DEAD).await, Written::Moved);
    }
    let record = desk.record().await;
    assert_eq!((record.state, record.failure), (GrantState::Active, None));
    assert_eq!(record.intent.unwrap().attempt, attempt);
    assert!(!desk.is_busy().await, "there is nothing left to do under this lease");
}

pub async fn a_dead_grant_rests(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.refresh("first").await;
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    desk.dispatch(&attempt, revision, None).await;
    assert_eq!(desk.settle(&attempt, revision, DEAD).await, Written::Done);
    let record = resting(&desk).await;
    assert_eq!(record.state, GrantState::Dead(FailureCause::ProviderUnavailable));
    assert_eq!(record.intent, None);
    assert_eq!(record.failure.unwrap().wait, Duration::ZERO);
    // Its last token may still live.
    assert_eq!(desk.token().await.as_deref(), Some("first-access"));
}

const NEEDED: Purpose = Purpose { needed: true, yields: false, dead: false };

async fn claim(desk: &Desk, purpose: Purpose) -> Claimed {
    let owner = AttemptId::random();
    let claimed = desk.claim_as(&owner, LONG, Generation::MAX, purpose).await;
    desk.release(&owner).await;
    claimed
}

/// P-K5, row 17.
pub async fn a_needed_token_does_not_wait_for_early_tries(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.hand_over("first").await;
    let early = async || {
        let verdict = Verdict::BackOff { wait: LONG };
        assert_eq!(desk.settle_as(&AttemptId::random(), revision, verdict, true).await, Written::Done);
    };
    early().await;
    early().await;
    let failure = resting(&desk).await.failure.unwrap();
    assert_eq!((failure.count, failure.early), (2, true));
    held(claim(&desk, NEEDED).await);

    // Once a try that was needed has failed, its wait holds for all, and the count begins anew.
    desk.settle(&AttemptId::random(), revision, Verdict::BackOff { wait: LONG }).await;
    let Claimed::Resting(record) = claim(&desk, NEEDED).await else { panic!("it does not rest") };
    let failure = record.failure.unwrap();
    assert_eq!((failure.count, failure.early), (1, false));
}

/// P-K5: early tries in between must not lift the wait of those that are needed.
pub async fn early_tries_after_a_needed_one_wait_with_it(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.hand_over("first").await;
    desk.settle(&AttemptId::random(), revision, NO_WAIT).await;
    desk.settle_as(&AttemptId::random(), revision, Verdict::BackOff { wait: LONG }, true).await;
    let Claimed::Resting(record) = claim(&desk, NEEDED).await else { panic!("it does not rest") };
    assert_eq!(record.failure.unwrap().count, 2);
}

/// P-K1, row 5.
pub async fn a_dead_grant_keeps_its_refresh_token_and_says_when_it_is_tried(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let revision = desk.refresh("first").await;
    for deaths in 1..=2 {
        let attempt = AttemptId::random();
        desk.settle(&attempt, revision, Verdict::Dead { again: Some(LONG) }).await;
        let record = resting(&desk).await;
        assert_eq!(refresh_token(&record), "first-refresh");
        let revival = record.revival.unwrap();
        assert_eq!(revival.deaths, deaths);
        assert!(revival.wait.is_some_and(|wait| wait > LONG / 2 && wait <= LONG), "{revival:?}");
    }
    desk.settle(&AttemptId::random(), revision, DEAD).await;
    assert_eq!(resting(&desk).await.revival.unwrap().wait, None);

    // Who means to try it takes the lease all the same, and a token revives it.
    let attempt = AttemptId::random();
    let purpose = Purpose { dead: true, ..NEEDED };
    let (record, next) = held(desk.claim_as(&attempt, LONG, Generation::MAX, purpose).await);
    assert_eq!(desk.commit(&attempt, record.unwrap().revision, next, "second").await, Written::Done);
    let record = desk.record().await;
    assert_eq!((record.state, record.revival), (GrantState::Active, None));
    desk.settle(&AttemptId::random(), next, Verdict::Dead { again: Some(LONG) }).await;
    assert_eq!(desk.record().await.revival.unwrap().deaths, 1);
}

pub async fn a_grant_can_die_before_it_is_stored(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    assert_eq!(desk.settle(&AttemptId::random(), Generation::ZERO, DEAD).await, Written::Done);
    let record = resting(&desk).await;
    assert_eq!(record.revision, Generation::ZERO);
    assert!(matches!(record.secrets.material, Material::Nothing));
}
