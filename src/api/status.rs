//! Errors as callers see them: one exhaustive match from reason to code and fixed text, with `google.rpc` details.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::{
    broker::{Answered, Error, Reason},
    failure::FailureCause,
    identity::IdentityError,
    limit::Excess,
    policy::Denied,
    proto::{CallThroughResponse, Header},
    trace::TraceId,
    upstream::{AnswerProblem, UpstreamError},
};

/// Why an rpc has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The proof of who calls does not hold.
    #[error("the caller is not known: {0}")]
    Unproven(#[from] IdentityError),
    /// The policy does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It came when enough was under way, or too soon after others of the same caller.
    #[error(transparent)]
    Overloaded(#[from] Excess),
    /// Its record could not be written.
    #[error("the audit log cannot be written, and audit.on_failure is \"refuse\"")]
    Unaudited,
    /// The broker could not.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Refusal {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Unproven(_) => Reason::CallerUnauthenticated,
            Self::Denied(_) => Reason::CallerNotAllowed,
            Self::Overloaded(_) | Self::Unaudited => Reason::Overloaded,
            Self::Failed(error) => error.reason(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unproven(_) | Self::Denied(_) => None,
            Self::Overloaded(Excess(wait)) => Some(*wait),
            Self::Unaudited => Some(AUDIT_RETRY),
            Self::Failed(error) => error.retry_after(),
        }
    }
}

/// What a caller is told to wait while the audit log cannot be written.
const AUDIT_RETRY: Duration = Duration::from_secs(1);

/// The domain of all reasons.
const DOMAIN: &str = "bearerd";

/// The most bytes of an upstream's fields in a status: it travels in trailers, which clients limit to 8 KiB and more.
const MAX_FIELDS: usize = 3 * 1024;

/// The status of a refusal: fixed text, exactly one `ErrorInfo`, and `RetryInfo` where a wait is known.
pub(super) fn of(refusal: &Refusal, trace: TraceId) -> Status {
    let reason = refusal.reason();
    let mut metadata = HashMap::from([("trace_id".to_owned(), trace.to_string())]);
    let mut details = ErrorDetails::new();
    let mut message = text(reason).to_owned();
    match refusal {
        Refusal::Failed(error @ Error::InvalidRequest { field, problem }) => {
            details.add_bad_request_violation(*field, problem.clone());
            message = format!("{message}: {error}");
        }
        Refusal::Failed(Error::Target(problem)) => {
            details.add_bad_request_violation(problem.field(), problem.to_string());
            message = format!("{message}: {problem}");
        }
        Refusal::Failed(Error::Failed { cause: FailureCause::RefreshOutcomeLost, .. }) => {
            metadata.insert("cause".to_owned(), FailureCause::RefreshOutcomeLost.word().to_owned());
        }
        Refusal::Failed(Error::ImportRefused { cause, .. }) => {
            metadata.insert("cause".to_owned(), cause.word().to_owned());
            message = format!("the imported refresh token was not stored: {}", import_refused(*cause, reason));
        }
        Refusal::Failed(Error::ImportUnanswered { .. }) => message = IMPORT_UNANSWERED.to_owned(),
        Refusal::Failed(Error::Upstream(error)) => {
            metadata.extend(upstream_cause(error).map(|word| ("cause".to_owned(), word.to_owned())));
        }
        Refusal::Failed(Error::NoBody { problem, answered }) => {
            metadata.insert("cause".to_owned(), cause(problem).to_owned());
            metadata.insert("http_status".to_owned(), answered.answer.status.to_string());
        }
        Refusal::Failed(Error::NoGrant) => {
            metadata.insert("cause".to_owned(), "GRANT_NOT_FOUND".to_owned());
            message = "no grant is stored for this subject; import one".to_owned();
        }
        Refusal::Unproven(_)
        | Refusal::Denied(_)
        | Refusal::Overloaded(_)
        | Refusal::Unaudited
        | Refusal::Failed(
            Error::CredentialNotFound
            | Error::Failed { .. }
            | Error::RejectedRepeatedly { .. }
            | Error::RefreshInProgress { .. }
            | Error::StoreUnavailable(_)
            | Error::RecordUnreadable(_)
            | Error::ScopesNotCovered(_),
        ) => {}
    }
    details.set_error_info(word(reason), DOMAIN, metadata);
    if let Some(wait) = refusal.retry_after() {
        details.set_retry_info(Some(wait));
    }
    let status = Status::with_error_details(code(reason), message, details);
    match refusal {
        Refusal::Failed(Error::NoBody { problem: _, answered }) => with_answer(&status, answered),
        Refusal::Failed(_)
        | Refusal::Unproven(_)
        | Refusal::Denied(_)
        | Refusal::Overloaded(_)
        | Refusal::Unaudited => status,
    }
}

