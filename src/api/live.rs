//! The services as they are at the moment a call comes in. Policy, credentials and callers' own tokens change together,
//! between two calls and never during one: no call is permitted by the rules of yesterday and served with the credentials
//! of today.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    broker::Credential,
    identity::StaticToken,
    name::CredentialName,
    policy::Policy,
    proto::{
        CallThroughRequest, CallThroughResponse, DescribeGrantRequest, DescribeGrantResponse, GetTokenRequest,
        GetTokenResponse, ImportGrantRequest, ImportGrantResponse, InvalidateTokenRequest, InvalidateTokenResponse,
        ResealRecordsRequest, ResealRecordsResponse, grant_admin_server::GrantAdmin,
        token_service_server::TokenService,
    },
};

/// Serves both services, with what is in force.
#[derive(Clone)]
pub struct Live {
    now: Arc<ArcSwap<Api>>,
}

impl Live {
    /// Begins with this.
    pub fn new(api: Api) -> Self {
        Self { now: Arc::new(ArcSwap::from_pointee(api)) }
    }

    /// Puts other credentials, another policy and other tokens of callers in force, for calls that come in from now on.
    pub fn change(&self, credentials: BTreeMap<CredentialName, Credential>, policy: Policy, tokens: Vec<StaticToken>) {
        let old = self.now();
        let (broker, identity) = (old.broker.with_credentials(credentials), old.identity.with_tokens(tokens));
        self.now.store(Arc::new(Api { broker, identity, policy: Arc::new(policy), ..Api::clone(&old) }));
    }

    fn now(&self) -> Arc<Api> {
        self.now.load_full()
    }
}

#[tonic::async_trait]
impl TokenService for Live {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        self.now().get_token(request).await
    }

    async fn invalidate_token(
        &self,
        request: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        self.now().invalidate_token(request).await
    }

    async fn call_through(
        &self,
        request: Request<CallThroughRequest>,
    ) -> Result<Response<CallThroughResponse>, Status> {
        self.now().call_through(request).await
    }
}

#[tonic::async_trait]
impl GrantAdmin for Live {
    async fn import_grant(
        &self,
        request: Request<ImportGrantRequest>,
    ) -> Result<Response<ImportGrantResponse>, Status> {
        self.now().import_grant(request).await
    }

    async fn describe_grant(
        &self,
        request: Request<DescribeGrantRequest>,
    ) -> Result<Response<DescribeGrantResponse>, Status> {
        self.now().describe_grant(request).await
    }

    async fn reseal_records(
        &self,
        request: Request<ResealRecordsRequest>,
    ) -> Result<Response<ResealRecordsResponse>, Status> {
        self.now().reseal_records(request).await
    }
}
