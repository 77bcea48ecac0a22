//! What to do next, from what is known. Pure: no clock, no randomness, no IO; the broker asks and then acts.

use std::time::Duration;

use crate::{
    failure::FailureCause,
    grant::{
        Grant,
        answer::{Answer, Granted, Refusal, RefusalError, Unusable},
        rotation::{Need, Recovery, Unanswered},
    },
    provider::SendError,
    secret::SecretString,
    store::{GrantRecord, Intent, Loaded, Material, Verdict},
    token::Generation,
};

const FIRST_WAIT: Duration = Duration::from_millis(500);
/// What an operator has to mend is not worth asking for twice a second.
const FIRST_WAIT_FOR_OPERATOR: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// An upstream that was mended is noticed no later than this.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What to do with a lease that was just taken.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    /// Ask the provider.
    Ask {
        /// The refresh token to present.
        refresh_token: Option<&'a SecretString>,
        /// An earlier presentation of it went unanswered.
        recovering: bool,
    },
    /// There is nothing to ask with.
    GiveUp(FailureCause),
    /// Whoever sent the refresh token may still be storing the answer.
    LeaveAlone,
}

/// Plans the work on a grant for somebody who needs a token.
pub(super) fn plan<'a>(grant: &Grant, binding: &str, record: Option<&'a GrantRecord>, recovery: &Recovery) -> Plan<'a> {
    match grant {
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => Plan::Ask { refresh_token: None, recovering: false },
        Grant::RefreshToken { .. } => record.map_or(NOTHING, |record| plan_refresh(binding, record, recovery)),
        Grant::Static { .. } => NOTHING,
    }
}

const NOTHING: Plan<'_> = Plan::GiveUp(FailureCause::ReauthorizationRequired);

fn plan_refresh<'a>(binding: &str, record: &'a GrantRecord, recovery: &Recovery) -> Plan<'a> {
    let Material::RefreshToken(token) = &record.secrets.material else { return NOTHING };
    // RFC 6749 §10.4: a refresh token goes to the provider and client that it was issued for, and nowhere else.
    if record.secrets.binding != binding {
        return NOTHING;
    }
    match &record.intent {
        Some(intent) if !recovery.allows(&unanswered(intent), Need::Now) => Plan::LeaveAlone,
        Some(_) => Plan::Ask { refresh_token: Some(token), recovering: true },
        None => Plan::Ask { refresh_token: Some(token), recovering: false },
    }
}

/// Whether a token may be replaced that is still valid. While an answer is missing, that is the provider's kind to say.
pub(super) fn may_replace_ahead(record: Option<&GrantRecord>, recovery: &Recovery) -> bool {
    let intent = record.and_then(|record| record.intent.as_ref());
    intent.is_none_or(|intent| recovery.allows(&unanswered(intent), Need::Ahead))
}

fn unanswered(intent: &Intent) -> Unanswered {
    Unanswered { age: intent.age, quiet: intent.quiet, settled: intent.settled }
}

/// What became of a request to the provider.
#[derive(Debug)]
pub(super) enum Fate {
    /// There is a token to store.
    Store(Granted),
    /// There is none, and this is to be noted.
    Note {
        /// Why.
        cause: FailureCause,
        /// What it means for the grant.
        verdict: Verdict,
    },
}

/// The circumstances of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// The grant.
    pub(super) grant: &'a Grant,
    /// An earlier presentation of the same refresh token went unanswered.
    pub(super) recovering: bool,
    /// How many failures went before.
    pub(super) failures: u32,
    /// A random number from 0 to 1, which keeps replicas and grants from asking in step.
    pub(super) jitter: f64,
}

