//! Requests that begin on their connection's task, and go on on a task of their own if they have to wait.
//!
//! A task begins with a look at what it does. For a request that was looked at a moment ago that would be in vain, and come
//! before the task that sends its question to Redis. So the task of a request looks at it only after its waker was used.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

use super::unbegun::UnderWay;

/// Begins requests.
#[derive(Default)]
pub(super) struct Beginner {
    /// For the next one. Most requests are done at once, and leave it as it is.
    bell: Arc<Bell>,
}

/// A request that has begun.
pub(super) struct Waiting {
    request: UnderWay,
    /// Until it goes on.
    bell: Option<Arc<Bell>>,
}

/// Tells that a request can go on, whether or not it has a task by then.
#[derive(Default)]
struct Bell {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Beginner {
    /// Begins a request; `None` if it is done. As on a task of its own, its panic would be nobody else's.
    pub fn begin(&mut self, mut request: UnderWay) -> Option<Waiting> {
        match Arc::get_mut(&mut self.bell) {
            Some(bell) => *bell.rang.get_mut() = false,
            // One that is done may have left its waker somewhere.
            None => self.bell = Arc::default(),
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        match catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(&mut Context::from_waker(&waker)))) {
            Ok(Poll::Pending) => Some(Waiting { request, bell: Some(mem::take(&mut self.bell)) }),
            Ok(Poll::Ready(())) | Err(_) => None,
        }
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(bell) = &self.bell {
            bell.task.register(cx.waker());
            if !bell.rang.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            self.bell = None;
        }
        self.request.as_mut().poll(cx)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use futures_util::task::noop_waker_ref;
    use parking_lot::Mutex;

    use super::*;

    /// A request that is done when it is looked at for the second time, how often it was looked at, and its waker.
    fn request() -> (UnderWay, Arc<AtomicUsize>, Arc<Mutex<Option<Waker>>>) {
        let (looks, waker) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (looked, kept) = (Arc::clone(&looks), Arc::clone(&waker));
        let request = poll_fn(move |cx| {
            *kept.lock() = Some(cx.waker().clone());
            if looked.fetch_add(1, Ordering::Relaxed) > 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        (Box::pin(request), looks, waker)
    }

    fn poll(waiting: &mut Waiting) -> Poll<()> {
        Pin::new(waiting).poll(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn a_request_that_waits_is_left_alone_until_it_can_go_on() {
        let (request, looks, waker) = request();
        let mut waiting = Beginner::default().begin(request).unwrap();
        assert!(poll(&mut waiting).is_pending() && poll(&mut waiting).is_pending());
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        waker.lock().take().unwrap().wake();
        assert!(poll(&mut waiting).is_ready());
    }

    #[test]
    fn what_happens_before_there_is_a_task_is_not_missed() {
        let (request, _, waker) = request();
        let mut waiting = Beginner::default().begin(request).unwrap();
        waker.lock().take().unwrap().wake();
        assert!(poll(&mut waiting).is_ready());
    }

    #[test]
    fn nobody_is_woken_for_another_one() {
        let mut beginner = Beginner::default();
        let (done, _, of_the_done) = request();
        drop(beginner.begin(done));
        let kept = Arc::new(Mutex::new(None));
        let keeping = Arc::clone(&kept);
        let at_once = poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            *keeping.lock() = Some(cx.waker().clone());
            Poll::Ready(())
        });
        assert!(beginner.begin(Box::pin(at_once)).is_none());
        let (request, looks, _) = request();
        let mut waiting = beginner.begin(request).unwrap();
        for waker in [of_the_done, kept] {
            waker.lock().take().unwrap().wake();
        }
        assert!(poll(&mut waiting).is_pending());
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_same_bell_serves_all_that_are_done_at_once_and_does_not_ring_on() {
        let mut beginner = Beginner::default();
        let wakes_itself = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(())
        });
        assert!(beginner.begin(Box::pin(wakes_itself)).is_none());
        let (request, looks, _) = request();
        let mut waiting = beginner.begin(request).unwrap();
        assert!(poll(&mut waiting).is_pending());
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
}
