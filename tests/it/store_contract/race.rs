//! Many at once: of any number of claims, commits and imports exactly one wins.

use tokio::{sync::Barrier, task::JoinSet};

use super::*;

const MANY: usize = 50;

/// Runs the same work many times at once, each with its number.
async fn at_once<T, F>(store: &Arc<dyn Store>, work: impl Fn(Desk, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(MANY));
    let mut tasks = JoinSet::new();
    for number in 0..MANY {
        let (start, task) = (Arc::clone(&start), work(Desk::new(store), number));
        tasks.spawn(async move {
            start.wait().await;
            task.await
        });
    }
    tasks.join_all().await
}

pub async fn one_of_many_claims_holds(store: Arc<dyn Store>) {
    let claims = at_once(&store, |desk, _| async move { desk.claim(&AttemptId::random()).await }).await;
    let count = |wanted: fn(&Claimed) -> bool| claims.iter().filter(|claimed| wanted(claimed)).count();
    assert_eq!(count(|claimed| matches!(claimed, Claimed::Held { .. })), 1);
    assert_eq!(count(|claimed| matches!(claimed, Claimed::Busy(left) if !left.is_zero())), MANY - 1);
}

pub async fn one_of_many_commits_is_done(store: Arc<dyn Store>) {
    let desk = Desk::new(&store);
    let expected = desk.hand_over("first").await;
    let next = beside(expected, 1);
    let commit = |desk: Desk, number: usize| async move {
        let written = desk.commit(&AttemptId::random(), expected, next, &number.to_string()).await;
        (written == Written::Done).then_some(number)
    };
    let done: Vec<usize> = at_once(&store, commit).await.into_iter().flatten().collect();
    let [winner] = done[..] else { panic!("{done:?} were done") };
    let record = desk.record().await;
    assert_eq!((record.revision, refresh_token(&record)), (next, format!("{winner}-refresh").as_str()));
    assert_eq!(desk.token().await, Some(format!("{winner}-access")));
}

pub async fn one_of_many_imports_is_done(store: Arc<dyn Store>) {
    let next = Desk::new(&store).load().await.next;
    let import = |desk: Desk, number: usize| async move {
        let written = desk.import(&AttemptId::random(), Generation::ZERO, next, &number.to_string()).await;
        (written == Written::Done).then_some(number)
    };
    let done: Vec<usize> = at_once(&store, import).await.into_iter().flatten().collect();
    let [winner] = done[..] else { panic!("{done:?} were done") };
    assert_eq!(refresh_token(&Desk::new(&store).record().await), format!("{winner}-refresh"));
}
