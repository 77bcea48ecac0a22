//! Why a grant gave no token: the causes that are stored, counted and told to callers.

use std::str::FromStr;

/// The cause of a failed refresh. The words are the reasons of the error contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The grant is gone: `invalid_grant`, or nothing was ever imported.
    ReauthorizationRequired,
    /// An answer was lost with a refresh token that is good for one use, and the provider then refused the old one.
    RefreshOutcomeLost,
    /// The provider does not accept our configuration.
    ClientConfigurationRejected,
    /// The provider does not grant these scopes.
    InsufficientScope,
    /// The provider cannot be reached, or says that it cannot serve.
    ProviderUnavailable,
    /// The provider wants us to slow down.
    ProviderRateLimited,
    /// The provider's answer makes no sense.
    ProviderAnswerInvalid,
    /// A request was sent and no answer came.
    RefreshOutcomeUnknown,
}

impl FailureCause {
    const ALL: [Self; 8] = [
        Self::ReauthorizationRequired,
        Self::RefreshOutcomeLost,
        Self::ClientConfigurationRejected,
        Self::InsufficientScope,
        Self::ProviderUnavailable,
        Self::ProviderRateLimited,
        Self::ProviderAnswerInvalid,
        Self::RefreshOutcomeUnknown,
    ];

    /// The word in records, metrics and descriptions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReauthorizationRequired => "REAUTHORIZATION_REQUIRED",
            Self::RefreshOutcomeLost => "REFRESH_OUTCOME_LOST",
            Self::ClientConfigurationRejected => "CLIENT_CONFIGURATION_REJECTED",
            Self::InsufficientScope => "INSUFFICIENT_SCOPE",
            Self::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
            Self::ProviderRateLimited => "PROVIDER_RATE_LIMITED",
            Self::ProviderAnswerInvalid => "PROVIDER_ANSWER_INVALID",
            Self::RefreshOutcomeUnknown => "REFRESH_OUTCOME_UNKNOWN",
        }
    }
}

/// The word is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cause of failure has this name")]
pub struct UnknownCause;

impl FromStr for FailureCause {
    type Err = UnknownCause;

    fn from_str(word: &str) -> Result<Self, UnknownCause> {
        Self::ALL.into_iter().find(|cause| cause.word() == word).ok_or(UnknownCause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for cause in FailureCause::ALL {
            assert_eq!(cause.word().parse(), Ok(cause));
        }
        assert_eq!("SOMETHING".parse::<FailureCause>(), Err(UnknownCause));
    }
}
