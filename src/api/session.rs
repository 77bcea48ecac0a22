//! The services as one connection reaches them: what is in force when a call comes in, for whoever is at the other end.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Live,
    answer::{Answer, Use, Worked, answer},
    grants, retry, token,
};
use crate::{
    identity::Remote,
    proto::{
        CallThroughRequest, CallThroughResponse, DescribeGrantRequest, DescribeGrantResponse, GetTokenRequest,
        GetTokenResponse, ImportGrantRequest, ImportGrantResponse, InvalidateTokenRequest, InvalidateTokenResponse,
        ResealRecordsRequest, ResealRecordsResponse, RetryGrantRequest, RetryGrantResponse,
        grant_admin_server::GrantAdmin, token_service_server::TokenService,
    },
};

/// Serves both services to one connection.
#[derive(Clone)]
pub struct Session {
    live: Live,
    remote: Arc<Remote>,
}

impl Session {
    pub(super) fn new(live: Live, remote: Remote) -> Self {
        Self { live, remote: Arc::new(remote) }
    }

    fn answer<Q, A>(&self, rpc: &'static str, request: Request<Q>, work: fn(Use, Q) -> Worked<A>) -> Answer<A>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        answer(self.live.now(), &self.remote, rpc, request, work)
    }
}

#[tonic::async_trait]
impl TokenService for Session {
    /// Not `async`, because most answers are there at once: nothing has to be kept until somebody asks for them.
    fn get_token<'s, 'a>(&'s self, request: Request<GetTokenRequest>) -> Answer<GetTokenResponse>
    where
        's: 'a,
        Self: 'a,
    {
        self.answer("GetToken", request, token::get)
    }

    async fn invalidate_token(
        &self,
        request: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        self.answer("InvalidateToken", request, token::invalidate).await
    }

    async fn call_through(
        &self,
        request: Request<CallThroughRequest>,
    ) -> Result<Response<CallThroughResponse>, Status> {
        let holds = token::Holds::default();
        let request = request.map(|message| (message, Arc::clone(&holds)));
        let mut answer = self.answer("CallThrough", request, token::call_through).await?;
        if let Some(bodies) = holds.get() {
            answer.extensions_mut().insert(Arc::clone(bodies));
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl GrantAdmin for Session {
    async fn import_grant(
        &self,
        request: Request<ImportGrantRequest>,
    ) -> Result<Response<ImportGrantResponse>, Status> {
        self.answer("ImportGrant", request, grants::import).await
    }

    async fn describe_grant(
        &self,
        request: Request<DescribeGrantRequest>,
    ) -> Result<Response<DescribeGrantResponse>, Status> {
        self.answer("DescribeGrant", request, grants::describe).await
    }

    async fn retry_grant(&self, request: Request<RetryGrantRequest>) -> Result<Response<RetryGrantResponse>, Status> {
        self.answer("RetryGrant", request, retry::retry).await
    }

    async fn reseal_records(
        &self,
        request: Request<ResealRecordsRequest>,
    ) -> Result<Response<ResealRecordsResponse>, Status> {
        self.answer("ResealRecords", request, grants::reseal).await
    }
}
