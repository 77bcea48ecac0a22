//! `TokenService`: one method per rpc.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{Api, convert, status::Refusal};
use crate::{
    broker::{Ask, Call, Error, Outcome, Rejected, Replay, Report},
    policy::Action,
    proto::{
        CallThroughRequest, CallThroughResponse, GetTokenRequest, GetTokenResponse, Header, InvalidateTokenOutcome,
        InvalidateTokenRequest, InvalidateTokenResponse, invalidate_token_request, token_service_server::TokenService,
    },
    token::{Generation, Wanted},
};

#[tonic::async_trait]
impl TokenService for Api {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        self.answer("GetToken", request, async |caller, request| {
            let permit = self.permit(&caller, Action::Get, &request.credential, &request.subject)?;
            let served = self.broker.get_token(&permit, ask(request)?).await?;
            Ok(GetTokenResponse { token: Some(convert::token(&served)) })
        })
        .await
    }

    async fn invalidate_token(
        &self,
        request: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        self.answer("InvalidateToken", request, async |caller, request| {
            let permit = self.permit(&caller, Action::Invalidate, &request.credential, &request.subject)?;
            let reported = self.broker.invalidate_token(&permit, report(request)?).await?;
            Ok(InvalidateTokenResponse {
                outcome: outcome(reported.outcome).into(),
                token: reported.served.as_ref().map(convert::token),
                detail: reported.detail,
                next_attempt_at: reported.next_attempt_at.map(convert::timestamp),
            })
        })
        .await
    }

    async fn call_through(
        &self,
        request: Request<CallThroughRequest>,
    ) -> Result<Response<CallThroughResponse>, Status> {
        self.answer("CallThrough", request, async |caller, request| {
            let permit = self.permit(&caller, Action::Call, &request.credential, &request.subject)?;
            let answered = self.broker.call_through(&permit, call(request)?).await?;
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

fn ask(request: GetTokenRequest) -> Result<Ask, Refusal> {
    Ok(Ask {
        scopes: convert::scopes(request.scopes)?,
        resources: convert::resources(request.resources)?,
        wanted: Wanted {
            refused: Generation::new(request.refused_generation),
            min_remaining: convert::span("min_remaining", request.min_remaining)?.unwrap_or(Duration::ZERO),
        },
    })
}

fn report(request: InvalidateTokenRequest) -> Result<Report, Refusal> {
    let rejected = match request.rejected {
        Some(invalidate_token_request::Rejected::Generation(number)) => Rejected::Generation(Generation::new(number)),
        Some(invalidate_token_request::Rejected::AccessToken(token)) => Rejected::AccessToken(token.into()),
        None => {
            let problem = "name the rejected token: by generation, or by access_token".to_owned();
            return Err(Error::InvalidRequest { field: "rejected", problem }.into());
        }
    };
    Ok(Report {
        scopes: convert::scopes(request.scopes)?,
        resources: convert::resources(request.resources)?,
        rejected,
        evidence: request.rejection.map(convert::evidence).transpose()?,
    })
}

fn outcome(outcome: Outcome) -> InvalidateTokenOutcome {
    match outcome {
        Outcome::Refreshed => InvalidateTokenOutcome::Refreshed,
        Outcome::AlreadyReplaced => InvalidateTokenOutcome::AlreadyReplaced,
        Outcome::NotATokenRejection => InvalidateTokenOutcome::NotATokenRejection,
        Outcome::HeldBack(_) => InvalidateTokenOutcome::HeldBack,
    }
}

fn call(request: CallThroughRequest) -> Result<Call, Refusal> {
    use crate::proto::Replay as Wire;
    let replay = match Wire::try_from(request.replay) {
        Ok(Wire::Unspecified | Wire::Default) => Replay::AfterRejection,
        Ok(Wire::Never) => Replay::Never,
        Err(_) => {
            let problem = "no such value; REPLAY_DEFAULT and REPLAY_NEVER exist".to_owned();
            return Err(Error::InvalidRequest { field: "replay", problem }.into());
        }
    };
    Ok(Call {
        scopes: convert::scopes(request.scopes)?,
        resources: convert::resources(request.resources)?,
        method: request.method,
        path: request.path,
        headers: request.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        body: request.body,
        timeout: convert::span("timeout", request.timeout)?,
        replay,
    })
}
