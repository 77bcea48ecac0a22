//! Words that must never be found in what a store keeps, sends or says.

use bearerd::store::{Acknowledged, Quarantine, Rest};

use super::*;

const SUBJECT: &str = "canary-subject@example.org";
const SCOPE: &str = "canary-scope";
const BINDING: &str = "https://canary-binding.example/token";
const SECRETS: [&str; 4] = ["canary-first-refresh", "canary-second-refresh", "canary-late-refresh", "canary-access"];

/// Takes a grant through its life, with such words wherever a caller or a provider has a say. The token stays.
pub async fn leave(store: &Arc<dyn Store>) {
    let desk = Desk::of(store, SUBJECT, SCOPE);
    let first = desk.hand_over("canary-first").await;
    let attempt = AttemptId::random();
    desk.hold(&attempt).await;
    desk.dispatch(&attempt, first, None).await;
    desk.settle(&attempt, first, Verdict::OutcomeUnknown { wait: Duration::ZERO }).await;
    let scopes = Scopes::new([SCOPE]).unwrap();
    let next = beside(first, 1);
    let mut token = bearer(next, "canary-access", Some(LONG));
    token.scopes = scopes.clone();
    let secrets = GrantSecrets { scopes, binding: BINDING.into(), ..refreshable("canary-second-refresh") };
    let commit =
        Commit { place: &desk.place, attempt: &attempt, expected: first, next, secrets: &secrets, token: &token };
    assert_eq!(store.commit(&commit).await.unwrap(), Written::Done);
    let attempt = AttemptId::random();
    let known = Acknowledged {
        unit: &desk.place.unit,
        attempt: &attempt,
        revision: beside(next, 1),
        secrets: &secrets,
        token: Some((&desk.place, &Token { generation: beside(next, 1), ..token })),
    };
    assert_eq!(store.reassert(&known).await.unwrap(), Written::Done);
    let late = refreshable("canary-late-refresh");
    let quarantine = Quarantine {
        unit: &desk.place.unit,
        attempt: &AttemptId::random(),
        expected: beside(next, 1),
        next: beside(next, 2),
        secrets: &late,
    };
    assert_eq!(store.quarantine(&quarantine).await.unwrap(), Written::Done);
    assert!(desk.record().await.quarantine.is_some());
    desk.reject(first).await;
    let endpoint = store.names().endpoint(BINDING);
    let rest = Rest { cause: FailureCause::ProviderRateLimited, left: LONG };
    store.cool_down(&endpoint, &rest).await.unwrap();
    assert!(store.cooling(&endpoint).await.unwrap().is_some());
    assert_eq!(desk.token().await.as_deref(), Some("canary-access"));
}

/// Fails if one of the words is there, in clear or in base64.
#[track_caller]
pub fn assert_silent(what: &str, bytes: &[u8]) {
    for word in [SUBJECT, SCOPE, BINDING].into_iter().chain(SECRETS) {
        for form in spellings(word) {
            assert!(memchr::memmem::find(bytes, form.as_bytes()).is_none(), "{what} holds {word:?} as {form:?}");
        }
    }
}

/// A word, and what is the same in base64 wherever it stands: its own first and last groups depend on the neighbours.
fn spellings(word: &str) -> Vec<String> {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let inner = |skip: usize| {
        let whole = (word.len() - skip) / 3 * 3;
        STANDARD_NO_PAD.encode(&word.as_bytes()[skip..skip + whole])
    };
    vec![word.to_owned(), inner(0), inner(1), inner(2)]
}
