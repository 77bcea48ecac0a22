//! What the outcome of a token request means for the grant.

use std::time::Duration;

use crate::{
    failure::FailureCause,
    grant::{
        Grant,
        answer::{Answer, Granted, Refusal, RefusalError, Unusable},
    },
    provider::SendError,
    store::Verdict,
};

const FIRST_WAIT: Duration = Duration::from_millis(500);
/// What an operator has to mend is not worth asking for twice a second.
const FIRST_WAIT_FOR_OPERATOR: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What became of a request to the provider.
#[derive(Debug)]
pub(in crate::broker) enum Fate {
    /// There is a token to store.
    Store(Granted),
    /// There is none, and this is to be noted.
    Note {
        /// Why.
        cause: FailureCause,
        /// What it means for the grant.
        verdict: Verdict,
        /// How long every grant at the same endpoint and client is to rest with it.
        rest: Option<Duration>,
    },
}

/// The circumstances of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Circumstances<'a> {
    /// The grant.
    pub(in crate::broker) grant: &'a Grant,
    /// An earlier presentation of the same refresh token went unanswered.
    pub(in crate::broker) recovering: bool,
    /// How many failures went before.
    pub(in crate::broker) failures: u32,
    /// A random number from 0 to 1, which keeps replicas and grants from asking in step.
    pub(in crate::broker) jitter: f64,
}

/// Reads the outcome of a request.
pub(in crate::broker) fn fate(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> Fate {
    match outcome {
        Ok(Answer::Granted(granted)) => Fate::Store(granted),
        Ok(Answer::Refused(refusal)) => refused(refusal, around),
        Ok(Answer::Unusable(Unusable::UnclearStatus)) => unclear(FailureCause::ProviderUnavailable, around),
        Ok(Answer::Unusable(
            Unusable::TooLarge
            | Unusable::Unreadable
            | Unusable::Coded
            | Unusable::NoAccessToken
            | Unusable::UnknownType,
        )) => unclear(FailureCause::ProviderAnswerInvalid, around),
        Err(SendError::NotSent(_)) => back_off(FailureCause::ProviderUnavailable, None, around),
        Err(SendError::OutcomeUnknown(_)) => unclear(FailureCause::RefreshOutcomeUnknown, around),
    }
}

fn refused(refusal: Refusal, around: &Circumstances<'_>) -> Fate {
    let cause = match refusal.error {
        RefusalError::InvalidGrant => return invalid_grant(around),
        RefusalError::Client | RefusalError::ClientUnproven => FailureCause::ClientConfigurationRejected,
        RefusalError::Scope => FailureCause::InsufficientScope,
        RefusalError::RateLimited => FailureCause::ProviderRateLimited,
        RefusalError::Unavailable => FailureCause::ProviderUnavailable,
    };
    let wait = wait(cause, refusal.retry_after, around);
    Fate::Note { cause, verdict: Verdict::BackOff { wait }, rest: common_rest(&refusal, wait) }
}

/// What one grant was told that is true of all of them: who asks too often, or is told when to come back, would be told
/// the same with any other grant of this client.
fn common_rest(refusal: &Refusal, wait: Duration) -> Option<Duration> {
    match refusal.error {
        RefusalError::RateLimited => Some(wait),
        RefusalError::Unavailable => refusal.retry_after.map(|_| wait),
        RefusalError::InvalidGrant | RefusalError::Client | RefusalError::ClientUnproven | RefusalError::Scope => None,
    }
}

fn invalid_grant(around: &Circumstances<'_>) -> Fate {
    match around.grant {
        Grant::RefreshToken { .. } if around.recovering => {
            Fate::Note { cause: FailureCause::RefreshOutcomeLost, verdict: Verdict::Dead, rest: None }
        }
        Grant::RefreshToken { .. } => {
            Fate::Note { cause: FailureCause::ReauthorizationRequired, verdict: Verdict::Dead, rest: None }
        }
        // RFC 7523 §3.1: the assertion is at fault (its key, its audience, a clock), and the next one is a new one.
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } | Grant::Static { .. } => {
            back_off(FailureCause::ClientConfigurationRejected, None, around)
        }
    }
}

/// Nobody can say whether the provider acted. That matters only where a refresh token may have been spent.
fn unclear(cause: FailureCause, around: &Circumstances<'_>) -> Fate {
    let wait = wait(cause, None, around);
    if !around.grant.repeating_is_harmless() {
        return Fate::Note { cause, verdict: Verdict::OutcomeUnknown { wait }, rest: None };
    }
    let lost = cause == FailureCause::RefreshOutcomeUnknown;
    let cause = if lost { FailureCause::ProviderUnavailable } else { cause };
    Fate::Note { cause, verdict: Verdict::BackOff { wait }, rest: None }
}

fn back_off(cause: FailureCause, asked: Option<Duration>, around: &Circumstances<'_>) -> Fate {
    Fate::Note { cause, verdict: Verdict::BackOff { wait: wait(cause, asked, around) }, rest: None }
}

