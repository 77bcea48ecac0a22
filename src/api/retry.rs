//! `RetryGrant`: one grant, or all dead grants of a credential, page by page. A page token carries all that a pass knows.

use super::{
    answer::{Use, Work, Worked},
    convert,
    status::{self, Refusal},
};
use crate::{
    broker::{Error, Retried, RetriedPage, RetryPage, RetryPosition},
    name::Subject,
    policy::{self, Action},
    proto::{RetriedGrant, RetryGrantRequest, RetryGrantResponse, RetryOutcome},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// How many grants are tried in a minute where the request does not say.
const PER_MINUTE: u32 = 60;

/// A page waits for its turns, so none may be far away.
const SLOWEST: u32 = 6;
const FASTEST: u32 = 600;

/// What a page token holds. It comes back from whoever may administer the credential, and leads to nothing but a place to go
/// on from.
#[derive(Serialize, Deserialize)]
struct Page {
    step: Option<String>,
    after: Option<String>,
}

pub(super) fn retry(by: Use, request: RetryGrantRequest) -> Worked<RetryGrantResponse> {
    let RetryGrantRequest { credential, subject, all, page_token, dry_run, per_minute } = request;
    let asked = convert::asked(Action::Administer, (&credential, &subject), (Vec::new(), Vec::new()))?;
    let permit = by.permit(asked.clone())?;
    if !all {
        return Work::going(by.span(&permit), async move {
            let retried = by.api.broker.retry_grant(permit, dry_run).await?;
            if let Retried::Revived(generation) = retried {
                by.entry.used(generation.get());
            }
            let grants = vec![shown(Some(asked.subject), retried)];
            Ok(RetryGrantResponse { grants, next_page_token: String::new() })
        });
    }
    if !subject.is_empty() {
        return Err(Error::InvalidRequest { field: "subject", problem: "must be empty with all".to_owned() }.into());
    }
    let page = RetryPage { from: position(&page_token)?, dry_run, per_minute: rate(per_minute)? };
    Work::going(by.span(&permit), async move {
        let may = |subject: &Subject| by.allows(policy::Request { subject: subject.clone(), ..asked.clone() });
        let retried = by.api.broker.retry_dead_grants(&permit, page, may).await?;
        Ok(paged(retried))
    })
}

fn rate(per_minute: u32) -> Result<u32, Refusal> {
    match per_minute {
        0 => Ok(PER_MINUTE),
        SLOWEST..=FASTEST => Ok(per_minute),
        _ => {
            let problem = format!("is from {SLOWEST} to {FASTEST}");
            Err(Error::InvalidRequest { field: "per_minute", problem }.into())
        }
    }
}

fn position(page_token: &str) -> Result<RetryPosition, Refusal> {
    if page_token.is_empty() {
        return Ok(RetryPosition::default());
    }
    let page = URL_SAFE_NO_PAD.decode(page_token).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let Page { step, after } = page.ok_or_else(|| Error::InvalidRequest {
        field: "page_token",
        problem: "was not given by this rpc; leave it empty for the first page".to_owned(),
    })?;
    Ok(RetryPosition { step, after })
}

fn paged(page: RetriedPage) -> RetryGrantResponse {
    let grants = page.grants.into_iter().map(|(subject, retried)| shown(subject, retried)).collect();
    // Strings always make JSON.
    let token = |RetryPosition { step, after }| {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Page { step, after }).unwrap_or_default())
    };
    RetryGrantResponse { grants, next_page_token: page.next.map(token).unwrap_or_default() }
}

fn shown(subject: Option<Subject>, retried: Retried) -> RetriedGrant {
    let (outcome, generation, reason) = match retried {
        Retried::Revived(generation) => (RetryOutcome::Revived, generation.get(), ""),
        Retried::StillDead(cause) => (RetryOutcome::StillDead, 0, cause.word()),
        Retried::NotDead => (RetryOutcome::NotDead, 0, ""),
        Retried::WouldRetry(cause) => (RetryOutcome::WouldRetry, 0, cause.word()),
        Retried::LeftOut(cause) => (RetryOutcome::LeftOut, 0, cause.word()),
        Retried::Failed(error) => (RetryOutcome::Failed, 0, status::word(error.reason())),
    };
    RetriedGrant {
        subject_unknown: subject.is_none(),
        subject: subject.map(|subject| subject.as_str().to_owned()).unwrap_or_default(),
        outcome: outcome.into(),
        generation,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_back_and_a_forged_one_refused() {
        let next = RetryPosition { step: Some("7 1 3".to_owned()), after: Some("crm/a".to_owned()) };
        let token = paged(RetriedPage { grants: Vec::new(), next: Some(next.clone()) }).next_page_token;
        assert_eq!(position(&token).unwrap(), next);
        assert_eq!(position("").unwrap(), RetryPosition::default());
        for forged in ["x", "!", "W10"] {
            assert!(position(forged).is_err(), "{forged}");
        }
    }

    #[test]
    fn a_rate_is_bounded() {
        for (asked, rated) in [(0, Some(60)), (5, None), (6, Some(6)), (600, Some(600)), (601, None)] {
            assert_eq!(rate(asked).ok(), rated, "{asked}");
        }
    }
}
