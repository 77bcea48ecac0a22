//! Steps with `ImportGrant`: a person's grant, its theft, and its renewal.

use serde_json::json;
use tonic::Status;
use tonic_types::StatusExt;

use super::{
    super::{show::short, stage::DEMO, wire},
    Saw, Surprise, Tour, demo, ensure, ensure_newer,
};
use crate::{
    proto::{GetTokenRequest, ImportGrantRequest, import_grant_request::Secret},
    sandbox::DEMO_PUBLIC,
};

/// On whose behalf.
const ADA: &str = "ada";

/// What bearerd says when only a person can help.
const REASON: &str = "REAUTHORIZATION_REQUIRED";

impl Tour<'_> {
    pub(super) async fn handed_over(&mut self) -> Result<Saw, Surprise> {
        let journal = self.journal();
        let generation = self.import_and_get().await?;
        let asked = self.asked(journal, 1)?;
        let saw = format!("generation {}: a grant of her own, beside the service's", short(generation));
        Ok(Saw::new(asked, saw, json!({ "generation": generation })))
    }

    pub(super) async fn stolen(&mut self) -> Result<Saw, Surprise> {
        let (first, generation) = &self.ada;
        let form = [("grant_type", "refresh_token"), ("client_id", DEMO_PUBLIC), ("refresh_token", first)];
        let (status, body) = wire::post(&self.stage.sandbox.token_url(), &form).await?;
        ensure(status == 400 && body.contains("invalid_grant"), "a refused thief", || status.to_string())?;
        ensure(!self.stage.sandbox.family_alive(first), "an ended grant", || "a living one".to_owned())?;
        let (journal, refused) = (self.journal(), *generation);
        for _ in 0..2 {
            let reason = self.refusal(refused).await?;
            ensure(reason == REASON, REASON, || reason.clone())?;
        }
        let asked = self.asked(journal, 1)?;
        let saw = format!("her grant ends; to every caller: {REASON}");
        Ok(Saw::new(asked, saw, json!({ "reason": REASON, "grant_alive": false })))
    }

    pub(super) async fn handed_over_again(&mut self) -> Result<Saw, Surprise> {
        let (journal, before) = (self.journal(), self.ada.1);
        let generation = self.import_and_get().await?;
        ensure_newer(generation, before)?;
        let asked = self.asked(journal, 1)?;
        let saw = format!("generation {}: back without a restart", short(generation));
        Ok(Saw::new(asked, saw, json!({ "generation": generation })))
    }

    /// Hands over a refresh token of a new consent, and gets a token with it.
    async fn import_and_get(&mut self) -> Result<u64, Surprise> {
        let refresh_token = self.stage.sandbox.mint_refresh_token(ADA);
        let import = ImportGrantRequest {
            credential: DEMO.to_owned(),
            subject: ADA.to_owned(),
            secret: Some(Secret::RefreshToken(refresh_token.clone())),
            scopes: Vec::new(),
            no_verify: false,
        };
        self.grants.import_grant(import).await?;
        let generation = self.get(for_ada()).await?.generation;
        self.ada = (refresh_token, generation);
        Ok(generation)
    }

    /// The reason why there is no token that is newer than this.
    async fn refusal(&mut self, refused_generation: u64) -> Result<String, Surprise> {
        match self.tokens.get_token(GetTokenRequest { refused_generation, ..for_ada() }).await {
            Ok(_) => Err(Surprise::Unexpected { expected: REASON.to_owned(), got: "a token".to_owned() }),
            Err(status) => Ok(reason(&status)),
        }
    }
}

fn for_ada() -> GetTokenRequest {
    GetTokenRequest { subject: ADA.to_owned(), ..demo() }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| status.to_string(), |info| info.reason)
}
