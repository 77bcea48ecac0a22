//! Steps with `InvalidateToken`: a rejected token, a late report, a crowd, and what the provider saw of it all.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use serde_json::json;

use super::{
    super::{show::short, stage::DEMO, wire},
    Saw, Surprise, Tour, ensure, ensure_newer, ensure_status, invalidate, the_token,
};
use crate::{
    proto::{
        InvalidateTokenOutcome, InvalidateTokenRequest, InvalidateTokenResponse, Rejection,
        invalidate_token_request::Rejected,
    },
    sandbox::{Outcome, Presented},
};

/// How many callers report one token at once.
const CROWD: usize = 200;

impl Tour<'_> {
    pub(super) async fn reported(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        ensure_status(self.hello().await?.status, 200)?;
        self.stage.sandbox.revoke_access_tokens();
        let refused = self.hello().await?;
        ensure_status(refused.status, 401)?;
        let evidence =
            Rejection { http_status: refused.status.into(), www_authenticate: refused.challenges, body: refused.body };
        let request = InvalidateTokenRequest { rejection: Some(evidence), ..report(self.held.generation) };
        let answer = invalidate(self.tokens.clone(), request).await?;
        ensure_outcome(&answer, InvalidateTokenOutcome::Refreshed)?;
        let token = the_token(answer.token)?;
        ensure_newer(token.generation, self.held.generation)?;
        self.rejected = self.held.generation;
        self.held = token;
        ensure_status(self.hello().await?.status, 200)?;
        let (asked, generation) = (self.asked(journal, 1)?, self.held.generation);
        let saw = format!("REFRESHED: generation {}, and the API answers 200", short(generation));
        let facts = json!({ "outcome": "refreshed", "generation": generation, "rejected": self.rejected });
        Ok(Saw::new(asked, saw, facts))
    }

    pub(super) async fn reported_late(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        let answer = invalidate(self.tokens.clone(), report(self.rejected)).await?;
        ensure_outcome(&answer, InvalidateTokenOutcome::AlreadyReplaced)?;
        let generation = the_token(answer.token)?.generation;
        ensure(generation == self.held.generation, "the current token", || generation.to_string())?;
        let asked = self.asked(journal, 0)?;
        let saw = format!("ALREADY_REPLACED: here is generation {}", short(generation));
        Ok(Saw::new(asked, saw, json!({ "outcome": "already_replaced", "generation": generation })))
    }

    pub(super) async fn storm(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        self.stage.sandbox.revoke_access_tokens();
        let reports = self.crowd.iter().cycle().take(CROWD);
        let reports = reports.map(|caller| invalidate(caller.clone(), report(self.held.generation)));
        let answers = try_join_all(reports).await?;
        let asked = self.asked(journal, 1)?;
        let fresh = |answer: &&InvalidateTokenResponse| answer.outcome() == InvalidateTokenOutcome::Refreshed;
        let (refreshed, callers) = (answers.iter().filter(fresh).count(), answers.len());
        let tokens = answers.into_iter().map(|answer| the_token(answer.token)).collect::<Result<Vec<_>, _>>()?;
        let generations: BTreeSet<u64> = tokens.iter().map(|token| token.generation).collect();
        ensure(generations.len() == 1, "one generation for everybody", || format!("{generations:?}"))?;
        let token = the_token(tokens.into_iter().next())?;
        ensure_newer(token.generation, self.held.generation)?;
        let saw = format!("one refresh for all: {callers} callers hold generation {}", short(token.generation));
        let facts = json!({ "callers": callers, "refreshed": refreshed, "generation": token.generation });
        self.held = token;
        Ok(Saw::new(asked, saw, facts))
    }

    pub(super) async fn rotation(&mut self) -> Result<Saw, Surprise> {
        let entries = self.stage.sandbox.journal();
        let presented: Vec<Presented> = entries.iter().filter_map(|entry| entry.presented).collect();
        let distinct = presented.iter().collect::<BTreeSet<_>>().len();
        ensure(distinct == entries.len(), "each refresh token used once", || format!("{presented:?}"))?;
        let issued = entries.iter().all(|entry| entry.outcome == Outcome::Issued);
        let alive = self.stage.sandbox.family_alive(&self.stage.first_refresh_token);
        ensure(issued && alive, "a living grant", || "one that the provider ended".to_owned())?;
        let saw = format!("{distinct} used, each once; a second use would have ended the grant");
        Ok(Saw::new(0, saw, json!({ "used": distinct, "uses": entries.len(), "grant_alive": alive })))
    }

    /// The API, called by somebody who holds the token.
    async fn hello(&self) -> Result<wire::Answer, Surprise> {
        wire::get(&format!("{}/hello", self.stage.sandbox.api_url()), &self.held.headers).await
    }
}

fn report(generation: u64) -> InvalidateTokenRequest {
    InvalidateTokenRequest {
        credential: DEMO.to_owned(),
        rejected: Some(Rejected::Generation(generation)),
        ..InvalidateTokenRequest::default()
    }
}

fn ensure_outcome(answer: &InvalidateTokenResponse, expected: InvalidateTokenOutcome) -> Result<(), Surprise> {
    ensure(answer.outcome() == expected, expected.as_str_name(), || answer.outcome().as_str_name().to_owned())
}
