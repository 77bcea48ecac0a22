//! `TokenService`: one function per rpc.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    answer::{Use, Work, Worked},
    convert,
    status::Refusal,
};
use crate::{
    broker::{Answered, Call, Error, Outcome, Rejected, Replay, Report, Reported, Served},
    limit::Bodies,
    policy::{self, Action, Called, GrantedLimit},
    proto::{
        CallThroughRequest, CallThroughResponse, GetTokenRequest, GetTokenResponse, Header, InvalidateTokenOutcome,
        InvalidateTokenRequest, InvalidateTokenResponse, Rejection, invalidate_token_request,
    },
    token::{Generation, Token, Wanted},
};

pub(super) fn get(by: Use, request: GetTokenRequest) -> Worked<GetTokenResponse> {
    let GetTokenRequest { credential, subject, scopes, resources, min_remaining, refused_generation } = request;
    let asked = convert::asked(Action::Get, (&credential, &subject), (scopes, resources))?;
    // To refuse a generation is to report it.
    let reports = (refused_generation > 0).then(|| policy::Request { action: Action::Invalidate, ..asked.clone() });
    let permit = by.permit(asked)?;
    if let Some(Err(denied)) = reports.map(|asked| by.may(asked)) {
        return Err(by.denied(denied, Action::Invalidate, permit.grant()));
    }
    let min_remaining = convert::span("min_remaining", min_remaining)?.unwrap_or(Duration::ZERO);
    let wanted = Wanted { refused: Generation::new(refused_generation), min_remaining };
    if let Some(answer) = by.api.broker.at_hand(&permit, &wanted, |served| got(&by, served)) {
        return Ok(Work::Done(answer));
    }
    Work::going(by.span(&permit), async move {
        let served = by.api.broker.get_token(permit, wanted).await?;
        Ok(got(&by, &served))
    })
}

pub(super) fn invalidate(by: Use, request: InvalidateTokenRequest) -> Worked<InvalidateTokenResponse> {
    let InvalidateTokenRequest { credential, subject, scopes, resources, rejected, rejection } = request;
    let asked = convert::asked(Action::Invalidate, (&credential, &subject), (scopes, resources))?;
    let may_see = by.may(policy::Request { action: Action::Get, ..asked.clone() }).ok();
    let permit = by.permit(asked)?;
    let report = report(rejected, rejection)?;
    Work::going(by.span(&permit), async move {
        let reported = by.api.broker.invalidate_token(permit, report).await?;
        Ok(invalidated(&by, reported, may_see))
    })
}

/// What the bodies of a call hold, for whoever sends the answer: they are given back when it was sent.
pub(super) type Holds = Arc<OnceLock<Arc<Bodies>>>;

pub(super) fn call_through(by: Use, (request, holds): (CallThroughRequest, Holds)) -> Worked<CallThroughResponse> {
    let CallThroughRequest { credential, subject, scopes, resources, method, path, headers, body, timeout, replay } =
        request;
    let asked = convert::asked(Action::Call, (&credential, &subject), (scopes, resources))?;
    let asked = policy::Request { call: Some(Called { method, path }), ..asked };
    let permit = by.permit(asked)?;
    let bodies = Arc::clone(holds.get_or_init(|| Arc::new(by.bodies())));
    bodies.hold(body.len())?;
    let call = Call {
        bodies,
        headers: headers.into_iter().map(|header| (header.name, header.value)).collect(),
        body,
        timeout: convert::span("timeout", timeout)?,
        replay: self::replay(replay)?,
    };
    Work::going(by.span(&permit), async move {
        let answered = by.api.broker.call_through(permit, call).await?;
        Ok(called(&by, answered))
    })
}

fn got<T: Deref<Target = Token>>(by: &Use, served: &Served<T>) -> GetTokenResponse {
    by.entry.used(served.token.generation.get());
    GetTokenResponse { token: Some(convert::token(served)) }
}

/// A report alone gives no token: whoever may not get it learns its generation.
fn invalidated(by: &Use, reported: Reported, may_see: Option<GrantedLimit>) -> InvalidateTokenResponse {
    if let Some(served) = &reported.served {
        by.entry.used(served.token.generation.get());
    }
    let covered = |served: &&Served| may_see.is_some_and(|limit| limit.beyond(&served.token.scopes).is_empty());
    InvalidateTokenResponse {
        outcome: outcome(reported.outcome).into(),
        token: reported.served.as_ref().filter(covered).map(convert::token),
        generation: reported.generation.get(),
        detail: reported.detail,
        next_attempt_at: reported.next_attempt_at.map(convert::timestamp),
    }
}

fn called(by: &Use, answered: Answered) -> CallThroughResponse {
    by.entry.used(answered.token.generation.get());
    by.entry.answered(answered.answer.status, answered.attempts);
    CallThroughResponse {
        status: answered.answer.status.into(),
        headers: fields(answered.answer.headers),
        trailers: fields(answered.answer.trailers),
        body: answered.answer.body,
        generation: answered.token.generation.get(),
        attempts: answered.attempts,
        refreshed: answered.refreshed,
    }
}

fn fields(fields: Vec<(String, String)>) -> Vec<Header> {
    fields.into_iter().map(|(name, value)| Header { name, value }).collect()
}

fn report(
    rejected: Option<invalidate_token_request::Rejected>,
    evidence: Option<Rejection>,
) -> Result<Report, Refusal> {
    let rejected = match rejected {
        Some(invalidate_token_request::Rejected::Generation(number)) => Rejected::Generation(Generation::new(number)),
        Some(invalidate_token_request::Rejected::AccessToken(token)) => Rejected::AccessToken(token.into()),
        None => {
            let problem = "name the rejected token: by generation, or by access_token".to_owned();
            return Err(Error::InvalidRequest { field: "rejected", problem }.into());
        }
    };
    Ok(Report { rejected, evidence: evidence.map(convert::evidence).transpose()? })
}

fn outcome(outcome: Outcome) -> InvalidateTokenOutcome {
    match outcome {
        Outcome::Refreshed => InvalidateTokenOutcome::Refreshed,
        Outcome::AlreadyReplaced => InvalidateTokenOutcome::AlreadyReplaced,
        Outcome::NotATokenRejection => InvalidateTokenOutcome::NotATokenRejection,
        Outcome::HeldBack(_) => InvalidateTokenOutcome::HeldBack,
    }
}

fn replay(number: i32) -> Result<Replay, Refusal> {
    use crate::proto::Replay as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified | Wire::Default) => Ok(Replay::AfterRejection),
        Ok(Wire::Never) => Ok(Replay::Never),
        Err(_) => {
            let problem = "no such value; REPLAY_DEFAULT and REPLAY_NEVER exist".to_owned();
            Err(Error::InvalidRequest { field: "replay", problem }.into())
        }
    }
}
