//! Why a grant gave no token: the causes that are stored, counted and told to callers, and the provider's own words, which
//! only operators see.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

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

/// What a token endpoint said about a failure. Secrets are cut out of it, control characters are escaped and each text is
/// short; see `grant::answer`. It is for operators: callers are told the cause alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderReport {
    /// Host and path of the token endpoint.
    pub endpoint: String,
    /// The HTTP status; `None` if no answer came.
    pub status: Option<u16>,
    /// The provider's error code, as a rule that of RFC 6749 §5.2.
    pub error: Option<String>,
    /// The provider's description of the error.
    pub description: Option<String>,
    /// Where a redirect leads: host and path.
    pub location: Option<String>,
    /// Why there is no answer, or what is wrong with it.
    pub problem: Option<String>,
}

impl ProviderReport {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What an operator should look at; `None` if the report says it all.
    fn hint(&self) -> Option<&'static str> {
        let redirects = self.status.is_some_and(|status| (300..400).contains(&status));
        match (self.error.as_deref(), self.status) {
            (_, _) if redirects => Some("token_url has to be the address that it leads to"),
            (Some("invalid_client" | "incorrect_client_credentials"), _) => {
                Some("client_id, client_secret or client_auth is wrong")
            }
            (Some("unauthorized_client"), _) => Some("may this client use this grant?"),
            (Some("unsupported_grant_type"), _) => {
                Some("is token_url the token endpoint, and does it have this grant?")
            }
            (Some("invalid_scope"), _) => Some("are the scopes right, and may this client ask for them?"),
            (Some("invalid_target"), _) => Some("are the resources right?"),
            (Some("consent_required" | "interaction_required" | "login_required"), _) => {
                Some("the person who owns the grant has to log in again")
            }
            (None, Some(401)) => Some("are client_id, client_secret and client_auth right?"),
            (None, Some(404 | 405 | 410)) => Some("is token_url right?"),
            (Some(_) | None, _) => None,
        }
    }
}

/// One line for people.
impl fmt::Display for ProviderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, status, error, description, location, problem } = self;
        match (error, status) {
            (Some(error), Some(status)) => write!(f, "{error} (HTTP {status}) from {endpoint}")?,
            (Some(error), None) => write!(f, "{error} from {endpoint}")?,
            (None, Some(status)) => write!(f, "HTTP {status} from {endpoint}")?,
            (None, None) => write!(f, "no answer from {endpoint}")?,
        }
        if let Some(location) = location {
            write!(f, ", a redirect to {location}")?;
        }
        if let Some(description) = description {
            write!(f, ", \"{description}\"")?;
        }
        for more in problem.as_deref().into_iter().chain(self.hint()) {
            write!(f, ": {more}")?;
        }
        Ok(())
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
    fn a_report_says_what_to_look_at() {
        let report = |status, error: Option<&str>, location: Option<&str>| ProviderReport {
            endpoint: "as.example/oauth/token".into(),
            status,
            error: error.map(Into::into),
            location: location.map(Into::into),
            ..ProviderReport::default()
        };
        for (report, line) in [
            (report(Some(404), None, None), "HTTP 404 from as.example/oauth/token: is token_url right?"),
            (
                report(Some(401), Some("invalid_client"), None),
                "invalid_client (HTTP 401) from as.example/oauth/token: client_id, client_secret or client_auth is wrong",
            ),
            (
                report(Some(308), None, Some("as.example/oauth/token/")),
                "HTTP 308 from as.example/oauth/token, a redirect to as.example/oauth/token/: token_url has to be the \
                 address that it leads to",
            ),
            (report(None, None, None), "no answer from as.example/oauth/token"),
        ] {
            assert_eq!(report.to_string(), line);
        }
    }

    #[test]
    fn every_word_is_read_back() {
        for cause in FailureCause::ALL {
            assert_eq!(cause.word().parse(), Ok(cause));
        }
        assert_eq!("SOMETHING".parse::<FailureCause>(), Err(UnknownCause));
    }
}
