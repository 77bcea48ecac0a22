//! The contract of a store (`src/store.rs`), as one suite. A further store takes part with one line at the end.

use std::{sync::Arc, time::Duration};

use bearerd::{
    clock::Moment,
    failure::FailureCause,
    name::{CredentialName, Resources, Scopes, Subject},
    secret::ExposeSecret,
    store::{
        AttemptId, Claim, Claimed, Commit, Dispatch, Dispatched, GrantRecord, GrantSecrets, Import, Loaded, Material,
        Place, Purpose, Refuse, Settle, Store, StoreError, TokenRefusal, Unit, Verdict, Written,
    },
    token::{Expiry, Generation, GrantKey, Token, TokenKey, TokenType},
};

pub mod canary;
mod commit;
mod cool_down;
mod dead;
mod dispatch;
pub mod events;
mod import;
mod lease;
mod look;
mod quarantine;
mod race;
mod reassert;
mod refuse;
mod reject;
mod settle;

/// A lease, or a token's life, that does not end within a test.
pub const LONG: Duration = Duration::from_secs(60);

/// The grant is dead, and is not tried again by itself.
pub const DEAD: Verdict = Verdict::Dead { again: None };

/// One that does.
pub const SHORT: Duration = Duration::from_millis(50);

/// A place in a store, and short words for what is done there.
pub struct Desk {
    pub store: Arc<dyn Store>,
    pub place: Place,
}

impl Desk {
    /// The first place of Jane's grant.
    pub fn new(store: &Arc<dyn Store>) -> Self {
        Self::of(store, "jane", "read")
    }

    /// A place by subject and scope; places of one subject are one unit.
    pub fn of(store: &Arc<dyn Store>, subject: &str, scope: &str) -> Self {
        let credential = CredentialName::new("crm").unwrap();
        let grant = GrantKey { credential, subject: Subject::new(subject).unwrap() };
        let key = TokenKey { grant, scopes: Scopes::new([scope]).unwrap(), resources: Resources::default() };
        Self { store: Arc::clone(store), place: store.names().place(Unit::Grant(&key.grant), &key) }
    }

    pub async fn load(&self) -> Loaded {
        self.store.load(&self.place).await.unwrap()
    }

    pub async fn record(&self) -> GrantRecord {
        self.load().await.record.expect("a record")
    }

    /// The value of the token that is served here.
    pub async fn token(&self) -> Option<String> {
        self.load().await.token.map(|token| token.value.expose_secret().to_owned())
    }

    pub async fn claim(&self, owner: &AttemptId) -> Claimed {
        self.claim_for(owner, LONG, Generation::MAX).await
    }

    pub async fn claim_for(&self, owner: &AttemptId, lease: Duration, refused: Generation) -> Claimed {
        self.claim_as(owner, lease, refused, Purpose::default()).await
    }

    pub async fn claim_as(&self, owner: &AttemptId, lease: Duration, refused: Generation, purpose: Purpose) -> Claimed {
        self.store.claim(&Claim { place: &self.place, owner, lease, refused, purpose }).await.unwrap()
    }

    pub async fn is_busy(&self) -> bool {
        matches!(self.claim(&AttemptId::random()).await, Claimed::Busy(_))
    }

    /// The stored revision, under a lease that lasts.
    pub async fn hold(&self, owner: &AttemptId) -> Generation {
        held(self.claim(owner).await).0.map_or(Generation::ZERO, |record| record.revision)
    }

    /// Takes a lease that ends soon, and waits until it has.
    pub async fn let_lapse(&self, owner: &AttemptId) -> Generation {
        let (record, _) = held(self.claim_for(owner, SHORT, Generation::MAX).await);
        let revision = record.map_or(Generation::ZERO, |record| record.revision);
        crate::support::eventually(crate::support::PATIENCE, async || {
            self.dispatch(owner, Generation::MAX, None).await == Dispatched::LeaseLost
        })
        .await;
        revision
    }

    pub async fn release(&self, owner: &AttemptId) {
        self.store.release(&self.place.unit, owner).await.unwrap();
    }

    pub async fn dispatch(&self, attempt: &AttemptId, expected: Generation, seen: Option<&AttemptId>) -> Dispatched {
        self.dispatch_within(attempt, expected, seen, Duration::ZERO).await
    }

    pub async fn dispatch_within(
        &self,
        attempt: &AttemptId,
        expected: Generation,
        seen: Option<&AttemptId>,
        need: Duration,
    ) -> Dispatched {
        let dispatch = Dispatch { unit: &self.place.unit, attempt, expected, seen, need };
        self.store.dispatch(&dispatch).await.unwrap()
    }

