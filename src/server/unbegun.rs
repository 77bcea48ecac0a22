//! Requests that came in and did not begin yet: in a queue for each connection, and counted for all connections, because nothing
//! else bounds what they take.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::rt::Executor;
use parking_lot::Mutex;

/// How many may be left for later, on all connections together. Each takes about 5 KiB.
const MOST: usize = 1024;

/// A request, until all of its answer is handed to the connection.
pub(super) type UnderWay = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many there are on all connections.
#[derive(Clone, Default)]
pub(super) struct Total(Arc<AtomicUsize>);

/// Those of one connection, in the order in which they came. The HTTP/2 library takes this for what runs tasks.
#[derive(Clone)]
pub(super) struct Unbegun {
    queue: Arc<Mutex<VecDeque<UnderWay>>>,
    total: Total,
}

impl Unbegun {
    /// None yet.
    pub fn new(total: Total) -> Self {
        Self { queue: Arc::default(), total }
    }

    /// Takes out the next one.
    pub fn next(&self) -> Option<UnderWay> {
        let next = self.queue.lock().pop_front();
        self.total.0.fetch_sub(usize::from(next.is_some()), Ordering::Relaxed);
        next
    }

    /// Whether there are few enough to let something else go first.
    pub fn can_wait(&self) -> bool {
        self.total.0.load(Ordering::Relaxed) <= MOST
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Unbegun {
    fn execute(&self, request: F) {
        self.total.0.fetch_add(1, Ordering::Relaxed);
        self.queue.lock().push_back(Box::pin(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_on_all_connections() {
        let total = Total::default();
        let (one, other) = (Unbegun::new(total.clone()), Unbegun::new(total));
        for _ in 0..MOST {
            one.execute(async {});
        }
        assert!(other.can_wait() && other.next().is_none());
        other.execute(async {});
        assert!(!one.can_wait() && !other.can_wait());
        assert!(one.next().is_some());
        assert!(one.can_wait() && other.can_wait());
    }
}
