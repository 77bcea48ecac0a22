//! What can go wrong for a caller, and the closed list of reasons that the error contract has.

use std::{sync::Arc, time::Duration};

use super::Answered;
use crate::{
    failure::FailureCause,
    limit::SHORT_WAIT,
    name::Scopes,
    policy::GrantedLimit,
    store::{GrantRecord, GrantState, StoreError, TokenRefusal},
    upstream::{AnswerProblem, TargetError, UpstreamError},
};

/// Why a verb has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No credential of this name is configured.
    #[error("no credential of this name is configured")]
    CredentialNotFound,
    /// The request cannot be carried out, whoever sends it.
    #[error("{field}: {problem}")]
    InvalidRequest {
        /// The field of the request.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The token has scopes that the caller's row does not cover.
    #[error("the provider granted scopes that this caller's row does not list: {0}")]
    ScopesNotCovered(Arc<str>),
    /// The call's target is not what a credential allows.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The grant gives no token now.
    #[error("{}", cause.word())]
    Failed {
        /// Why.
        cause: FailureCause,
        /// When the next try is due, if one is.
        retry_after: Option<Duration>,
    },
    /// An imported refresh token gave no token and is not kept. What was there before is as it was.
    #[error("the imported refresh token gave no token: {}", cause.word())]
    ImportRefused {
        /// Why.
        cause: FailureCause,
        /// When another try may do better, where that is known.
        retry_after: Option<Duration>,
    },
    /// Whether an imported refresh token is good is not known yet. It is kept beside what was there before.
    #[error("the provider gave no answer about the imported refresh token")]
    ImportUnanswered {
        /// When it is tried again at the earliest.
        retry_after: Option<Duration>,
    },
    /// Nothing is stored from which a token of this subject could be made.
    #[error("no grant is stored for this subject")]
    NoGrant,
    /// The caller refuses a token that is too young to be replaced.
    #[error("a token this fresh was already rejected")]
    RejectedRepeatedly {
        /// When the next one is allowed.
        wait: Duration,
    },
    /// Another replica works on it for longer than this caller waits.
    #[error("a refresh is under way")]
    RefreshInProgress {
        /// What is left of the other's lease.
        left: Duration,
    },
    /// The store does not answer.
    #[error("{0}")]
    StoreUnavailable(Arc<str>),
    /// A record is damaged, or its seal key is missing.
    #[error("{0}")]
    RecordUnreadable(Arc<str>),
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The upstream answered, and callers cannot have the body.
    #[error("the upstream answered {}, and {problem}", answered.answer.status)]
    NoBody {
        /// Why.
        problem: AnswerProblem,
        /// The rest of the answer.
        answered: Box<Answered>,
    },
}

/// The reasons of the error contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the contract's table explains each")]
pub enum Reason {
    CallerUnauthenticated,
    CallerNotAllowed,
    CredentialNotFound,
    InvalidRequest,
    InvalidTarget,
    TargetNotAllowed,
    ReauthorizationRequired,
    ClientConfigurationRejected,
    InsufficientScope,
    TokenRejectedRepeatedly,
    ProviderUnavailable,
    ProviderRateLimited,
    ProviderAnswerInvalid,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    StoreUnavailable,
    RecordUnreadable,
    UpstreamUnreachable,
    UpstreamNoAnswer,
    UpstreamAnswerTooLarge,
    Overloaded,
}

