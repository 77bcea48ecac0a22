//! Quarantine: an answer that came too late is kept beside its own grant, and takes its place only when it is told to.

use bearerd::store::{GrantState, Quarantine};

use super::*;

/// The refresh token in quarantine, and the revision that it would have become.
fn kept(record: &GrantRecord) -> Option<(Generation, &str)> {
    let kept = record.quarantine.as_ref()?;
    let Material::RefreshToken(token) = &kept.secrets.material else { panic!("{kept:?}") };
    Some((kept.revision, token.expose_secret()))
}

impl Desk {
    async fn quarantine(&self, expected: Generation, next: Generation, word: &str) -> Written {
        self.quarantine_of(&AttemptId::random(), expected, next, word).await
    }

    async fn quarantine_of(&self, attempt: &AttemptId, expected: Generation, next: Generation, word: &str) -> Written {
        let (unit, secrets) = (&self.place.unit, &refreshable(&format!("{word}-refresh")));
        self.store.quarantine(&Quarantine { unit, attempt, expected, next, secrets }).await.unwrap()
    }

    async fn adopt(&self, attempt: &AttemptId, expected: Generation, next: Generation, word: &str) -> Written {
        let (unit, secrets) = (&self.place.unit, &refreshable(&format!("{word}-refresh")));
        self.store.adopt(&Import { unit, attempt, expected, next, secrets }).await.unwrap()
    }
}

pub async fn a_late_answer_is_kept_beside_the_grant(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let first = desk.hand_over("first").await;
    let current = desk.refresh("second").await;
    assert_eq!(kept(&desk.record().await), None);
    let late = beside(first, 1);
    for _ in 0..2 {
        assert_eq!(desk.quarantine(first, late, "late").await, Written::Done);
        let record = desk.record().await;
        assert_eq!(kept(&record), Some((late, "late-refresh")));
        assert_eq!((record.revision, refresh_token(&record)), (current, "second-refresh"));
    }
    assert_eq!(desk.token().await.as_deref(), Some("second-access"));
}

pub async fn the_newest_late_answer_is_kept(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let first = desk.hand_over("first").await;
    desk.refresh("second").await;
    for (step, word, expected) in [(2, "later", "later"), (1, "late", "later"), (3, "latest", "latest")] {
        assert_eq!(desk.quarantine(first, beside(first, step), word).await, Written::Done);
        let record = desk.record().await;
        assert_eq!(kept(&record).unwrap().1, format!("{expected}-refresh"));
    }
}

pub async fn nothing_is_kept_for_a_grant_that_is_not_there(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let next = desk.load().await.next;
    assert_eq!(desk.quarantine(Generation::ZERO, next, "late").await, Written::Moved);
    assert!(desk.load().await.record.is_none());
    // A failure that was noted is no grant.
    desk.settle(&AttemptId::random(), Generation::ZERO, Verdict::BackOff { wait: Duration::ZERO }).await;
    assert_eq!(desk.quarantine(Generation::ZERO, next, "late").await, Written::Moved);
    assert_eq!(kept(&desk.record().await), None);
}

pub async fn a_commit_ends_the_quarantine(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let first = desk.hand_over("first").await;
    let second = desk.refresh("second").await;
    desk.quarantine(first, beside(first, 1), "late").await;
    // A write that is refused and a failure do not.
    assert_eq!(desk.commit(&AttemptId::random(), first, beside(first, 2), "stale").await, Written::Moved);
    desk.settle(&AttemptId::random(), second, Verdict::BackOff { wait: Duration::ZERO }).await;
    assert!(kept(&desk.record().await).is_some());
    desk.refresh("third").await;
    assert_eq!(kept(&desk.record().await), None);
}