    /// Commits the refresh token `word-refresh` and the access token `word-access`.
    pub async fn commit(&self, attempt: &AttemptId, expected: Generation, next: Generation, word: &str) -> Written {
        self.commit_token(attempt, expected, &bearer(next, &format!("{word}-access"), Some(LONG)), word).await.unwrap()
    }

    pub async fn commit_token(
        &self,
        attempt: &AttemptId,
        expected: Generation,
        token: &Token,
        word: &str,
    ) -> Result<Written, StoreError> {
        let (place, next, secrets) = (&self.place, token.generation, &refreshable(&format!("{word}-refresh")));
        self.store.commit(&Commit { place, attempt, expected, next, secrets, token }).await
    }

    /// A whole refresh: claim and commit.
    pub async fn refresh(&self, word: &str) -> Generation {
        let attempt = AttemptId::random();
        let (record, next) = held(self.claim(&attempt).await);
        let expected = record.map_or(Generation::ZERO, |record| record.revision);
        assert_eq!(self.commit(&attempt, expected, next, word).await, Written::Done);
        next
    }

    pub async fn settle(&self, attempt: &AttemptId, expected: Generation, verdict: Verdict) -> Written {
        self.settle_as(attempt, expected, verdict, false).await
    }

    pub async fn settle_as(&self, attempt: &AttemptId, expected: Generation, verdict: Verdict, early: bool) -> Written {
        let (unit, cause) = (&self.place.unit, FailureCause::ProviderUnavailable);
        self.store.settle(&Settle { unit, attempt, expected, verdict, cause, report: None, early }).await.unwrap()
    }

    /// Has this token refused, under a lease and an intent of its own.
    pub async fn refuse(&self, expected: Generation, wait: Duration, early: bool, give_way: Duration) -> Written {
        let (place, cause, attempt) = (&self.place, FailureCause::InsufficientScope, &AttemptId::random());
        let refuse = Refuse { place, attempt, expected, cause, wait, early, give_way };
        self.store.refuse(&refuse).await.unwrap()
    }

    pub async fn import(&self, attempt: &AttemptId, expected: Generation, next: Generation, word: &str) -> Written {
        let (unit, secrets) = (&self.place.unit, &refreshable(&format!("{word}-refresh")));
        self.store.import(&Import { unit, attempt, expected, next, secrets }).await.unwrap()
    }

    /// Imports over whatever is there.
    pub async fn hand_over(&self, word: &str) -> Generation {
        let loaded = self.load().await;
        assert_eq!(self.import(&AttemptId::random(), loaded.revision(), loaded.next, word).await, Written::Done);
        loaded.next
    }

    pub async fn strike(&self, generation: Generation, strikes: u32) {
        self.store.reject(&self.place, generation, strikes).await.unwrap();
    }

    pub async fn reject(&self, generation: Generation) {
        self.strike(generation, 0).await;
    }
}

/// What a claim that succeeded got.
#[track_caller]
pub fn held(claimed: Claimed) -> (Option<GrantRecord>, Generation) {
    match claimed {
        Claimed::Held { record, next, refusal: _ } => (record, next),
        other @ (Claimed::Newer(_) | Claimed::Resting(_) | Claimed::Refused(_) | Claimed::Busy(_)) => {
            panic!("not held but {other:?}")
        }
    }
}

/// The refresh token of a record.
pub fn refresh_token(record: &GrantRecord) -> &str {
    match &record.secrets.material {
        Material::RefreshToken(token) => token.expose_secret(),
        other @ (Material::Nothing | Material::Static(_)) => panic!("no refresh token but {other:?}"),
    }
}

pub fn refreshable(refresh_token: &str) -> GrantSecrets {
    GrantSecrets { material: Material::RefreshToken(refresh_token.into()), ..GrantSecrets::default() }
}

pub fn bearer(generation: Generation, value: &str, life: Option<Duration>) -> Token {
    let deadline = |life| Moment::now().after(life);
    Token {
        value: value.into(),
        kind: TokenType::Bearer,
        generation,
        scopes: Scopes::default(),
        expiry: life.map(|lifetime| Expiry { deadline: deadline(lifetime), lifetime, stated: true }),
    }
}

/// The generation before or after.
pub fn beside(generation: Generation, step: i64) -> Generation {
    Generation::new(generation.get().checked_add_signed(step).unwrap())
}

