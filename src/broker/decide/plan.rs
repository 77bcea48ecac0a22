//! What to do with a lease that was just taken.

use crate::{
    failure::FailureCause,
    grant::{
        Bindings, Grant,
        rotation::{Need, Recovery, Unanswered},
    },
    secret::{ExposeSecret, SecretString, same},
    store::{GrantRecord, GrantSecrets, Intent, Material},
};

/// What to do with a lease that was just taken.
#[derive(Debug)]
pub(in crate::broker) enum Plan<'a> {
    /// Ask the provider.
    Ask {
        /// The refresh token to present.
        refresh_token: Option<&'a SecretString>,
        /// An earlier presentation of it went unanswered.
        recovering: bool,
    },
    /// There is nothing to ask with.
    GiveUp(FailureCause),
    /// Whoever sent the refresh token may still be storing the answer, or nobody needs so much to be risked.
    LeaveAlone,
}

/// Plans the work on a grant.
pub(in crate::broker) fn plan<'a>(
    grant: &Grant,
    bindings: &Bindings,
    record: Option<&'a GrantRecord>,
    recovery: &Recovery,
    need: Need,
) -> Plan<'a> {
    match grant {
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => Plan::Ask { refresh_token: None, recovering: false },
        Grant::RefreshToken { .. } => record.map_or(NOTHING, |record| plan_refresh(bindings, record, recovery, need)),
        Grant::Static { .. } => NOTHING,
    }
}

const NOTHING: Plan<'_> = Plan::GiveUp(FailureCause::ReauthorizationRequired);

fn plan_refresh<'a>(bindings: &Bindings, record: &'a GrantRecord, recovery: &Recovery, need: Need) -> Plan<'a> {
    let Material::RefreshToken(token) = &record.secrets.material else { return NOTHING };
    // RFC 6749 §10.4: a refresh token goes to the provider and client that it was issued for, and nowhere else.
    if !record.secrets.belong_to(bindings) {
        return NOTHING;
    }
    match &record.intent {
        Some(intent) if !recovery.allows(&unanswered(intent), need) => Plan::LeaveAlone,
        Some(_) => Plan::Ask { refresh_token: Some(token), recovering: true },
        None => Plan::Ask { refresh_token: Some(token), recovering: false },
    }
}

/// Whether a token may be replaced that is still valid. While an answer is missing, that is the provider's kind to say.
pub(in crate::broker) fn may_replace_ahead(record: Option<&GrantRecord>, recovery: &Recovery) -> bool {
    let intent = record.and_then(|record| record.intent.as_ref());
    intent.is_none_or(|intent| recovery.allows(&unanswered(intent), Need::Ahead))
}

/// What else can be tried when the provider says that the refresh token of this record is no good: an answer that came
/// too late, if it belongs to the same provider and client and is not the very token that was refused.
pub(in crate::broker) fn spare<'a>(record: &'a GrantRecord, bindings: &Bindings) -> Option<&'a GrantSecrets> {
    let kept = &record.quarantine.as_ref()?.secrets;
    let Material::RefreshToken(token) = &kept.material else { return None };
    let refused = match &record.secrets.material {
        Material::RefreshToken(refused) => same(refused.expose_secret(), token.expose_secret()),
        Material::Nothing | Material::Static(_) => false,
    };
    (!refused && kept.belong_to(bindings)).then_some(kept)
}

fn unanswered(intent: &Intent) -> Unanswered {
    Unanswered { age: intent.age, quiet: intent.quiet, settled: intent.settled }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        broker::decide::samples::{record, rotating},
        grant::rotation::RotationProfile,
        store::{AttemptId, Quarantined},
        token::Generation,
    };

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
            let planned = |need| match plan(&grant, &"here".into(), Some(&stored), &recovery, need) {
                Plan::Ask { recovering, .. } => Some(recovering),
                Plan::LeaveAlone => None,
                Plan::GiveUp(cause) => panic!("{cause:?}"),
            };
            assert_eq!(planned(Need::Now), recovering, "{recovery:?} {stored:?}");
            assert_eq!(planned(Need::Ahead).is_some(), ahead, "{recovery:?} {stored:?}");
            assert_eq!(may_replace_ahead(Some(&stored), &recovery), ahead, "{recovery:?} {stored:?}");
        }
        assert!(may_replace_ahead(None, &STRICT));
    }

    #[test]
    fn only_another_refresh_token_of_the_same_client_is_a_spare() {
        let kept = |token: Option<&str>, binding: &str| {
            let material = token.map_or(Material::Nothing, |token| Material::RefreshToken(token.into()));
            let secrets = GrantSecrets { material, binding: binding.into(), ..GrantSecrets::default() };
            Some(Quarantined { revision: Generation::new(2), secrets })
        };
        for (quarantine, is_spare) in [
            (kept(Some("other"), "here"), true),
            (kept(Some("other"), "elsewhere"), false),
            (kept(Some("rt"), "here"), false),
            (kept(None, "here"), false),
            (None, false),
        ] {
            let stored = GrantRecord { quarantine, ..record(None) };
            assert_eq!(spare(&stored, &"here".into()).is_some(), is_spare, "{:?}", stored.quarantine);
        }
    }

    #[test]
    fn a_refresh_token_goes_nowhere_but_home() {
        let grant = rotating();
        let stored = record(None);
        for plan in [
            plan(&grant, &"elsewhere".into(), Some(&stored), &STRICT, Need::Now),
            plan(&grant, &"here".into(), None, &STRICT, Need::Now),
        ] {
            assert!(matches!(plan, Plan::GiveUp(FailureCause::ReauthorizationRequired)), "{plan:?}");
        }
    }
}
