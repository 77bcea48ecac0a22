//! Commits: what the provider gave is stored once, fenced by the revision, and read back as it was.

use bearerd::store::names::Fingerprint;

use super::*;
use crate::support::{PATIENCE, eventually};

pub async fn what_was_committed_is_read_back(store: Arc<dyn Store>) {
    let header = "x-api-key".to_owned();
    for (subject, kind, material, stated) in [
        ("a", TokenType::Bearer, Material::RefreshToken("refresh".into()), true),
        ("b", TokenType::Basic, Material::Static("secret".into()), false),
        ("c", TokenType::ApiKey { header }, Material::Nothing, true),
    ] {
        let desk = Desk::of(&store, subject, "read");
        let attempt = AttemptId::random();
        let (_, next) = held(desk.claim(&attempt).await);
        let scopes = Scopes::new(["read", "offline_access"]).unwrap();
        let seeds = vec![Fingerprint::from("seed".to_owned())];
        let binding = "https://as.example/token client".to_owned();
        let secrets = GrantSecrets {
            material,
            scopes: scopes.clone(),
            binding,
            seeds,
            scopes_known: true,
            ..GrantSecrets::default()
        };
        let mut token = bearer(next, "value", Some(LONG));
        token.kind = kind;
        token.scopes = scopes;
        token.expiry = token.expiry.map(|expiry| Expiry { lifetime: LONG * 2, stated, ..expiry });
        let commit = Commit {
            place: &desk.place,
            attempt: &attempt,
            expected: Generation::ZERO,
            next,
            secrets: &secrets,
            token: &token,
        };
        let asked = Moment::now();
        assert_eq!(store.commit(&commit).await.unwrap(), Written::Done);
        let took = Moment::now().since(&asked);

        let loaded = desk.load().await;
        assert_eq!(loaded.revision(), next);
        assert!(loaded.next > next);
        assert_token(&loaded.token.unwrap(), &token, took);
        let record = loaded.record.unwrap();
        assert_eq!((record.intent, record.failure), (None, None));
        assert_eq!(exposed(&record.secrets.material), exposed(&secrets.material));
        assert_eq!(record.secrets.scopes, secrets.scopes);
        assert_eq!(record.secrets.binding, secrets.binding);
        assert_eq!(record.secrets.seeds, secrets.seeds);
    }
}

fn assert_token(read: &Token, written: &Token, took: Duration) {
    assert_eq!(read.value.expose_secret(), written.value.expose_secret());
    assert_eq!((&read.kind, &read.scopes), (&written.kind, &written.scopes));
    assert_eq!(read.generation, written.generation);
    let (end, due) = (read.expiry.unwrap(), written.expiry.unwrap());
    assert_eq!((end.lifetime, end.stated), (due.lifetime, due.stated));
    let now = Moment::now();
    let left = end.deadline.remaining(&now);
    // What is left is sent as a span, which the way to the store cannot shorten. Beyond that, and what clocks may tick
    // apart, the store gives a token no longer life.
    assert!(left <= due.deadline.remaining(&now) + took + Duration::from_millis(5), "{left:?}");
    assert!(left > LONG / 2, "{left:?}");
}

fn exposed(material: &Material) -> (&'static str, &str) {
    match material {
        Material::Nothing => ("nothing", ""),
        Material::RefreshToken(token) => ("refresh token", token.expose_secret()),
        Material::Static(secret) => ("static", secret.expose_secret()),
    }
}

pub async fn a_commit_gives_the_lease_back(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let current = desk.refresh("first").await;
    assert_eq!(desk.hold(&AttemptId::random()).await, current);
}

pub async fn a_repeated_commit_is_done_once(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (attempt, next_owner) = (AttemptId::random(), AttemptId::random());
    let (_, next) = held(desk.claim(&attempt).await);
    assert_eq!(desk.commit(&attempt, Generation::ZERO, next, "first").await, Written::Done);
    let revision = desk.hold(&next_owner).await;
    desk.dispatch(&next_owner, revision, None).await;

    // The reply was lost and the write is repeated, while the next one is already at work.
    assert_eq!(desk.commit(&attempt, Generation::ZERO, next, "first").await, Written::Done);
    let record = desk.record().await;
    assert_eq!((record.revision, refresh_token(&record)), (next, "first-refresh"));
    assert_eq!(record.intent.unwrap().attempt, next_owner);
    assert!(desk.is_busy().await);
}

