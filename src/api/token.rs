//! `TokenService`: one method per rpc.

use std::time::Duration;

use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{Api, convert, status::Refusal};
use crate::{
    broker::{Call, Error, Outcome, Rejected, Replay, Report},
    policy::{self, Action, Called},
    proto::{
        CallThroughRequest, CallThroughResponse, GetTokenRequest, GetTokenResponse, Header, InvalidateTokenOutcome,
        InvalidateTokenRequest, InvalidateTokenResponse, Rejection, invalidate_token_request,
    },
    token::{Generation, Wanted},
};

impl Api {
    pub(super) async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        self.answer("GetToken", request, async |by, request| {
            let GetTokenRequest { credential, subject, scopes, resources, min_remaining, refused_generation } = request;
            let asked = convert::asked(Action::Get, (&credential, &subject), (scopes, resources))?;
            let permit = self.permit(&by, asked)?;
            let min_remaining = convert::span("min_remaining", min_remaining)?.unwrap_or(Duration::ZERO);
            let wanted = Wanted { refused: Generation::new(refused_generation), min_remaining };
            let served = match self.broker.at_hand(&permit, &wanted) {
                Some(served) => served,
                // Boxed, so that the many calls that need none of it do not carry its state about.
                None => Box::pin(self.broker.get_token(permit, wanted).instrument(by.span())).await?,
            };
            by.entry.used(served.token.generation.get());
            Ok(GetTokenResponse { token: Some(convert::token(&served)) })
        })
        .await
    }

    pub(super) async fn invalidate_token(
        &self,
        request: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        self.answer("InvalidateToken", request, async |by, request| {
            let InvalidateTokenRequest { credential, subject, scopes, resources, rejected, rejection } = request;
            let asked = convert::asked(Action::Invalidate, (&credential, &subject), (scopes, resources))?;
            let permit = self.permit(&by, asked)?;
            let report = report(rejected, rejection)?;
            let reported = self.broker.invalidate_token(permit, report).instrument(by.span()).await?;
            if let Some(served) = &reported.served {
                by.entry.used(served.token.generation.get());
            }
            Ok(InvalidateTokenResponse {
                outcome: outcome(reported.outcome).into(),
                token: reported.served.as_ref().map(convert::token),
                detail: reported.detail,
                next_attempt_at: reported.next_attempt_at.map(convert::timestamp),
            })
        })
        .await
    }

    pub(super) async fn call_through(
        &self,
        request: Request<CallThroughRequest>,
    ) -> Result<Response<CallThroughResponse>, Status> {
        self.answer("CallThrough", request, async |by, request| {
            let CallThroughRequest {
                credential,
                subject,
                scopes,
                resources,
                method,
                path,
                headers,
                body,
                timeout,
                replay,
            } = request;
            let asked = convert::asked(Action::Call, (&credential, &subject), (scopes, resources))?;
            let asked = policy::Request { call: Some(Called { method, path }), ..asked };
            let permit = self.permit(&by, asked)?;
            let call = Call {
                headers: headers.into_iter().map(|header| (header.name, header.value)).collect(),
                body,
                timeout: convert::span("timeout", timeout)?,
                replay: self::replay(replay)?,
            };
            let answered = self.broker.call_through(permit, call).instrument(by.span()).await?;
            by.entry.used(answered.token.generation.get());
            by.entry.answered(answered.answer.status, answered.attempts);
            let headers = answered.answer.headers.into_iter().map(|(name, value)| Header { name, value });
            Ok(CallThroughResponse {
                status: answered.answer.status.into(),
                headers: headers.collect(),
                body: answered.answer.body,
                generation: answered.token.generation.get(),
                attempts: answered.attempts,
                refreshed: answered.refreshed,
            })
        })
        .await
    }
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
