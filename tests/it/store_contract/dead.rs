//! Dead grants: how they are found, and how seldom they are tried.

use std::collections::BTreeMap;

use bearerd::store::{Found, Search};

use super::*;
use crate::support::{PATIENCE, eventually};

/// P-K1, row 5: among many, and of this credential alone.
pub async fn dead_grants_of_a_credential_are_found(store: Arc<dyn Store>) {
    let desks: Vec<_> = (0..300).map(|number| Desk::of(&store, &format!("s{number}"), "read")).collect();
    let mut dead = BTreeMap::new();
    for (number, desk) in desks.iter().enumerate() {
        let revision = desk.hand_over(&number.to_string()).await;
        if number % 3 == 0 {
            assert_eq!(desk.settle(&AttemptId::random(), revision, DEAD).await, Written::Done);
            dead.insert(desk.place.unit.clone(), format!("{number}-refresh"));
        }
    }
    let find = async |credential: &str| {
        let (mut found, mut from) = (BTreeMap::new(), None);
        loop {
            let credential = CredentialName::new(credential).unwrap();
            let search = Search { credential: &credential, from: from.as_deref() };
            let Found { grants, next } = store.dead_grants(&search).await.unwrap();
            found.extend(grants.into_iter().map(|(unit, record)| (unit, refresh_token(&record).to_owned())));
            match next {
                Some(next) => from = Some(next),
                None => return found,
            }
        }
    };
    assert_eq!(find("crm").await, dead);
    assert_eq!(find("cr").await, BTreeMap::new());
}

pub async fn a_turn_is_taken_once_in_its_span(store: Arc<dyn Store>) {
    let endpoint = |client: &str| store.names().endpoint(&format!("https://as.example/token {client}"));
    assert!(store.take_turn(&endpoint("one"), LONG).await.unwrap());
    assert!(!store.take_turn(&endpoint("one"), LONG).await.unwrap());
    assert!(store.take_turn(&endpoint("two"), SHORT).await.unwrap());
    eventually(PATIENCE, async || store.take_turn(&endpoint("two"), LONG).await.unwrap()).await;
    assert!(!store.take_turn(&endpoint("two"), LONG).await.unwrap());
}