pub async fn a_stale_commit_changes_nothing(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let stale = desk.refresh("first").await;
    let current = desk.refresh("second").await;
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    for expected in [Generation::ZERO, stale, beside(current, 1)] {
        assert_eq!(desk.commit(&attempt, expected, beside(current, 2), "stale").await, Written::Moved);
    }
    let record = desk.record().await;
    assert_eq!((record.revision, refresh_token(&record)), (current, "second-refresh"));
    assert_eq!(desk.token().await.as_deref(), Some("second-access"));
    assert!(!desk.is_busy().await, "there is nothing left to do under this lease");
}

pub async fn a_late_commit_is_stored(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let late = AttemptId::random();
    desk.hand_over("first").await;
    let revision = desk.let_lapse(&late).await;
    assert_eq!(desk.commit(&late, revision, beside(revision, 1), "late").await, Written::Done);
    assert_eq!(refresh_token(&desk.record().await), "late-refresh");
    assert_eq!(desk.token().await.as_deref(), Some("late-access"));
}

pub async fn a_late_commit_spares_the_next_lease(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let (late, next_owner) = (AttemptId::random(), AttemptId::random());
    desk.hand_over("first").await;
    let revision = desk.let_lapse(&late).await;
    desk.hold(&next_owner).await;
    assert_eq!(desk.commit(&late, revision, beside(revision, 1), "late").await, Written::Done);
    assert!(desk.is_busy().await);
    // And whoever holds it learns that there is nothing to send any more.
    assert_eq!(desk.dispatch(&next_owner, revision, None).await, Dispatched::Moved);
}

pub async fn places_of_a_grant_keep_their_own_tokens(store: Arc<dyn Store>) {
    let (read, write) = (Desk::of(&store, "jane", "read"), Desk::of(&store, "jane", "write"));
    let first = read.refresh("read").await;
    let second = write.refresh("write").await;
    assert!(second > first);
    assert_eq!(read.token().await.as_deref(), Some("read-access"));
    assert_eq!(write.token().await.as_deref(), Some("write-access"));
    let loaded = read.load().await;
    assert_eq!((loaded.token.as_ref().unwrap().generation, loaded.revision()), (first, second));
    assert_eq!(refresh_token(&loaded.record.unwrap()), "write-refresh");
}

pub async fn subjects_are_apart(store: Arc<dyn Store>) {
    Desk::of(&store, "jane", "read").refresh("jane").await;
    let joe = Desk::of(&store, "joe", "read").load().await;
    assert!(joe.record.is_none() && joe.token.is_none(), "{joe:?}");
}

pub async fn an_expired_token_is_not_served(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    // A token's life counts from its generation, which is the store's time at the claim.
    let asked = Moment::now();
    let (_, next) = held(desk.claim(&attempt).await);
    let token = bearer(next, "brief", Some(SHORT));
    desk.commit_token(&attempt, Generation::ZERO, &token, "brief").await.unwrap();
    eventually(PATIENCE, async || desk.token().await.is_none()).await;
    assert!(Moment::now().since(&asked) + Duration::from_millis(5) > SHORT);
    assert_eq!(desk.record().await.revision, next);
    held(desk.claim_for(&attempt, LONG, Generation::ZERO).await);
}

pub async fn a_token_without_expiry_stays(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    let (_, next) = held(desk.claim(&attempt).await);
    desk.commit_token(&attempt, Generation::ZERO, &bearer(next, "fixed", None), "fixed").await.unwrap();
    let token = desk.load().await.token.unwrap();
    assert_eq!(token.value.expose_secret(), "fixed");
    assert!(token.expiry.is_none());
}

pub async fn generations_grow_when_the_clock_stands(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    // A record from an hour ahead: for the next hour the store's clock is of no use.
    let ahead = beside(desk.load().await.next, 3_600_000_000);
    assert_eq!(desk.import(&AttemptId::random(), Generation::ZERO, ahead, "ahead").await, Written::Done);
    assert_eq!(desk.load().await.next, beside(ahead, 1));
    assert_eq!(desk.refresh("first").await, beside(ahead, 1));
    assert_eq!(desk.refresh("second").await, beside(ahead, 2));
    assert_eq!(desk.hand_over("third").await, beside(ahead, 3));
    assert_eq!(desk.refresh("fourth").await, beside(ahead, 4));
    assert_eq!(desk.token().await.as_deref(), Some("fourth-access"));
}
