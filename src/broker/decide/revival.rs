//! When a dead grant is tried again without an operator.
//!
//! Providers say `invalid_grant` when they are ill, too. So a grant that nothing else speaks against is tried a few times, far
//! apart. Where an answer was lost at a provider that rotates refresh tokens it never is: that would be a reuse.

use std::time::Duration;

use crate::{
    failure::FailureCause,
    store::{GrantRecord, GrantState},
};

const FIRST: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(86_400);
const MOST: u32 = 7;

/// The wait until the next try of a grant that died so often before; `None`: there is none.
pub(super) fn again(deaths: u32) -> Option<Duration> {
    (deaths < MOST).then(|| FIRST.saturating_mul(1_u32 << deaths.min(16)).min(LONGEST))
}

/// Whether the grant of this record is due to be tried: nothing is known that would make this a risk, and its wait is over.
pub(in crate::broker) fn is_revival_due(record: &GrantRecord) -> bool {
    let wait = record.revival.and_then(|revival| revival.wait);
    record.state == GrantState::Dead(FailureCause::ReauthorizationRequired)
        && record.intent.is_none()
        && record.quarantine.is_none()
        && wait.is_some_and(|wait| wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::decide::samples::record,
        store::{AttemptId, GrantSecrets, Intent, Quarantined, Revival},
        token::Generation,
    };

    /// P-K1, row 5.
    #[test]
    fn a_dead_grant_is_tried_seven_times_far_apart() {
        let minutes: Vec<_> = (0..9).map(|deaths| again(deaths).map(|wait| wait.as_secs() / 60)).collect();
        let tried = [5, 10, 20, 40, 80, 160, 320].map(Some);
        assert_eq!(minutes, [&tried[..], &[None, None]].concat());
    }

    #[test]
    fn nothing_is_tried_that_something_speaks_against() {
        let dead = |cause, wait: Option<u64>| GrantRecord {
            state: GrantState::Dead(cause),
            revival: Some(Revival { deaths: 1, wait: wait.map(Duration::from_secs) }),
            ..record(None)
        };
        let due = dead(FailureCause::ReauthorizationRequired, Some(0));
        assert!(is_revival_due(&due));
        let age = Duration::from_secs(9);
        let intent = Some(Intent { attempt: AttemptId::random(), age, quiet: age, sends: 1, settled: true });
        let kept = Some(Quarantined { revision: Generation::new(2), secrets: GrantSecrets::default() });
        for record in [
            dead(FailureCause::ReauthorizationRequired, Some(1)),
            dead(FailureCause::ReauthorizationRequired, None),
            dead(FailureCause::RefreshOutcomeLost, Some(0)),
            GrantRecord { intent, ..due.clone() },
            GrantRecord { quarantine: kept, ..due.clone() },
            GrantRecord { state: GrantState::Active, ..due.clone() },
        ] {
            assert!(!is_revival_due(&record), "{record:?}");
        }
    }
}
