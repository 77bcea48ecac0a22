//! When a sign of life is due on the store's channel, and when the channel counts as silent.
//!
//! A subscription can be gone without a trace: behind a proxy that drops it, or on a node that the others lost sight of.
//! So somebody says something all the time, and whoever hears nothing knows that it is deaf.

use std::time::Duration;

use tokio::time::Instant;

/// About once in this time one of all replicas says something; after two of them without a word the channel is silent.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// What is heard of the others, and of this replica itself.
pub(super) struct Pulse {
    /// When this replica says something, if nobody else does before.
    pub(super) due: Instant,
    /// When the channel counts as silent.
    pub(super) end: Instant,
}

impl Pulse {
    /// A channel on which something was heard now.
    pub(super) fn new(now: Instant, chance: f64) -> Self {
        Self { due: next(now, chance), end: now + 2 * PERIOD }
    }

    /// Something was said. It counts when it comes back.
    pub(super) fn said(&mut self, now: Instant, chance: f64) {
        self.due = next(now, chance);
    }
}

/// Replicas that heard the same word must not answer it together: the first one whose time has come spares the others.
fn next(now: Instant, chance: f64) -> Instant {
    now + PERIOD.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_due_before_the_channel_counts_as_silent() {
        let now = Instant::now();
        for (chance, due) in [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25), (9.0, 1.25)] {
            let mut pulse = Pulse::new(now, chance);
            assert_eq!((pulse.due - now, pulse.end - now), (PERIOD.mul_f64(due), 2 * PERIOD));
            let later = pulse.due;
            pulse.said(later, chance);
            // What was only said does not count as heard.
            assert_eq!((pulse.due - later, pulse.end - now), (PERIOD.mul_f64(due), 2 * PERIOD));
        }
    }
}
