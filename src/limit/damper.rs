//! A line of the log that anybody can cause, proof or not: one a second is written, and with it how many were left out.
//! Whoever can fill a disk with refusals must not need more than a network for it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How far apart two lines are.
const APART: Duration = Duration::from_secs(1);

/// Lets through one line a second.
pub struct Damper {
    start: Instant,
    /// When the next line may be written, in nanoseconds since `start`.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Damper {
    /// Lets the first line through.
    pub fn new() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Asks for a line. `Some`: it may be written, and this many were left out since the last one.
    pub fn line(&self) -> Option<u64> {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let apart = u64::try_from(APART.as_nanos()).unwrap_or(u64::MAX);
        let step = |next: u64| (next <= now).then_some(now.saturating_add(apart));
        if self.next.try_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for Damper {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_is_written_and_says_how_many_were_not() {
        let damper = Damper::new();
        assert_eq!(damper.line(), Some(0));
        assert_eq!((0..1000).filter_map(|_| damper.line()).count(), 0);
        advance(APART - Duration::from_millis(1)).await;
        assert_eq!(damper.line(), None);
        advance(Duration::from_millis(1)).await;
        assert_eq!(damper.line(), Some(1001));
        assert_eq!(damper.line(), None);
        advance(60 * APART).await;
        assert_eq!((damper.line(), damper.line()), (Some(1), None), "a pause saves up no lines");
    }
}
