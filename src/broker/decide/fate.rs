//! What the outcome of a token request means for the grant.

use std::time::Duration;

use super::{Extent, revival};
use crate::{
    failure::FailureCause,
    grant::{
        Coordination, Grant,
        answer::{Answer, Granted, Kept, Refusal, RefusalError, Unusable, UnusableAnswer},
        profile::RetryDead,
    },
    provider::SendError,
    store::Verdict,
};

const FIRST_WAIT: Duration = Duration::from_millis(500);
/// After a refresh token that came without an access token.
const FIRST_WAIT_OF_KEPT: Duration = Duration::from_secs(2);
/// After a 429 that does not say how long.
const FIRST_WAIT_WHEN_LIMITED: Duration = Duration::from_secs(2);
/// What an operator has to mend is not worth asking for twice a second.
const FIRST_WAIT_FOR_OPERATOR: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A person may consent to more meanwhile.
const LONGEST_WAIT_OF_A_TOKEN: Duration = Duration::from_secs(300);

/// What became of a request to the provider.
#[derive(Debug)]
pub(in crate::broker) enum Fate {
    /// There is a token to store.
    Store(Granted),
    /// There is none, and a refresh token is to be stored all the same.
    Keep {
        /// The refresh token.
        kept: Kept,
        /// Why there is no token.
        cause: FailureCause,
        /// How long nobody asks again.
        wait: Duration,
    },
    /// There is none, and this is to be noted.
    Note {
        /// Why.
        cause: FailureCause,
        /// What it means for the grant.
        verdict: Verdict,
        /// How long every grant at the same endpoint and client is to rest with it.
        rest: Option<Duration>,
    },
    /// There is none because of what was asked for. This is to be noted of this one token; the grant lives.
    Refuse {
        /// Why.
        cause: FailureCause,
        /// How long it is not asked for again.
        wait: Duration,
    },
}

/// The circumstances of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Circumstances<'a> {
    /// The grant.
    pub(in crate::broker) grant: &'a Grant,
    /// An earlier presentation of the same refresh token went unanswered.
    pub(in crate::broker) recovering: bool,
    /// What was asked for, beside what the grant was given.
    pub(in crate::broker) extent: Extent,
    /// How many failures went before.
    pub(in crate::broker) failures: u32,
    /// How often the provider said that the grant is dead, since it last gave a token.
    pub(in crate::broker) deaths: u32,
    /// Whether a dead grant of this provider may be tried again without an operator.
    pub(in crate::broker) retry_dead: RetryDead,
    /// How often this token was refused before.
    pub(in crate::broker) refusals: u32,
    /// A random number from 0 to 1, which keeps replicas and grants from asking in step.
    pub(in crate::broker) jitter: f64,
}

