//! Time as this process sees it. A deadline runs on the monotonic and on the wall clock, whichever ends first.
//!
//! The monotonic clock stands still while a virtual machine is suspended, and the wall clock can be set back: each
//! alone could keep an expired token alive. No clock of this process is ever compared with another machine's.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Where moments come from: both clocks of this process, unless the wall clock is stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    stopped_at: Option<SystemTime>,
}

impl Clock {
    /// A clock whose wall clock stands still. Where a simulation moves the monotonic one, only that one says anything.
    pub fn with_wall_stopped_at(moment: SystemTime) -> Self {
        Self { stopped_at: Some(moment) }
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        Moment { monotonic: Instant::now(), wall: self.stopped_at.unwrap_or_else(SystemTime::now) }
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Clock::default().now()
    }

    /// The wall clock's time, for messages and for a provider's claims.
    pub fn wall(&self) -> SystemTime {
        self.wall
    }

    /// The deadline that lies `span` after this moment. A span past the clock's range is cut to a century.
    pub fn after(&self, span: Duration) -> Deadline {
        let span = span.min(CENTURY);
        Deadline { monotonic: self.monotonic + span, wall: self.wall.checked_add(span).unwrap_or(self.wall) }
    }

    /// How much time went by since an earlier moment, on the monotonic clock.
    pub fn since(&self, earlier: &Moment) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A moment in the future, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    monotonic: Instant,
    wall: SystemTime,
}

impl Deadline {
    /// What is left at `now`: the smaller of what both clocks say, zero when either has passed.
    pub fn remaining(&self, now: &Moment) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(now.monotonic);
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        monotonic.min(wall)
    }

    /// Whether the deadline has come.
    pub fn has_passed(&self, now: &Moment) -> bool {
        self.remaining(now).is_zero()
    }

    /// The deadline on the wall clock.
    pub fn wall(&self) -> SystemTime {
        self.wall
    }

    /// The earlier of two deadlines, clock by clock.
    pub fn earlier(&self, other: &Deadline) -> Deadline {
        Deadline { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }

    /// The deadline on the monotonic clock, for timers.
    pub fn instant(&self) -> Instant {
        self.monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_ends_first_counts() {
        let now = Moment::now();
        let deadline = now.after(Duration::from_secs(60));
        let wall_ahead = Moment { wall: now.wall + Duration::from_secs(61), ..now };
        let monotonic_ahead = Moment { monotonic: now.monotonic + Duration::from_secs(61), ..now };
        assert!(!deadline.has_passed(&now));
        assert!(deadline.has_passed(&wall_ahead));
        assert!(deadline.has_passed(&monotonic_ahead));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_wall_clock_leaves_the_monotonic_one() {
        let clock = Clock::with_wall_stopped_at(SystemTime::UNIX_EPOCH);
        let deadline = clock.now().after(Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(deadline.remaining(&clock.now()), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(deadline.has_passed(&clock.now()));
    }

    #[test]
    fn an_absurd_span_does_not_overflow() {
        let now = Moment::now();
        assert!(now.after(Duration::MAX).remaining(&now) >= CENTURY / 2);
    }
}
