//! The rest of a token endpoint: known to everybody until it is over, and to no other endpoint.

use bearerd::store::{EndpointName, Rest};

use super::*;
use crate::support::{PATIENCE, eventually};

const LIMITED: FailureCause = FailureCause::ProviderRateLimited;

fn endpoint(store: &Arc<dyn Store>, client: &str) -> EndpointName {
    store.names().endpoint(&format!("https://as.example/token {client}"))
}

async fn rest(store: &Arc<dyn Store>, client: &str, cause: FailureCause, left: Duration) {
    store.cool_down(&endpoint(store, client), &Rest { cause, left }).await.unwrap();
}

async fn left(store: &Arc<dyn Store>, client: &str) -> Option<Rest> {
    store.cooling(&endpoint(store, client)).await.unwrap()
}

pub async fn a_rest_is_known_until_it_is_over(store: Arc<dyn Store>) {
    assert_eq!(left(&store, "one").await, None);
    rest(&store, "one", LIMITED, LONG).await;
    rest(&store, "two", FailureCause::ProviderUnavailable, SHORT).await;
    let known = left(&store, "one").await.unwrap();
    assert_eq!(known.cause, LIMITED);
    assert!(known.left > LONG / 2 && known.left <= LONG, "{known:?}");
    assert_eq!(left(&store, "three").await, None);
    eventually(PATIENCE, async || left(&store, "two").await.is_none()).await;
    assert!(left(&store, "one").await.is_some());
}

pub async fn a_longer_rest_is_never_shortened(store: Arc<dyn Store>) {
    rest(&store, "one", LIMITED, LONG).await;
    rest(&store, "one", FailureCause::ProviderUnavailable, SHORT).await;
    let known = left(&store, "one").await.unwrap();
    assert_eq!((known.cause, known.left > LONG / 2), (LIMITED, true));
    rest(&store, "one", FailureCause::ProviderUnavailable, LONG * 2).await;
    let known = left(&store, "one").await.unwrap();
    assert_eq!((known.cause, known.left > LONG), (FailureCause::ProviderUnavailable, true));
}

pub async fn no_rest_is_longer_than_an_hour(store: Arc<dyn Store>) {
    for (client, span) in [("one", Duration::from_secs(7200)), ("two", Duration::MAX)] {
        rest(&store, client, LIMITED, span).await;
        let left = left(&store, client).await.unwrap().left;
        assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600), "{left:?}");
    }
}