const ANSWER_TYPE: &str = "type.googleapis.com/bearerd.v1.CallThroughResponse";

const TIMED_OUT: &str = "TIMED_OUT";

/// The word for why there is no answer, where the upstream may have acted.
const fn upstream_cause(error: &UpstreamError) -> Option<&'static str> {
    match error {
        UpstreamError::TimedOut => Some(TIMED_OUT),
        UpstreamError::Broken(_) => Some("CONNECTION_BROKEN"),
        UpstreamError::NotAllowed(_) | UpstreamError::Unreachable(_) => None,
    }
}

/// The word for why an answer has no body.
const fn cause(problem: &AnswerProblem) -> &'static str {
    match problem {
        AnswerProblem::TooLarge(_) => "BODY_TOO_LARGE",
        AnswerProblem::Incomplete(_) => "BODY_INCOMPLETE",
        AnswerProblem::NoRoom => "BODY_REFUSED",
        AnswerProblem::TimedOut => TIMED_OUT,
        AnswerProblem::Undecodable(_) => "BODY_UNDECODABLE",
    }
}

/// The status with one more detail: the answer without its body, and with as many fields as there is room for.
fn with_answer(status: &Status, answered: &Answered) -> Status {
    let mut room = MAX_FIELDS;
    let fitting = answered.answer.headers.iter().filter(|(name, value)| {
        let left = room.checked_sub(name.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    });
    let answer = CallThroughResponse {
        status: answered.answer.status.into(),
        headers: fitting.map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect(),
        generation: answered.token.generation.get(),
        attempts: answered.attempts,
        refreshed: answered.refreshed,
        ..CallThroughResponse::default()
    };
    // What was encoded by `Status::with_error_details` is read back.
    let Ok(mut whole) = pb::Status::decode(status.details()) else { return status.clone() };
    whole.details.push(Any { type_url: ANSWER_TYPE.to_owned(), value: answer.encode_to_vec() });
    Status::with_details(status.code(), status.message(), whole.encode_to_vec().into())
}

const IMPORT_UNANSWERED: &str = "the provider did not answer about the imported refresh token; it and the former grant are \
                                 kept, and bearerd tries the imported one first when a token is needed";

/// What an operator is told of an import that failed. The former grant is as it was.
fn import_refused(cause: FailureCause, reason: Reason) -> &'static str {
    match cause {
        FailureCause::ReauthorizationRequired | FailureCause::RefreshOutcomeLost => "the provider refuses it",
        FailureCause::ClientConfigurationRejected
        | FailureCause::InsufficientScope
        | FailureCause::ProviderUnavailable
        | FailureCause::ProviderRateLimited
        | FailureCause::ProviderAnswerInvalid
        | FailureCause::RefreshOutcomeUnknown => text(reason),
    }
}

/// The reason as it stands in `ErrorInfo`, logs and metrics.
pub(super) const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::CallerUnauthenticated => "CALLER_UNAUTHENTICATED",
        Reason::CallerNotAllowed => "CALLER_NOT_ALLOWED",
        Reason::CredentialNotFound => "CREDENTIAL_NOT_FOUND",
        Reason::InvalidRequest => "INVALID_REQUEST",
        Reason::InvalidTarget => "INVALID_TARGET",
        Reason::TargetNotAllowed => "TARGET_NOT_ALLOWED",
        Reason::ReauthorizationRequired => "REAUTHORIZATION_REQUIRED",
        Reason::ClientConfigurationRejected => "CLIENT_CONFIGURATION_REJECTED",
        Reason::InsufficientScope => "INSUFFICIENT_SCOPE",
        Reason::TokenRejectedRepeatedly => "TOKEN_REJECTED_REPEATEDLY",
        Reason::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
        Reason::ProviderRateLimited => "PROVIDER_RATE_LIMITED",
        Reason::ProviderAnswerInvalid => "PROVIDER_ANSWER_INVALID",
        Reason::RefreshInProgress => "REFRESH_IN_PROGRESS",
        Reason::RefreshOutcomeUnknown => "REFRESH_OUTCOME_UNKNOWN",
        Reason::StoreUnavailable => "STORE_UNAVAILABLE",
        Reason::RecordUnreadable => "RECORD_UNREADABLE",
        Reason::UpstreamUnreachable => "UPSTREAM_UNREACHABLE",
        Reason::UpstreamNoAnswer => "UPSTREAM_NO_ANSWER",
        Reason::UpstreamAnswerTooLarge => "UPSTREAM_ANSWER_TOO_LARGE",
        Reason::Overloaded => "OVERLOADED",
    }
}