/// Reads the outcome of a request.
pub(in crate::broker) fn fate(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> Fate {
    match outcome {
        Ok(Answer::Granted(granted)) => Fate::Store(granted),
        Ok(Answer::Refused(refusal)) => refused(refusal, around),
        Ok(Answer::Unusable(UnusableAnswer { why, report: _, kept })) => match kept {
            Some(kept) if matches!(around.grant, Grant::RefreshToken { .. }) => keep(kept, why, around),
            Some(_) | None => unclear(cause_of(why), around),
        },
        Err(SendError::NotSent(_)) => back_off(FailureCause::ProviderUnavailable, None, around),
        Err(SendError::OutcomeUnknown(_)) => unclear(FailureCause::RefreshOutcomeUnknown, around),
    }
}

/// The provider's own refresh token is what there is to go on with: nothing about it is unknown. The answer is the provider's
/// fault whatever broke, and every try costs a refresh token, so the first wait is longer.
fn keep(kept: Kept, why: Unusable, around: &Circumstances<'_>) -> Fate {
    let cause = if why == Unusable::Broken { FailureCause::ProviderAnswerInvalid } else { cause_of(why) };
    Fate::Keep {
        kept,
        cause,
        wait: jittered(FIRST_WAIT_OF_KEPT.max(doubled(FIRST_WAIT, around.failures, LONGEST_WAIT)), around),
    }
}

fn cause_of(why: Unusable) -> FailureCause {
    match why {
        Unusable::UnclearStatus => FailureCause::ProviderUnavailable,
        Unusable::Broken => FailureCause::RefreshOutcomeUnknown,
        Unusable::TooLarge
        | Unusable::Unreadable
        | Unusable::Coded
        | Unusable::NoAccessToken
        | Unusable::UnknownType => FailureCause::ProviderAnswerInvalid,
    }
}

fn refused(refusal: Refusal, around: &Circumstances<'_>) -> Fate {
    if let Some(cause) = of_request(refusal.error, around) {
        let doubled = doubled(FIRST_WAIT_FOR_OPERATOR, around.refusals, LONGEST_WAIT_OF_A_TOKEN);
        return Fate::Refuse { cause, wait: jittered(refusal.retry_after.unwrap_or_default().max(doubled), around) };
    }
    let cause = match refusal.error {
        RefusalError::InvalidGrant => return invalid_grant(around),
        RefusalError::Client | RefusalError::ClientUnproven | RefusalError::Redirected | RefusalError::Target => {
            FailureCause::ClientConfigurationRejected
        }
        RefusalError::Scope => FailureCause::InsufficientScope,
        RefusalError::Consent => FailureCause::ReauthorizationRequired,
        RefusalError::RateLimited => FailureCause::ProviderRateLimited,
        RefusalError::Unavailable => FailureCause::ProviderUnavailable,
    };
    let wait = wait(cause, refusal.retry_after, around);
    Fate::Note { cause, verdict: Verdict::BackOff { wait }, rest: common_rest(&refusal, wait) }
}

/// The cause to tell where a refusal is about what was asked for. A grant that has a record for each token keeps it there in
/// any case.
fn of_request(error: RefusalError, around: &Circumstances<'_>) -> Option<FailureCause> {
    if around.grant.coordination() == Coordination::PerToken {
        return None;
    }
    match (error, around.extent) {
        // Nobody can tell a dead grant from a scope that needs a person's consent. Whether the grant lives is found out by
        // who asks for what it was given.
        (RefusalError::InvalidGrant, Extent::Beyond | Extent::Excluded) => Some(FailureCause::ReauthorizationRequired),
        (RefusalError::Scope | RefusalError::Target, _) => Some(FailureCause::InsufficientScope),
        (RefusalError::Consent, _) => Some(FailureCause::ReauthorizationRequired),
        // Only the credential's own request shows that its configuration is at fault: others differ from it by a caller's
        // choice alone.
        (RefusalError::Client, Extent::Within | Extent::Beyond | Extent::Excluded) => {
            Some(FailureCause::ClientConfigurationRejected)
        }
        (
            RefusalError::InvalidGrant
            | RefusalError::Client
            | RefusalError::ClientUnproven
            | RefusalError::Redirected
            | RefusalError::RateLimited
            | RefusalError::Unavailable,
            _,
        ) => None,
    }
}

/// What one grant was told that is true of all of them: who asks too often, or is told when to come back, would be told
/// the same with any other grant of this client.
fn common_rest(refusal: &Refusal, wait: Duration) -> Option<Duration> {
    match refusal.error {
        RefusalError::RateLimited => Some(wait),
        RefusalError::Unavailable => refusal.retry_after.map(|_| wait),
        RefusalError::InvalidGrant
        | RefusalError::Client
        | RefusalError::ClientUnproven
        | RefusalError::Redirected
        | RefusalError::Scope
        | RefusalError::Target
        | RefusalError::Consent => None,
    }
}

fn invalid_grant(around: &Circumstances<'_>) -> Fate {
    match around.grant {
        Grant::RefreshToken { .. } if around.recovering => {
            Fate::Note { cause: FailureCause::RefreshOutcomeLost, verdict: Verdict::Dead { again: None }, rest: None }
        }
        Grant::RefreshToken { .. } => {
            let again = match around.retry_dead {
                RetryDead::Rarely => revival::again(around.deaths).map(|wait| jittered(wait, around)),
                RetryDead::Never => None,
            };
            Fate::Note { cause: FailureCause::ReauthorizationRequired, verdict: Verdict::Dead { again }, rest: None }
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
        FailureCause::ProviderRateLimited if asked.is_none() => FIRST_WAIT_WHEN_LIMITED,
        FailureCause::ProviderUnavailable
        | FailureCause::ProviderRateLimited
        | FailureCause::ProviderAnswerInvalid
        | FailureCause::RefreshOutcomeUnknown => FIRST_WAIT,
    };
    jittered(asked.unwrap_or_default().max(doubled(first, around.failures, LONGEST_WAIT)), around)
}

fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32 << failures.min(16)).min(longest)
}

