//! Steps with `CallThrough`: the caller gets the API's answers and never a token.

use serde_json::{Value, json};

use super::{
    super::{
        show::short,
        stage::{API_KEY, DEMO},
        wire,
    },
    Saw, Surprise, Tour, demo, ensure, ensure_newer, ensure_status,
};
use crate::proto::{CallThroughRequest, CallThroughResponse};

impl Tour<'_> {
    pub(super) async fn call(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        let answer = self.through(DEMO, "/echo").await?;
        ensure_status(answer.status, 200)?;
        let echoed: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let echoed = echoed.pointer("/headers/authorization").and_then(Value::as_str).unwrap_or_default();
        let cut_out = echoed == "Bearer [redacted]" && !shows(&answer, &self.held.access_token);
        ensure(cut_out, "an echo without the token", || "something else".to_owned())?;
        let asked = self.asked(journal, 0)?;
        let saw = format!("200; the API echoes it all, the caller reads \"{echoed}\"");
        Ok(Saw::new(asked, saw, json!({ "status": answer.status, "echoed": echoed })))
    }

    pub(super) async fn call_after_revocation(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        self.stage.sandbox.revoke_access_tokens();
        let answer = self.through(DEMO, "/hello").await?;
        ensure_status(answer.status, 200)?;
        let CallThroughResponse { attempts, refreshed, generation, .. } = answer;
        ensure(attempts == 2 && refreshed, "a second attempt with a new token", || format!("{attempts} attempts"))?;
        ensure_newer(generation, self.held.generation)?;
        self.held = self.get(demo()).await?;
        let asked = self.asked(journal, 1)?;
        let saw = format!("401 and replaced: 200 at the second attempt, generation {}", short(generation));
        let facts = json!({ "status": 200, "attempts": attempts, "refreshed": refreshed, "generation": generation });
        Ok(Saw::new(asked, saw, facts))
    }

    pub(super) async fn call_beyond_scope(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        let answer = self.through(DEMO, "/admin").await?;
        ensure_status(answer.status, 403)?;
        let challenge = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("www-authenticate"));
        let challenge = challenge.map_or("", |header| &header.value);
        ensure(challenge.contains("insufficient_scope"), "insufficient_scope", || challenge.to_owned())?;
        ensure(answer.attempts == 1, "1 attempt", || answer.attempts.to_string())?;
        let asked = self.asked(journal, 0)?;
        let saw = "403 insufficient_scope, passed on: a new token would not help";
        Ok(Saw::new(asked, saw, json!({ "status": 403, "attempts": 1, "error": "insufficient_scope" })))
    }

    pub(super) async fn call_with_api_key(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        let without = wire::get(&format!("{}/key", self.stage.sandbox.api_url()), &[]).await?;
        ensure_status(without.status, 401)?;
        let answer = self.through(API_KEY, "/key").await?;
        ensure_status(answer.status, 200)?;
        let asked = self.asked(journal, 0)?;
        let saw = "200 (401 without): an API key in X-Api-Key, used in the same way";
        Ok(Saw::new(asked, saw, json!({ "status": 200, "status_without": 401 })))
    }

    async fn through(&mut self, credential: &str, path: &str) -> Result<CallThroughResponse, Surprise> {
        let request = CallThroughRequest {
            credential: credential.to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..CallThroughRequest::default()
        };
        Ok(self.tokens.call_through(request).await?.into_inner())
    }
}

/// Whether a text stands anywhere in an answer.
fn shows(answer: &CallThroughResponse, text: &str) -> bool {
    let body = String::from_utf8_lossy(&answer.body);
    body.contains(text) || answer.headers.iter().any(|header| header.value.contains(text))
}
