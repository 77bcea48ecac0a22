//! What is known of a provider: its rotation of refresh tokens, what a scope may be on a refresh, and what its refusals
//! mean beyond RFC 6749 §5.2. All of it is data (`profile/presets.rs`).

use std::sync::{Arc, LazyLock};

pub use self::presets::{PRESETS, Preset, named};
use super::{answer::RefusalError, rotation::RotationProfile};
use crate::rule::{Rule, RuleError};

mod presets;

/// What is known of a credential's provider.
#[derive(Clone, Debug)]
pub struct ProviderProfile {
    /// What the provider does with a used refresh token; without meaning for a grant that has none.
    pub rotation: RotationProfile,
    /// A refresh token serves only the scopes and resources that were granted with it (RFC 6749 §6).
    pub scope_bound: bool,
    /// The parameter `scope` may be sent on a refresh.
    pub scope_on_refresh: bool,
    /// Whether a dead grant may be tried again without an operator.
    pub retry_dead: RetryDead,
    /// What the provider's refusals mean.
    pub refusals: RefusalRules,
    /// Values of `token_type`, besides the usual ones, of tokens that are presented as Bearer; in lower case.
    pub token_types: Arc<[String]>,
}

impl Default for ProviderProfile {
    fn default() -> Self {
        Self {
            rotation: RotationProfile::default(),
            scope_bound: true,
            scope_on_refresh: true,
            retry_dead: RetryDead::default(),
            refusals: RefusalRules::default(),
            token_types: Arc::default(),
        }
    }
}

/// Whether bearerd tries a dead grant again by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryDead {
    /// Rarely: some providers say `invalid_grant` while they are ill.
    #[default]
    Rarely,
    /// Never.
    Never,
}

/// Rules that say what a refusal means, in the order in which they are asked: the credential's own, the provider's, and
/// those that hold for every provider. The first list with a match decides.
#[derive(Clone, Debug)]
pub struct RefusalRules(Vec<Arc<RuleSet>>);

impl Default for RefusalRules {
    fn default() -> Self {
        static COMMON: LazyLock<Arc<RuleSet>> = LazyLock::new(|| Arc::new(presets::COMMON.compiled()));
        Self(vec![Arc::clone(&COMMON)])
    }
}

impl RefusalRules {
    /// The same rules, after these.
    #[must_use]
    pub fn after(mut self, first: RuleSet) -> Self {
        if !first.is_empty() {
            self.0.insert(0, Arc::new(first));
        }
        self
    }

    /// What an answer means by the rules. `word` is the answer's error word.
    pub(super) fn judge(&self, status: u16, word: Option<&str>, body: &[u8]) -> Option<RefusalError> {
        self.0.iter().find_map(|set| set.judge(status, word, body))
    }
}

/// One list of rules for each meaning. Where several match, the meaning that costs least decides.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The provider limits the rate.
    pub rate_limited: Vec<Rule>,
    /// The refusal passes.
    pub retry: Vec<Rule>,
    /// The refusal concerns what was asked for, not the grant.
    pub request: Vec<Rule>,
    /// The grant is dead.
    pub dead: Vec<Rule>,
}

impl RuleSet {
    fn is_empty(&self) -> bool {
        let Self { rate_limited, retry, request, dead } = self;
        [rate_limited, retry, request, dead].iter().all(|rules| rules.is_empty())
    }

    fn judge(&self, status: u16, word: Option<&str>, body: &[u8]) -> Option<RefusalError> {
        let Self { rate_limited, retry, request, dead } = self;
        let matches = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(status, |error| word == Some(error), body));
        if matches(rate_limited) {
            return Some(RefusalError::RateLimited);
        }
        if matches(retry) {
            return Some(RefusalError::Unavailable);
        }
        if matches(request) {
            return Some(match word {
                Some("invalid_scope") => RefusalError::Scope,
                Some("invalid_target") => RefusalError::Target,
                Some(_) | None => RefusalError::Consent,
            });
        }
        matches(dead).then_some(RefusalError::InvalidGrant)
    }
}

/// The rules of a preset, as they are written.
#[derive(Clone, Copy, Debug)]
pub struct RuleTexts {
    rate_limited: &'static [&'static str],
    retry: &'static [&'static str],
    request: &'static [&'static str],
    dead: &'static [&'static str],
}

impl RuleTexts {
    const NONE: Self = Self { rate_limited: &[], retry: &[], request: &[], dead: &[] };

    /// A test reads every preset, so no rule is left out here.
    fn compiled(&self) -> RuleSet {
        self.parse().unwrap_or_default()
    }

    fn parse(&self) -> Result<RuleSet, (usize, RuleError)> {
        Ok(RuleSet {
            rate_limited: Rule::parse_all(self.rate_limited)?,
            retry: Rule::parse_all(self.retry)?,
            request: Rule::parse_all(self.request)?,
            dead: Rule::parse_all(self.dead)?,
        })
    }
}

impl Preset {
    /// The profile of this provider.
    pub fn profile(&self) -> ProviderProfile {
        ProviderProfile {
            rotation: self.rotation,
            scope_bound: self.scope_bound,
            scope_on_refresh: self.scope_on_refresh,
            retry_dead: self.retry_dead,
            refusals: RefusalRules::default().after(self.refused_when.compiled()),
            token_types: self.token_types.iter().map(|word| (*word).to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_every_preset_can_be_read() {
        assert!(presets::COMMON.parse().is_ok_and(|rules| !rules.is_empty()));
        for (name, preset) in PRESETS {
            assert!(preset.refused_when.parse().is_ok(), "{name}");
            assert!(preset.token_types.iter().all(|word| word.to_ascii_lowercase() == *word), "{name}");
        }
    }

    #[test]
    fn the_list_that_comes_first_decides_and_in_one_list_what_costs_least() {
        let rules = |texts: RuleTexts| texts.parse().unwrap();
        let own = rules(RuleTexts { dead: &["403 unauthorized_client"], ..RuleTexts::NONE });
        let known = rules(RuleTexts {
            retry: &["403 unauthorized_client body ~ later"],
            dead: &["403 unauthorized_client"],
            ..RuleTexts::NONE
        });
        let judge = |rules: &RefusalRules| rules.judge(403, Some("unauthorized_client"), b"later");
        let profile = RefusalRules::default().after(known);
        assert_eq!(judge(&profile), Some(RefusalError::Unavailable));
        assert_eq!(judge(&profile.after(own)), Some(RefusalError::InvalidGrant));
        assert_eq!(judge(&RefusalRules::default()), None);
    }
}