impl Error {
    /// The reason that callers are told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::CredentialNotFound => Reason::CredentialNotFound,
            Self::ScopesNotCovered(_) => Reason::CallerNotAllowed,
            Self::InvalidRequest { .. } => Reason::InvalidRequest,
            Self::Target(TargetError::Path(_) | TargetError::Method(_)) => Reason::InvalidTarget,
            Self::Target(TargetError::Outside | TargetError::NoBaseUrl | TargetError::MethodNotAllowed)
            | Self::Upstream(UpstreamError::NotAllowed(_)) => Reason::TargetNotAllowed,
            Self::Target(TargetError::Header(_) | TargetError::BodyTooLarge(_)) => Reason::InvalidRequest,
            Self::Failed { cause, .. } | Self::ImportRefused { cause, .. } => of_cause(*cause),
            Self::ImportUnanswered { .. } => Reason::RefreshOutcomeUnknown,
            Self::NoGrant => Reason::ReauthorizationRequired,
            Self::RejectedRepeatedly { .. } => Reason::TokenRejectedRepeatedly,
            Self::RefreshInProgress { .. } => Reason::RefreshInProgress,
            Self::StoreUnavailable(_) => Reason::StoreUnavailable,
            Self::RecordUnreadable(_) => Reason::RecordUnreadable,
            Self::Upstream(UpstreamError::Unreachable(_)) => Reason::UpstreamUnreachable,
            Self::Upstream(UpstreamError::Broken(_) | UpstreamError::TimedOut) => Reason::UpstreamNoAnswer,
            Self::NoBody { problem: AnswerProblem::NoRoom, .. } => Reason::Overloaded,
            Self::NoBody { problem: AnswerProblem::TooLarge(_), .. } => Reason::UpstreamAnswerTooLarge,
            Self::NoBody {
                problem: AnswerProblem::Incomplete(_) | AnswerProblem::TimedOut | AnswerProblem::Undecodable(_),
                ..
            } => Reason::UpstreamNoAnswer,
        }
    }

    /// When a caller may try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed { retry_after, .. }
            | Self::ImportRefused { retry_after, .. }
            | Self::ImportUnanswered { retry_after } => *retry_after,
            Self::RejectedRepeatedly { wait } => Some(*wait),
            // Never nothing: it would be taken as an invitation to ask again at once.
            Self::RefreshInProgress { left } => Some((*left).max(SHORTEST_RETRY)),
            Self::StoreUnavailable(_) => Some(STORE_RETRY),
            Self::NoBody { problem: AnswerProblem::NoRoom, .. } => Some(SHORT_WAIT),
            Self::CredentialNotFound
            | Self::ScopesNotCovered(_)
            | Self::InvalidRequest { .. }
            | Self::NoGrant
            | Self::Target(_)
            | Self::RecordUnreadable(_)
            | Self::Upstream(_)
            | Self::NoBody { .. } => None,
        }
    }

    /// The error of a grant that rests.
    pub(super) fn resting(record: &GrantRecord) -> Self {
        match (record.state, record.failure) {
            (GrantState::Dead(cause), _) => Self::Failed { cause, retry_after: None },
            (GrantState::Active, Some(failure)) => {
                Self::Failed { cause: failure.cause, retry_after: Some(failure.wait) }
            }
            // The wait ended between the store's look and ours.
            (GrantState::Active, None) => Self::RefreshInProgress { left: Duration::ZERO },
        }
    }

    /// The error of a token that the provider refused.
    pub(super) fn refused(refusal: &TokenRefusal) -> Self {
        Self::Failed { cause: refusal.cause, retry_after: Some(refusal.wait) }
    }

    /// Whether a caller may have a token of these scopes.
    pub(super) fn unless_covered(limit: &GrantedLimit, granted: &Scopes) -> Result<(), Self> {
        match limit.beyond(granted) {
            beyond if beyond.is_empty() => Ok(()),
            beyond => Err(Self::ScopesNotCovered(beyond.join(" ").into())),
        }
    }

    /// An error for one field of a request.
    pub(super) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::InvalidRequest { field, problem: problem.into() }
    }
}

const SHORTEST_RETRY: Duration = Duration::from_millis(100);

/// What a caller is told to wait when the store is away.
const STORE_RETRY: Duration = Duration::from_secs(1);

fn of_cause(cause: FailureCause) -> Reason {
    match cause {
        FailureCause::ReauthorizationRequired | FailureCause::RefreshOutcomeLost => Reason::ReauthorizationRequired,
        FailureCause::ClientConfigurationRejected => Reason::ClientConfigurationRejected,
        FailureCause::InsufficientScope => Reason::InsufficientScope,
        FailureCause::ProviderUnavailable => Reason::ProviderUnavailable,
        FailureCause::ProviderRateLimited => Reason::ProviderRateLimited,
        FailureCause::ProviderAnswerInvalid => Reason::ProviderAnswerInvalid,
        FailureCause::RefreshOutcomeUnknown => Reason::RefreshOutcomeUnknown,
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(text) | StoreError::Open(text) => Self::StoreUnavailable(text.into()),
            StoreError::Unreadable(text) => Self::RecordUnreadable(text.into()),
        }
    }
}