pub async fn an_adoption_revives_the_same_grant(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let first = desk.hand_over("first").await;
    let second = desk.refresh("second").await;
    desk.quarantine(first, beside(first, 1), "late").await;
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    desk.dispatch(&attempt, second, None).await;
    desk.settle(&AttemptId::random(), second, DEAD).await;
    let next = desk.load().await.next;
    for expected in [first, beside(second, 1)] {
        assert_eq!(desk.adopt(&AttemptId::random(), expected, next, "stale").await, Written::Moved);
    }
    assert!(desk.record().await.intent.is_some());
    for _ in 0..2 {
        assert_eq!(desk.adopt(&attempt, second, next, "late").await, Written::Done);
        let record = desk.record().await;
        assert_eq!((record.revision, record.state, record.failure), (next, GrantState::Active, None));
        assert_eq!((record.intent.as_ref(), kept(&record), refresh_token(&record)), (None, None, "late-refresh"));
    }
    // Its tokens are as good as before, and whoever comes next finds no lease.
    assert_eq!(desk.token().await.as_deref(), Some("second-access"));
    held(desk.claim(&AttemptId::random()).await);
}

/// Its refresh token was presented since, to make the revisions that came after it.
pub async fn an_answer_that_was_stored_before_is_not_kept(store: Arc<dyn Store>) {
    const REMEMBERED: usize = 8;
    let desk = Desk::new(&store);
    let first = desk.hand_over("first").await;
    let attempt = AttemptId::random();
    let (_, stored) = held(desk.claim(&attempt).await);
    assert_eq!(desk.commit(&attempt, first, stored, "stored").await, Written::Done);
    for later in 0..REMEMBERED {
        if later == 3 {
            let (current, next) = (desk.record().await.revision, desk.load().await.next);
            assert_eq!(desk.adopt(&AttemptId::random(), current, next, "adopted").await, Written::Done);
        } else {
            desk.refresh("later").await;
        }
        assert_eq!(desk.quarantine_of(&attempt, first, stored, "stored").await, Written::Moved, "{later}");
        assert_eq!(kept(&desk.record().await), None);
    }
    // One that was asked for at the same time and never stored is.
    assert_eq!(desk.quarantine(first, stored, "late").await, Written::Done);
    assert_eq!(kept(&desk.record().await), Some((stored, "late-refresh")));
}

/// Every order of four steps; the words tell which grant a refresh token belongs to.
pub async fn no_late_answer_outlives_an_import(store: Arc<dyn Store>) {
    for order in 0..4_u32.pow(4) {
        let desk = Desk::of(&store, &format!("subject {order}"), "read");
        let mut imported = desk.hand_over("grant-0").await;
        let (mut grants, mut asked_from) = (0, imported);
        let mut steps = Vec::new();
        for place in 0..4 {
            let step = order / 4_u32.pow(place) % 4;
            steps.push(["import", "commit", "late answer", "answer of a grant before"][step as usize]);
            match step {
                0 => {
                    grants += 1;
                    asked_from = imported;
                    imported = desk.hand_over(&format!("grant-{grants}")).await;
                }
                1 => drop(desk.refresh(&format!("grant-{grants}")).await),
                2 => {
                    let written = desk.quarantine(imported, beside(imported, 1), &format!("grant-{grants}")).await;
                    assert_eq!(written, Written::Done, "{steps:?}");
                }
                _ => {
                    let next = desk.load().await.next;
                    let written = desk.quarantine(asked_from, next, "grant-before").await;
                    assert_eq!(written == Written::Moved, asked_from < imported, "{steps:?}");
                    if asked_from == imported {
                        // There was none before: it is one of this grant.
                        desk.refresh(&format!("grant-{grants}")).await;
                    }
                }
            }
            let record = desk.record().await;
            if let Some((revision, token)) = kept(&record) {
                assert!(revision > imported && token == format!("grant-{grants}-refresh"), "{steps:?}: {token}");
            }
            assert_eq!(refresh_token(&record), format!("grant-{grants}-refresh"), "{steps:?}");
        }
    }
}