fn jittered(wait: Duration, around: &Circumstances<'_>) -> Duration {
    wait.mul_f64(1.0 + 0.2 * around.jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::decide::samples::{endpoint, rotating};

    fn around(grant: &Grant, recovering: bool, failures: u32) -> Circumstances<'_> {
        let retry_dead = RetryDead::Rarely;
        let extent = Extent::Default;
        Circumstances { grant, recovering, extent, failures, deaths: 0, retry_dead, refusals: 0, jitter: 0.0 }
    }

    fn noted(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> (FailureCause, Verdict) {
        match fate(outcome, around) {
            Fate::Note { cause, verdict, rest: _ } => (cause, verdict),
            other @ (Fate::Store(_) | Fate::Keep { .. } | Fate::Refuse { .. }) => panic!("{other:?}"),
        }
    }

    fn refusal(error: RefusalError) -> Result<Answer, SendError> {
        Ok(Answer::Refused(error.into()))
    }

    #[test]
    fn only_invalid_grant_ends_a_grant() {
        let grant = rotating();
        let dead = |recovering| noted(refusal(RefusalError::InvalidGrant), &around(&grant, recovering, 0));
        let again = Some(Duration::from_secs(300));
        assert_eq!(dead(false), (FailureCause::ReauthorizationRequired, Verdict::Dead { again }));
        let never = Circumstances { retry_dead: RetryDead::Never, ..around(&grant, false, 0) };
        let never = noted(refusal(RefusalError::InvalidGrant), &never);
        assert_eq!(never, (FailureCause::ReauthorizationRequired, Verdict::Dead { again: None }));
        assert_eq!(dead(true), (FailureCause::RefreshOutcomeLost, Verdict::Dead { again: None }));
        for error in
            [RefusalError::Client, RefusalError::ClientUnproven, RefusalError::RateLimited, RefusalError::Unavailable]
        {
            let (_, verdict) = noted(refusal(error), &around(&grant, true, 0));
            assert!(matches!(verdict, Verdict::BackOff { .. }), "{error:?}");
        }
        let harmless = Grant::ClientCredentials(endpoint());
        let (cause, verdict) = noted(refusal(RefusalError::InvalidGrant), &around(&harmless, false, 0));
        assert_eq!(cause, FailureCause::ClientConfigurationRejected);
        assert!(matches!(verdict, Verdict::BackOff { .. }));
    }

    /// S1, P-K1 rows 1 to 5, P-K2 row 7.
    #[test]
    fn a_refusal_concerns_what_was_asked() {
        use FailureCause::{ClientConfigurationRejected, InsufficientScope, ReauthorizationRequired};
        let (rotating, harmless) = (rotating(), Grant::ClientCredentials(endpoint()));
        let told = |grant, error, extent| {
            let around = Circumstances { extent, refusals: 1, ..around(grant, false, 9) };
            match fate(refusal(error), &around) {
                Fate::Keep { kept, .. } => panic!("{kept:?}"),
                Fate::Refuse { cause, wait } => Some((cause, wait.as_secs())),
                Fate::Note { .. } => None,
                Fate::Store(granted) => panic!("{granted:?}"),
            }
        };
        let (scope, client, reauthorize) = (
            Some((InsufficientScope, 10)),
            Some((ClientConfigurationRejected, 10)),
            Some((ReauthorizationRequired, 10)),
        );
        for (error, default, within, beyond) in [
            (RefusalError::InvalidGrant, None, None, reauthorize),
            (RefusalError::Scope, scope, scope, scope),
            (RefusalError::Target, scope, scope, scope),
            (RefusalError::Consent, reauthorize, reauthorize, reauthorize),
            (RefusalError::Redirected, None, None, None),
            (RefusalError::Client, None, client, client),
            (RefusalError::ClientUnproven, None, None, None),
            (RefusalError::RateLimited, None, None, None),
            (RefusalError::Unavailable, None, None, None),
        ] {
            let found = [Extent::Default, Extent::Within, Extent::Beyond].map(|extent| told(&rotating, error, extent));
            assert_eq!(found, [default, within, beyond], "{error:?}");
            assert_eq!(told(&harmless, error, Extent::Beyond), None, "{error:?}: its record is its own");
        }
    }

    #[test]
    fn waits_of_one_token_double_up_to_five_minutes() {
        let grant = rotating();
        for (refusals, seconds) in [(0, 5), (3, 40), (6, 300), (u32::MAX, 300)] {
            let around = Circumstances { refusals, ..around(&grant, false, 0) };
            let Fate::Refuse { wait, .. } = fate(refusal(RefusalError::Scope), &around) else { panic!() };
            assert_eq!(wait.as_secs(), seconds);
        }
    }

    /// P-K6.
    #[test]
    fn a_refresh_token_is_stored_whatever_its_answer_lacks() {
        let kept = || Kept { refresh_token: "rt".into(), scopes: None, certain: true };
        let (rotating, harmless) = (rotating(), Grant::ClientCredentials(endpoint()));
        for (why, expected) in [
            (Unusable::UnknownType, FailureCause::ProviderAnswerInvalid),
            (Unusable::Broken, FailureCause::ProviderAnswerInvalid),
            (Unusable::UnclearStatus, FailureCause::ProviderUnavailable),
        ] {
            let answer = || Ok(Answer::Unusable(UnusableAnswer { kept: Some(kept()), ..why.into() }));
            let Fate::Keep { cause, wait, .. } = fate(answer(), &around(&rotating, false, 0)) else {
                panic!("{why:?}")
            };
            assert_eq!((cause, wait.as_secs()), (expected, 2), "{why:?}");
            assert!(matches!(fate(answer(), &around(&harmless, false, 0)), Fate::Note { .. }), "{why:?}");
        }
    }

    #[test]
    fn an_intent_is_withdrawn_only_when_the_outcome_is_certain() {
        let (rotating, harmless) = (rotating(), Grant::ClientCredentials(endpoint()));
        let unclear = [
            || Ok(Answer::Unusable(Unusable::UnclearStatus.into())),
            || Ok(Answer::Unusable(Unusable::Unreadable.into())),
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
            (RefusalError::RateLimited, None, Some(Duration::from_secs(2))),
            (RefusalError::RateLimited, long, long),
            (RefusalError::Unavailable, None, None),
            (RefusalError::Unavailable, long, long),
            (RefusalError::Client, long, None),
            (RefusalError::ClientUnproven, long, None),
            (RefusalError::InvalidGrant, long, None),
        ] {
            let outcome = Ok(Answer::Refused(Refusal { retry_after, ..error.into() }));
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
            let outcome = Ok(Answer::Refused(Refusal { retry_after, ..RefusalError::RateLimited.into() }));
            match noted(outcome, &around(&grant, false, failures)).1 {
                Verdict::BackOff { wait } => wait,
                other @ (Verdict::OutcomeUnknown { .. } | Verdict::Dead { .. }) => panic!("{other:?}"),
            }
        };
        assert_eq!(waited(0, None), Duration::from_secs(2));
        assert_eq!(waited(3, None), Duration::from_secs(16));
        assert_eq!(waited(0, Some(Duration::from_millis(1))), Duration::from_millis(500));
        assert_eq!(waited(u32::MAX, None), LONGEST_WAIT);
        assert_eq!(waited(0, Some(Duration::from_secs(90))), Duration::from_secs(90));
    }
}