/// Only UNAVAILABLE means that the same call may simply be repeated (AIP-194).
const fn code(reason: Reason) -> Code {
    match reason {
        Reason::CallerUnauthenticated => Code::Unauthenticated,
        Reason::CallerNotAllowed | Reason::TargetNotAllowed => Code::PermissionDenied,
        Reason::CredentialNotFound => Code::NotFound,
        Reason::InvalidRequest | Reason::InvalidTarget => Code::InvalidArgument,
        Reason::ReauthorizationRequired
        | Reason::ClientConfigurationRejected
        | Reason::InsufficientScope
        | Reason::TokenRejectedRepeatedly => Code::FailedPrecondition,
        Reason::ProviderRateLimited | Reason::UpstreamAnswerTooLarge | Reason::Overloaded => Code::ResourceExhausted,
        Reason::ProviderUnavailable
        | Reason::ProviderAnswerInvalid
        | Reason::RefreshInProgress
        | Reason::RefreshOutcomeUnknown
        | Reason::StoreUnavailable
        | Reason::UpstreamUnreachable => Code::Unavailable,
        // The upstream may have acted on the call, which is what this code says, so it must not be repeated blindly.
        Reason::UpstreamNoAnswer => Code::DeadlineExceeded,
        Reason::RecordUnreadable => Code::DataLoss,
    }
}

const fn text(reason: Reason) -> &'static str {
    match reason {
        Reason::CallerUnauthenticated => "invalid or expired caller credentials",
        Reason::CallerNotAllowed => "no policy row lets this caller do this",
        Reason::CredentialNotFound => "no credential of this name is configured",
        Reason::InvalidRequest => "the request cannot be carried out",
        Reason::InvalidTarget => "the call's target is malformed",
        Reason::TargetNotAllowed => "the call's target is not allowed",
        Reason::ReauthorizationRequired => "the grant has ended; import a new one",
        Reason::ClientConfigurationRejected => "the provider or upstream does not accept what is configured here",
        Reason::InsufficientScope => "the provider does not grant these scopes",
        Reason::TokenRejectedRepeatedly => "the upstream rejects even fresh tokens; the next one is asked for later",
        Reason::ProviderUnavailable => "the provider is unavailable",
        Reason::ProviderRateLimited => "the provider is rate-limiting this client",
        Reason::ProviderAnswerInvalid => "the provider's answer cannot be used",
        Reason::RefreshInProgress => "another replica is refreshing this token",
        Reason::RefreshOutcomeUnknown => "a refresh went unanswered and is being settled",
        Reason::StoreUnavailable => "the store is unavailable",
        Reason::RecordUnreadable => "a stored record cannot be read",
        Reason::UpstreamUnreachable => "the upstream cannot be reached, or did not process the request",
        Reason::UpstreamNoAnswer => "the upstream gave no complete answer; it may have acted on the request",
        Reason::UpstreamAnswerTooLarge => "the upstream's answer is larger than allowed",
        Reason::Overloaded => "too many requests; retry later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_and_a_cause_are_told_and_nothing_else_of_the_inside() {
        let error = Error::Failed { cause: FailureCause::RefreshOutcomeLost, retry_after: None };
        let status = of(&Refusal::Failed(error), TraceId::random());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("REAUTHORIZATION_REQUIRED", "bearerd"));
        assert_eq!(info.metadata["cause"], "REFRESH_OUTCOME_LOST");
        assert!(status.get_details_retry_info().is_none());

        let error = Error::StoreUnavailable("redis at 10.0.0.1 said no".into());
        let status = of(&Refusal::Failed(error), TraceId::random());
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
        assert!(!status.message().contains("10.0.0.1"));
    }
}