/// The provider's own wish, or twice as long with each failure; up to a fifth more by chance.
fn wait(cause: FailureCause, asked: Option<Duration>, around: &Circumstances<'_>) -> Duration {
    let first = match cause {
        FailureCause::ReauthorizationRequired
        | FailureCause::RefreshOutcomeLost
        | FailureCause::ClientConfigurationRejected
        | FailureCause::InsufficientScope => FIRST_WAIT_FOR_OPERATOR,
        FailureCause::ProviderUnavailable
        | FailureCause::ProviderRateLimited
        | FailureCause::ProviderAnswerInvalid
        | FailureCause::RefreshOutcomeUnknown => FIRST_WAIT,
    };
    let doubled = first.saturating_mul(1_u32 << around.failures.min(16)).min(LONGEST_WAIT);
    asked.unwrap_or_default().max(doubled).mul_f64(1.0 + 0.2 * around.jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::decide::samples::{endpoint, rotating};

    fn around(grant: &Grant, recovering: bool, failures: u32) -> Circumstances<'_> {
        Circumstances { grant, recovering, failures, jitter: 0.0 }
    }

    fn noted(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> (FailureCause, Verdict) {
        match fate(outcome, around) {
            Fate::Note { cause, verdict, rest: _ } => (cause, verdict),
            Fate::Store(granted) => panic!("{granted:?}"),
        }
    }

    fn refusal(error: RefusalError) -> Result<Answer, SendError> {
        Ok(Answer::Refused(Refusal { error, retry_after: None }))
    }

    #[test]
    fn only_invalid_grant_ends_a_grant() {
        let grant = rotating();
        let dead = |recovering| noted(refusal(RefusalError::InvalidGrant), &around(&grant, recovering, 0));
        assert_eq!(dead(false), (FailureCause::ReauthorizationRequired, Verdict::Dead));
        assert_eq!(dead(true), (FailureCause::RefreshOutcomeLost, Verdict::Dead));
        for error in [
            RefusalError::Client,
            RefusalError::ClientUnproven,
            RefusalError::Scope,
            RefusalError::RateLimited,
            RefusalError::Unavailable,
        ] {
            let (_, verdict) = noted(refusal(error), &around(&grant, true, 0));
            assert!(matches!(verdict, Verdict::BackOff { .. }), "{error:?}");
        }
        let harmless = Grant::ClientCredentials(endpoint());
        let (cause, verdict) = noted(refusal(RefusalError::InvalidGrant), &around(&harmless, false, 0));
        assert_eq!(cause, FailureCause::ClientConfigurationRejected);
        assert!(matches!(verdict, Verdict::BackOff { .. }));
    }

    #[test]
    fn an_intent_is_withdrawn_only_when_the_outcome_is_certain() {
        let (rotating, harmless) = (rotating(), Grant::ClientCredentials(endpoint()));
        let unclear = [
            || Ok(Answer::Unusable(Unusable::UnclearStatus)),
            || Ok(Answer::Unusable(Unusable::Unreadable)),
            || Err(SendError::OutcomeUnknown("time".into())),
        ];
        for outcome in unclear {
            let (_, verdict) = noted(outcome(), &around(&rotating, false, 0));
            assert!(matches!(verdict, Verdict::OutcomeUnknown { .. }), "{:?}", outcome());
            let (_, verdict) = noted(outcome(), &around(&harmless, false, 0));
            assert!(matches!(verdict, Verdict::BackOff { .. }), "{:?}", outcome());
        }
        let (_, verdict) = noted(Err(SendError::NotSent("refused".into())), &around(&rotating, false, 0));
        assert!(matches!(verdict, Verdict::BackOff { .. }));
    }

    #[test]
    fn what_is_true_of_every_grant_is_told_to_all() {
        let grant = rotating();
        let long = Some(Duration::from_secs(90));
        for (error, retry_after, rest) in [
            (RefusalError::RateLimited, None, Some(Duration::from_millis(500))),
            (RefusalError::RateLimited, long, long),
            (RefusalError::Unavailable, None, None),
            (RefusalError::Unavailable, long, long),
            (RefusalError::Client, long, None),
            (RefusalError::ClientUnproven, long, None),
            (RefusalError::Scope, long, None),
            (RefusalError::InvalidGrant, long, None),
        ] {
            let outcome = Ok(Answer::Refused(Refusal { error, retry_after }));
            let Fate::Note { rest: told, .. } = fate(outcome, &around(&grant, false, 0)) else { panic!("{error:?}") };
            assert_eq!(told, rest, "{error:?} {retry_after:?}");
        }
        let unclear = fate(Err(SendError::OutcomeUnknown("time".into())), &around(&grant, false, 0));
        assert!(matches!(unclear, Fate::Note { rest: None, .. }));
    }

    #[test]
    fn waits_double_up_to_a_limit_and_heed_the_provider() {
        let grant = rotating();
        let waited = |failures, retry_after| {
            let outcome = Ok(Answer::Refused(Refusal { error: RefusalError::RateLimited, retry_after }));
            match noted(outcome, &around(&grant, false, failures)).1 {
                Verdict::BackOff { wait } => wait,
                other @ (Verdict::OutcomeUnknown { .. } | Verdict::Dead) => panic!("{other:?}"),
            }
        };
        assert_eq!(waited(0, None), Duration::from_millis(500));
        assert_eq!(waited(3, None), Duration::from_secs(4));
        assert_eq!(waited(u32::MAX, None), LONGEST_WAIT);
        assert_eq!(waited(0, Some(Duration::from_secs(90))), Duration::from_secs(90));
    }
}