/// The whole suite for each store, given as a function that makes a new one. The first of what it returns is the store,
/// the second what has to live as long: a directory, a server.
macro_rules! contract {
    ($($store:ident: $open:expr;)*) => { $(contract! { @store $store, $open,
        lease::{
            nothing_is_known_of_a_new_place, one_holds_and_others_wait, a_lease_runs_out, only_the_owner_releases,
            grants_do_not_wait_for_each_other, a_newer_token_makes_work_unnecessary,
        },
        look::{nothing_is_told_of_the_token_at_hand, every_change_is_told, an_expired_token_is_not_at_hand},
        dispatch::{
            an_intent_outlives_its_lease, a_repeated_dispatch_counts_once, sending_takes_a_lease_that_lasts,
            sending_takes_the_record_that_was_seen, a_second_send_is_counted_and_aged_from_the_first,
            a_commit_ends_the_intent,
        },
        commit::{
            what_was_committed_is_read_back, a_commit_gives_the_lease_back, a_repeated_commit_is_done_once,
            a_stale_commit_changes_nothing, a_late_commit_is_stored, a_late_commit_spares_the_next_lease,
            places_of_a_grant_keep_their_own_tokens, subjects_are_apart, an_expired_token_is_not_served,
            a_token_without_expiry_stays, generations_grow_when_the_clock_stands,
        },
        settle::{
            a_back_off_rests_and_ends, no_wait_is_longer_than_an_hour, failures_are_counted_until_a_success,
            a_repeated_settle_counts_once, a_settle_gives_back_its_own_lease_only,
            a_settle_withdraws_its_own_intent_only, an_unknown_outcome_keeps_the_intent,
            a_definitive_outcome_withdraws_one_send, a_stale_settle_notes_nothing, a_dead_grant_rests,
            a_grant_can_die_before_it_is_stored, a_needed_token_does_not_wait_for_early_tries,
            early_tries_after_a_needed_one_wait_with_it, a_dead_grant_keeps_its_refresh_token_and_says_when_it_is_tried,
        },
        refuse::{
            a_refusal_concerns_one_token, refusals_are_counted_until_the_token_is_obtained,
            a_refusal_ends_with_its_grant, a_refusal_withdraws_its_own_intent_and_gives_its_lease_back,
            a_repeated_refusal_counts_once, a_stale_refusal_notes_nothing, a_needed_token_does_not_wait_for_early_refusals,
            claims_that_yield_wait_after_a_refusal,
        },
        import::{
            a_grant_is_handed_over, an_import_revives_a_dead_grant, tokens_of_before_are_never_served,
            an_answer_from_before_is_refused, a_stale_import_changes_nothing, a_repeated_import_is_done_once,
        },
        reject::{
            a_rejected_token_is_gone_and_a_newer_one_stays, only_the_place_is_rejected,
            rejecting_nothing_is_no_fault, strikes_are_kept_until_a_grant_is_imported,
        },
        quarantine::{
            a_late_answer_is_kept_beside_the_grant, the_newest_late_answer_is_kept,
            nothing_is_kept_for_a_grant_that_is_not_there, a_commit_ends_the_quarantine,
            an_adoption_revives_the_same_grant, no_late_answer_outlives_an_import,
            an_answer_that_was_stored_before_is_not_kept,
        },
        reassert::{
            what_is_older_is_written_again, what_is_gone_is_written_again, what_is_there_or_newer_stays,
            tokens_of_an_older_revision_are_not_served, a_token_that_ended_meanwhile_is_not_written,
        },
        cool_down::{
            a_rest_is_known_until_it_is_over, a_longer_rest_is_never_shortened, no_rest_is_longer_than_an_hour,
        },
        dead::{dead_grants_of_a_credential_are_found, a_turn_is_taken_once_in_its_span},
        events::{
            every_listener_hears_a_commit, every_listener_hears_a_rejection, every_listener_hears_an_import,
            what_changes_no_token_is_not_told,
        },
        race::{one_of_many_claims_holds, one_of_many_commits_is_done, one_of_many_imports_is_done},
    })* };
    (@store $store:ident, $open:expr, $($group:ident::{$($name:ident),* $(,)?},)*) => {
        mod $store {
            $(mod $group {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let open = $open;
                    let (store, _kept) = open().await;
                    super::super::$group::$name(store).await;
                })*
            })*
        }
    };
}

contract! {
    embedded: crate::store_embedded::new_store;
    redis: crate::store_redis::new_store;
    redis_sentinel: crate::store_redis::sentinel::new_store;
    redis_cluster: crate::store_redis::cluster::new_store;
    simulated: crate::simulation::new_store;
    valkey_durable: crate::store_redis::durable::new_store;
}