/// Reads the outcome of a request.
pub(super) fn fate(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> Fate {
    match outcome {
        Ok(Answer::Granted(granted)) => Fate::Store(granted),
        Ok(Answer::Refused(refusal)) => refused(refusal, around),
        Ok(Answer::Unusable(Unusable::UnclearStatus)) => unclear(FailureCause::ProviderUnavailable, around),
        Ok(Answer::Unusable(
            Unusable::TooLarge | Unusable::Unreadable | Unusable::NoAccessToken | Unusable::UnknownType,
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
    back_off(cause, refusal.retry_after, around)
}

fn invalid_grant(around: &Circumstances<'_>) -> Fate {
    match around.grant {
        Grant::RefreshToken { .. } if around.recovering => {
            Fate::Note { cause: FailureCause::RefreshOutcomeLost, verdict: Verdict::Dead }
        }
        Grant::RefreshToken { .. } => {
            Fate::Note { cause: FailureCause::ReauthorizationRequired, verdict: Verdict::Dead }
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
        return Fate::Note { cause, verdict: Verdict::OutcomeUnknown { wait } };
    }
    let lost = cause == FailureCause::RefreshOutcomeUnknown;
    let cause = if lost { FailureCause::ProviderUnavailable } else { cause };
    Fate::Note { cause, verdict: Verdict::BackOff { wait } }
}

fn back_off(cause: FailureCause, asked: Option<Duration>, around: &Circumstances<'_>) -> Fate {
    Fate::Note { cause, verdict: Verdict::BackOff { wait: wait(cause, asked, around) } }
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

/// What a report of a rejected generation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportPlan {
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
pub(super) fn report(rejected: Generation, loaded: &Loaded, min_age: Duration) -> ReportPlan {
    let strikes = loaded.record.as_ref().map_or(0, |record| record.strikes);
    match &loaded.token {
        Some(token) if token.generation > rejected => ReportPlan::AlreadyReplaced,
        Some(token) if token.generation == rejected => damp(age(rejected, loaded), strikes, min_age),
        Some(_) => ReportPlan::NeverIssued,
        None if rejected <= loaded.revision() => ReportPlan::Reject { strikes },
        None => ReportPlan::NeverIssued,
    }
}

/// A generation is the store's time, in µs, at which its token was asked for.
fn age(generation: Generation, loaded: &Loaded) -> Duration {
    Duration::from_micros(loaded.next.get().saturating_sub(generation.get()))
}

/// An upstream that refuses every token must not make bearerd flood the provider: each token that is rejected soon after
/// it could be doubles the time for which the next one is kept.
fn damp(age: Duration, strikes: u32, min_age: Duration) -> ReportPlan {
    let hold = min_age.saturating_mul(1_u32 << strikes.min(16)).min(LONGEST_HOLD.max(min_age));
    if age < hold {
        ReportPlan::HeldBack { wait: hold - age }
    } else if age < hold * 2 {
        ReportPlan::Reject { strikes: strikes.saturating_add(1) }
    } else {
        ReportPlan::Reject { strikes: 0 }
    }
}

/// How long after now a token is to be refreshed in the background; `None` if its life is too short for that.
pub(super) fn ahead(lifetime: Duration, remaining: Duration, refresh_ahead: Duration, jitter: f64) -> Option<Duration> {
    const SHORTEST_LIFE: Duration = Duration::from_secs(1);
    /// Timers reach two years; a token that lives longer is not worth waiting for.
    const LONGEST_TIMER: Duration = Duration::from_secs(365 * 86_400);
    if lifetime < SHORTEST_LIFE {
        return None;
    }
    // By chance up to a fifth later, never earlier: a margin can be the provider's limit.
    let margin = (lifetime / 2).min(refresh_ahead).mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0));
    Some(remaining.saturating_sub(margin).min(LONGEST_TIMER))
}

#[cfg(test)]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grant::{Client, ClientAuth, Endpoint, rotation::RotationProfile},
        name::Scopes,
        store::{AttemptId, GrantSecrets, GrantState},
        token::{Token, TokenType},
    };

    fn endpoint() -> Endpoint {
        Endpoint {
            token_url: "https://as.example/token".parse().unwrap(),
            client: Client { id: "c".into(), auth: ClientAuth::None },
            parameters: Vec::new(),
        }
    }

    pub(super) fn rotating() -> Grant {
        Grant::RefreshToken { endpoint: endpoint(), first: None }
    }

    const STRICT: Recovery = Recovery {
        rotation: RotationProfile::Strict,
        takeover: Duration::from_secs(24),
        store_came_back: false,
        margin: Duration::from_secs(5),
    };

    fn sent(age: u64, settled: bool) -> Option<Intent> {
        let age = Duration::from_secs(age);
        Some(Intent { attempt: AttemptId::random(), age, quiet: age, sends: 1, settled })
    }

    fn record(intent: Option<Intent>) -> GrantRecord {
        GrantRecord {
            revision: Generation::new(1),
            state: GrantState::Active,
            secrets: GrantSecrets {
                material: Material::RefreshToken("rt".into()),
                binding: "here".into(),
                ..GrantSecrets::default()
            },
            intent,
            failure: None,
            strikes: 0,
        }
    }

    fn around(grant: &Grant, recovering: bool, failures: u32) -> Circumstances<'_> {
        Circumstances { grant, recovering, failures, jitter: 0.0 }
    }

    fn noted(outcome: Result<Answer, SendError>, around: &Circumstances<'_>) -> (FailureCause, Verdict) {
        match fate(outcome, around) {
            Fate::Note { cause, verdict } => (cause, verdict),
            Fate::Store(granted) => panic!("{granted:?}"),
        }
    }

    fn refusal(error: RefusalError) -> Result<Answer, SendError> {
        Ok(Answer::Refused(Refusal { error, retry_after: None }))
    }

    #[test]
    fn a_missing_answer_is_asked_for_as_the_provider_rotates() {
        let grant = rotating();
        let one_for_all = Recovery { rotation: RotationProfile::None, ..STRICT };
        // What is done for somebody who needs a token, and whether anything is done ahead of time.
        for (recovery, intent, recovering, ahead) in [
            (STRICT, None, Some(false), true),
            (STRICT, sent(23, false), None, false),
            (STRICT, sent(24, false), Some(true), false),
            (STRICT, sent(0, true), Some(true), false),
            (one_for_all, None, Some(false), true),
            (one_for_all, sent(0, false), Some(true), true),
        ] {
            let stored = record(intent);
            let planned = match plan(&grant, "here", Some(&stored), &recovery) {
                Plan::Ask { recovering, .. } => Some(recovering),
                Plan::LeaveAlone => None,
                Plan::GiveUp(cause) => panic!("{cause:?}"),
            };
            assert_eq!(planned, recovering, "{recovery:?} {stored:?}");
            assert_eq!(may_replace_ahead(Some(&stored), &recovery), ahead, "{recovery:?} {stored:?}");
        }
        assert!(may_replace_ahead(None, &STRICT));
    }

    #[test]
    fn a_refresh_token_goes_nowhere_but_home() {
        let grant = rotating();
        let stored = record(None);
        for plan in [plan(&grant, "elsewhere", Some(&stored), &STRICT), plan(&grant, "here", None, &STRICT)] {
            assert!(matches!(plan, Plan::GiveUp(FailureCause::ReauthorizationRequired)), "{plan:?}");
        }
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

    #[test]
    fn reports_are_read_against_the_store() {
        let token = |generation| Token {
            value: "t".into(),
            kind: TokenType::Bearer,
            generation: Generation::new(generation),
            scopes: Scopes::default(),
            expiry: None,
        };
        let loaded = |generation: Option<u64>| Loaded {
            record: Some(GrantRecord { revision: Generation::new(7), ..record(None) }),
            token: generation.map(token),
            next: Generation::new(8),
        };
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

    #[test]
    fn refreshing_ahead_leaves_half_of_a_short_life() {
        let seconds = Duration::from_secs;
        assert_eq!(ahead(seconds(3600), seconds(3600), seconds(300), 0.0), Some(seconds(3300)));
        assert_eq!(ahead(seconds(10), seconds(10), seconds(300), 0.0), Some(seconds(5)));
        assert_eq!(ahead(seconds(10), seconds(10), seconds(300), 1.0), Some(seconds(6)));
        assert_eq!(ahead(seconds(3600), seconds(100), seconds(300), 0.0), Some(Duration::ZERO));
        assert_eq!(ahead(Duration::from_millis(900), seconds(1), seconds(300), 0.0), None);
        let century = seconds(100 * 365 * 86_400);
        assert_eq!(ahead(century, century, seconds(300), 0.0), Some(seconds(365 * 86_400)));
    }
}
