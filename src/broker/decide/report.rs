//! What a report of a rejected token means, and how reports are damped.

use std::time::Duration;

use crate::{store::Loaded, token::Generation};

/// An upstream that was mended is noticed no later than this.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What a report of a rejected generation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum ReportPlan {
    /// The token is older than the current one.
    AlreadyReplaced,
    /// It is the current one, or there is none.
    Reject {
        /// How often in a row fresh tokens were rejected, this time included.
        strikes: u32,
    },
    /// It is the current one, and too young for another one to be likely to do better.
    HeldBack {
        /// How long until a report is acted upon.
        wait: Duration,
    },
    /// No token ever had this generation; nothing follows from it.
    NeverIssued,
}

/// Reads a report against what the store holds. Tokens younger than `min_age` are not replaced.
pub(in crate::broker) fn report(rejected: Generation, loaded: &Loaded, min_age: Duration) -> ReportPlan {
    let strikes = loaded.record.as_ref().map_or(0, |record| record.strikes);
    match &loaded.token {
        Some(token) if token.generation > rejected => ReportPlan::AlreadyReplaced,
        Some(token) if token.generation == rejected => damp(age(rejected, loaded), strikes, min_age),
        Some(_) => ReportPlan::NeverIssued,
        None if rejected <= loaded.revision() => ReportPlan::Reject { strikes },
        None => ReportPlan::NeverIssued,
    }
}

/// The generation that somebody reports who refuses this one: the current one, if that is older. To refuse a generation is to
/// refuse all before it, so whoever makes up a newer one is held back like everybody who refuses a token. `None`: there was
/// never such a generation, because generations are not ahead of the store's clock.
pub(in crate::broker) fn refused(refused: Generation, loaded: &Loaded) -> Option<Generation> {
    let reported = loaded.token.as_ref().map_or(refused, |current| current.generation.min(refused));
    (refused < loaded.next).then_some(reported)
}

/// A generation is the store's time, in µs, at which its token was asked for.
pub(in crate::broker) fn age(generation: Generation, loaded: &Loaded) -> Duration {
    Duration::from_micros(loaded.next.get().saturating_sub(generation.get()))
}

/// An upstream that refuses every token must not make bearerd flood the provider: each token that is rejected soon after
/// it could be doubles the time for which the next one is kept.
pub(in crate::broker) fn damp(age: Duration, strikes: u32, min_age: Duration) -> ReportPlan {
    let hold = min_age.saturating_mul(1_u32 << strikes.min(16)).min(LONGEST_HOLD.max(min_age));
    if age < hold {
        ReportPlan::HeldBack { wait: hold - age }
    } else if age < hold * 2 {
        ReportPlan::Reject { strikes: strikes.saturating_add(1) }
    } else {
        ReportPlan::Reject { strikes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::decide::samples::record,
        name::Scopes,
        store::GrantRecord,
        token::{Token, TokenType},
    };

    /// Revision 7, the store's time is 10.
    fn loaded(generation: Option<u64>) -> Loaded {
        let token = |generation| Token {
            value: "t".into(),
            kind: TokenType::Bearer,
            generation: Generation::new(generation),
            scopes: Scopes::default(),
            expiry: None,
        };
        Loaded {
            record: Some(GrantRecord { revision: Generation::new(7), ..record(None) }),
            token: generation.map(token),
            next: Generation::new(10),
            refusal: None,
        }
    }

    #[test]
    fn reports_are_read_against_the_store() {
        let reject = ReportPlan::Reject { strikes: 0 };
        for (rejected, current, expected) in [
            (6, Some(7), ReportPlan::AlreadyReplaced),
            (7, Some(7), reject),
            (8, Some(7), ReportPlan::NeverIssued),
            (7, None, reject),
            (3, None, reject),
            (8, None, ReportPlan::NeverIssued),
            (u64::MAX, Some(7), ReportPlan::NeverIssued),
        ] {
            let plan = report(Generation::new(rejected), &loaded(current), Duration::ZERO);
            assert_eq!(plan, expected, "{rejected} {current:?}");
        }
    }

    #[test]
    fn who_refuses_a_newer_generation_refuses_the_current_one() {
        for (generation, current, reported) in [
            (6, Some(7), Some(6)),
            (7, Some(7), Some(7)),
            (8, Some(7), Some(7)),
            (9, Some(7), Some(7)),
            (9, None, Some(9)),
            (10, Some(7), None),
            (10, None, None),
            (u64::MAX, Some(7), None),
        ] {
            let read = refused(Generation::new(generation), &loaded(current));
            assert_eq!(read, reported.map(Generation::new), "{generation} {current:?}");
        }
    }

    #[test]
    fn each_early_rejection_doubles_the_time_a_token_is_kept() {
        let seconds = Duration::from_secs;
        let damped = |age, strikes| damp(seconds(age), strikes, seconds(10));
        for (age, strikes, expected) in [
            (0, 0, ReportPlan::HeldBack { wait: seconds(10) }),
            (9, 0, ReportPlan::HeldBack { wait: seconds(1) }),
            (10, 0, ReportPlan::Reject { strikes: 1 }),
            (19, 0, ReportPlan::Reject { strikes: 1 }),
            (20, 0, ReportPlan::Reject { strikes: 0 }),
            (19, 1, ReportPlan::HeldBack { wait: seconds(1) }),
            (20, 1, ReportPlan::Reject { strikes: 2 }),
            (299, 5, ReportPlan::HeldBack { wait: seconds(1) }),
            (300, u32::MAX, ReportPlan::Reject { strikes: u32::MAX }),
            (600, u32::MAX, ReportPlan::Reject { strikes: 0 }),
        ] {
            assert_eq!(damped(age, strikes), expected, "{age} s, {strikes} strikes");
        }
        assert_eq!(damp(Duration::ZERO, 3, Duration::ZERO), ReportPlan::Reject { strikes: 0 });
    }
}
