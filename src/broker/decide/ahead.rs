//! When a token is refreshed in the background.

use std::time::Duration;

/// How long after now a token is to be refreshed in the background; `None` if its life is too short for that.
pub(in crate::broker) fn ahead(
    lifetime: Duration,
    remaining: Duration,
    refresh_ahead: Duration,
    jitter: f64,
) -> Option<Duration> {
    const SHORTEST_LIFE: Duration = Duration::from_secs(1);
    /// Timers reach two years; a token that lives longer is not worth waiting for.
    const LONGEST_TIMER: Duration = Duration::from_secs(365 * 86_400);
    if lifetime < SHORTEST_LIFE {
        return None;
    }
    // By chance later, so that tokens which came together are not replaced together, and never earlier: a margin can be the
    // provider's limit. Half of it is left for second attempts.
    let margin = (lifetime / 2).min(refresh_ahead).mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0));
    Some(remaining.saturating_sub(margin).min(LONGEST_TIMER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshing_ahead_leaves_half_of_a_short_life() {
        let seconds = Duration::from_secs;
        assert_eq!(ahead(seconds(3600), seconds(3600), seconds(300), 0.0), Some(seconds(3300)));
        assert_eq!(ahead(seconds(10), seconds(10), seconds(300), 0.0), Some(seconds(5)));
        assert_eq!(ahead(seconds(10), seconds(10), seconds(300), 1.0), Some(Duration::from_millis(7500)));
        assert_eq!(ahead(seconds(3600), seconds(100), seconds(300), 0.0), Some(Duration::ZERO));
        assert_eq!(ahead(Duration::from_millis(900), seconds(1), seconds(300), 0.0), None);
        let century = seconds(100 * 365 * 86_400);
        assert_eq!(ahead(century, century, seconds(300), 0.0), Some(seconds(365 * 86_400)));
    }
}
