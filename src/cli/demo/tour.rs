//! The tour: its steps in order, and what they share.

use std::time::Duration;

use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use super::{
    super::output::{Exit, Failure},
    Saw, Surprise, ensure,
    show::Show,
    stage::{DEMO, Stage},
};
use crate::{
    proto::{
        GetTokenRequest, InvalidateTokenRequest, InvalidateTokenResponse, Token, grant_admin_client::GrantAdminClient,
        token_service_client::TokenServiceClient,
    },
    sandbox::Sandbox,
};

mod calls;
mod grants;
mod reports;
mod tokens;

/// How many connections the crowd of callers comes on: a pod here and there, each with many requests under way.
const CONNECTIONS: usize = 20;

/// Nothing in the tour takes nearly as long.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The tour, with its clients and what its callers remember from one step to the next.
pub struct Tour<'a> {
    stage: &'a Stage,
    tokens: TokenServiceClient<Channel>,
    grants: GrantAdminClient<Channel>,
    crowd: Vec<TokenServiceClient<Channel>>,
    /// The token that a caller of [`DEMO`] holds.
    held: Token,
    /// The generation of the one before.
    rejected: u64,
    /// The first refresh token of a person, and the generation of the token that came of it.
    ada: (String, u64),
}

impl<'a> Tour<'a> {
    /// Connects everybody.
    pub async fn begin(stage: &'a Stage) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{}", stage.grpc())).map_err(unconnected)?.timeout(TIMEOUT);
        let channel = endpoint.connect().await.map_err(unconnected)?;
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS {
            crowd.push(TokenServiceClient::new(endpoint.connect().await.map_err(unconnected)?));
        }
        let (tokens, grants) = (TokenServiceClient::new(channel.clone()), GrantAdminClient::new(channel));
        Ok(Self { stage, tokens, grants, crowd, held: Token::default(), rejected: 0, ada: (String::new(), 0) })
    }

    /// Walks through all steps.
    pub async fn walk(mut self, show: &mut Show<'_, '_>) -> Result<(), Failure> {
        show.step("GetToken", self.first_token()).await?;
        show.step("GetToken, 200 times more", self.same_token()).await?;
        show.step("a token of 4 s runs out while it is used", self.replaced_ahead()).await?;

        show.step("the API answers 401: InvalidateToken", self.reported()).await?;
        show.step("a late report of the same old token", self.reported_late()).await?;
        show.step("200 callers report one token at once", self.storm()).await?;
        show.step("the refresh tokens so far", self.rotation()).await?;

        show.step("CallThrough GET /echo", self.call()).await?;
        show.step("all tokens revoked; CallThrough GET /hello", self.call_after_revocation()).await?;
        show.step("CallThrough GET /admin", self.call_beyond_scope()).await?;
        show.step("CallThrough GET /key", self.call_with_api_key()).await?;

        show.step("ImportGrant for ada, GetToken for ada", self.handed_over()).await?;
        show.step("a thief uses ada's first refresh token", self.stolen()).await?;
        show.step("ada consents anew: ImportGrant, GetToken", self.handed_over_again()).await
    }

    async fn get(&mut self, request: GetTokenRequest) -> Result<Token, Surprise> {
        let answer = self.tokens.get_token(request).await?.into_inner();
        the_token(answer.token)
    }

    /// How often the provider of [`DEMO`] was asked while a step did what it does.
    fn asked(&self, journal: Journal, times: u64) -> Result<u64, Surprise> {
        journal.grew_by(&self.stage.sandbox, times)
    }

    fn journal(&self) -> Journal {
        Journal::of(&self.stage.sandbox)
    }
}

/// How long a provider's journal was.
struct Journal(u64);

impl Journal {
    fn of(sandbox: &Sandbox) -> Self {
        Self(sandbox.journal().last().map_or(0, |entry| entry.sequence))
    }

    fn grew_by(&self, sandbox: &Sandbox, times: u64) -> Result<u64, Surprise> {
        let asked = Self::of(sandbox).0 - self.0;
        ensure(asked == times, &format!("{times} requests to the provider"), || asked.to_string())?;
        Ok(asked)
    }
}

impl Saw {
    fn new(asked: u64, saw: impl Into<String>, facts: Value) -> Self {
        Self { asked, saw: saw.into(), facts }
    }
}

fn demo() -> GetTokenRequest {
    GetTokenRequest { credential: DEMO.to_owned(), ..GetTokenRequest::default() }
}

fn the_token(token: Option<Token>) -> Result<Token, Surprise> {
    token.ok_or_else(|| Surprise::Unexpected { expected: "a token".to_owned(), got: "none".to_owned() })
}

async fn invalidate(
    mut client: TokenServiceClient<Channel>,
    request: InvalidateTokenRequest,
) -> Result<InvalidateTokenResponse, Surprise> {
    Ok(client.invalidate_token(request).await?.into_inner())
}

fn ensure_newer(newer: u64, older: u64) -> Result<(), Surprise> {
    ensure(newer > older, "a newer generation", || format!("{newer} after {older}"))
}

fn ensure_status(got: impl Into<u32>, expected: u32) -> Result<(), Surprise> {
    let got = got.into();
    ensure(got == expected, &format!("status {expected}"), || got.to_string())
}

fn unconnected(error: tonic::transport::Error) -> Failure {
    Failure::new(Exit::Failure, format!("the demonstration cannot reach its own bearerd: {error}"))
}
