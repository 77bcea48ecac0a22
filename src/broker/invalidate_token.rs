//! `InvalidateToken`: an upstream rejected a token; exactly one replica gets a new one, for everybody.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Broker, Core, Error, Served, Target,
    decide::{self, ReportPlan},
    load::Known,
    outage, static_secret,
};
use crate::{
    clock::Moment,
    grant::Grant,
    policy::Permit,
    rejection::{self, Verdict},
    secret::{ExposeSecret, SecretString, same},
    telemetry::CredentialLabels,
    token::{Generation, Token, Wanted},
};

/// A report of a rejected token.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which token it was.
    pub rejected: Rejected,
    /// What the upstream answered; without it the caller's word is taken.
    pub evidence: Option<Evidence>,
}

/// How a report names the token.
#[derive(Clone, Debug)]
pub enum Rejected {
    /// By its generation.
    Generation(Generation),
    /// By itself.
    AccessToken(SecretString),
}

/// What the upstream answered.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The status code.
    pub status: u16,
    /// The values of all `WWW-Authenticate` fields.
    pub www_authenticate: Vec<String>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// What a report led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new token was obtained because of this or a simultaneous report.
    Refreshed,
    /// The report was about an older token.
    AlreadyReplaced,
    /// A new token would not help.
    NotATokenRejection,
    /// A token this fresh was already rejected; reports are acted upon again after this time.
    HeldBack(Duration),
}

/// The answer to a report.
#[derive(Clone, Debug)]
pub struct Reported {
    /// What it led to.
    pub outcome: Outcome,
    /// A token to use now.
    pub served: Option<Served>,
    /// One sentence for people.
    pub detail: String,
    /// When reports are acted upon again.
    pub next_attempt_at: Option<SystemTime>,
}

/// What is reported.
#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    /// A token that was rejected.
    Rejected(&'a Rejected),
    /// Whoever asks for a token refuses this generation and all before it.
    Refused(Generation),
}

/// What came of a report inside.
pub(super) enum Replaced {
    /// This token is to be used now.
    With(Outcome, Arc<Token>),
    /// The rejected token is too young to be replaced.
    HeldBack(Duration),
}

impl Broker {
    /// Takes in a report.
    ///
    /// # Errors
    ///
    /// [`Error`], when the token was rejected and no other one can be had.
    pub async fn invalidate_token(&self, permit: Permit, report: Report) -> Result<Reported, Error> {
        let target = self.target(permit)?;
        if let Some(evidence) = &report.evidence
            && let Verdict::NotTokenRejected(why) = target.credential.rejected_when.judge(&evidence.as_seen())
        {
            self.core.count_report(&target, "not_a_token_rejection");
            let detail = why.to_string();
            return Ok(Reported { outcome: Outcome::NotATokenRejection, served: None, detail, next_attempt_at: None });
        }
        let deadline = Instant::now() + self.core.timing.max_wait;
        let (outcome, token) = match self.core.report(&target, About::Rejected(&report.rejected), deadline).await? {
            Replaced::With(outcome, token) => (outcome, token),
            Replaced::HeldBack(wait) => return Ok(held_back(wait, &self.core.now())),
        };
        let detail = match outcome {
            Outcome::Refreshed => "the token was replaced",
            Outcome::AlreadyReplaced => "the report was about an older token; the provider was not asked",
            Outcome::NotATokenRejection | Outcome::HeldBack(_) => "a new token would not help",
        };
        let served = Some(Served::new(&target, token));
        Ok(Reported { outcome, served, detail: detail.to_owned(), next_attempt_at: None })
    }
}

fn held_back(wait: Duration, now: &Moment) -> Reported {
    let seconds = wait.as_secs_f64().ceil();
    Reported {
        outcome: Outcome::HeldBack(wait),
        served: None,
        detail: format!(
            "a token this fresh was already rejected; the next one is asked for in {seconds} s at the earliest"
        ),
        next_attempt_at: Some(now.after(wait).wall()),
    }
}

impl Evidence {
    fn as_seen(&self) -> rejection::Evidence<'_> {
        rejection::Evidence {
            status: self.status,
            www_authenticate: self.www_authenticate.iter().map(String::as_str).collect(),
            body: &self.body,
        }
    }
}

impl Core {
    /// Acts on a report: nothing if the token was replaced already, else the one flight that everybody shares.
    pub(super) async fn report(
        self: &Arc<Self>,
        target: &Target,
        about: About<'_>,
        deadline: Instant,
    ) -> Result<Replaced, Error> {
        if let About::Rejected(Rejected::Generation(generation)) | About::Refused(generation) = &about
            && let Some(newer) = target.slot.fresh(&newer_than(*generation), &self.now())
        {
            self.count_report(target, "already_replaced");
            return Ok(Replaced::With(Outcome::AlreadyReplaced, newer));
        }
        // Memory may be behind the store, so what a report means is read there. But a token that is gone from the store may
        // still be served from memory, and is then known by its value here only.
        let held = target.slot.valid(&Wanted::default(), &self.now());
        let known = self.load(target).await;
        if known.as_ref().is_err_and(|error| outage::is_bridged(target, error)) {
            return self.report_alone(target, about, held.as_deref(), deadline).await;
        }
        let Known { mut loaded, token, epoch: _ } = known?;
        if let Grant::Static { form, first: _ } = &target.credential.grant {
            let current = static_secret::token(target, form, &loaded, &Wanted::default())?;
            loaded.token = Some(Token::clone(&current));
        }
        let known = [loaded.token.as_ref(), token.as_deref(), held.as_deref()];
        let alone = target.slot.alone.lock().generation;
        let generation = match about {
            About::Rejected(Rejected::Generation(generation)) => *generation,
            About::Rejected(Rejected::AccessToken(value)) => generation_of(value, known),
            About::Refused(generation) if generation == alone => generation,
            About::Refused(generation) => decide::refused(generation, &loaded).ok_or_else(never_issued)?,
        };
        match decide::report(generation, &loaded, target.credential.min_age()) {
            ReportPlan::Reject { strikes } => self.reject(target, generation, strikes, deadline).await,
            ReportPlan::HeldBack { wait } => {
                self.count_report(target, "held_back");
                Ok(Replaced::HeldBack(wait))
            }
            ReportPlan::AlreadyReplaced => self.stand_by(target, "already_replaced", deadline).await,
            // The store was away when this replica made that token, and knows nothing of it.
            ReportPlan::NeverIssued if generation == alone => {
                self.report_alone(target, about, held.as_deref(), deadline).await
            }
            // Whoever makes up generations gets a token that is valid anyway, and moves nothing.
            ReportPlan::NeverIssued => self.stand_by(target, "never_issued", deadline).await,
        }
    }

    async fn reject(
        self: &Arc<Self>,
        target: &Target,
        generation: Generation,
        strikes: u32,
        deadline: Instant,
    ) -> Result<Replaced, Error> {
        self.count_report(target, "rejected");
        // A static secret has no successor to wait for: it stays, and whoever reports it is told who must act.
        if !matches!(target.credential.grant, Grant::Static { .. }) {
            let place = &target.slot.place;
            self.lately.rejected(&place.unit, &place.token, generation);
            self.store.reject(place, generation, strikes).await?;
            target.slot.raise_floor(generation);
        }
        let token = self.token(target, newer_than(generation), deadline).await?;
        Ok(Replaced::With(Outcome::Refreshed, token))
    }

    pub(super) async fn stand_by(
        self: &Arc<Self>,
        target: &Target,
        result: &'static str,
        deadline: Instant,
    ) -> Result<Replaced, Error> {
        self.count_report(target, result);
        let token = self.token(target, Wanted::default(), deadline).await?;
        Ok(Replaced::With(Outcome::AlreadyReplaced, token))
    }

    pub(super) fn count_report(&self, target: &Target, result: &'static str) {
        let credential = target.credential.name.clone();
        self.telemetry.reports.get_or_create(&CredentialLabels { credential, result }).inc();
    }
}

/// The generation of a token that was named by itself. One that nobody knows counts as an older one.
pub(super) fn generation_of(value: &SecretString, known: [Option<&Token>; 3]) -> Generation {
    known
        .into_iter()
        .flatten()
        .find(|token| same(token.value.expose_secret(), value.expose_secret()))
        .map_or(Generation::ZERO, |token| token.generation)
}

/// The error of a caller who refuses a generation that there never was.
pub(super) fn never_issued() -> Error {
    Error::invalid("refused_generation", "no token of this generation was ever issued")
}

/// A token that is newer than a rejected one.
pub(super) fn newer_than(refused: Generation) -> Wanted {
    Wanted { refused, min_remaining: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Scopes;
    use crate::token::TokenType;

    #[test]
    fn a_token_is_known_by_its_value_wherever_it_is() {
        let token = |value: &str, generation| Token {
            value: value.into(),
            kind: TokenType::Bearer,
            generation: Generation::new(generation),
            scopes: Scopes::default(),
            expiry: None,
        };
        let (stored, held) = (token("new", 8), token("old", 7));
        for (value, known, generation) in [
            ("new", [Some(&stored), Some(&stored), Some(&held)], 8),
            ("old", [Some(&stored), None, Some(&held)], 7),
            ("old", [None, None, Some(&held)], 7),
            ("other", [Some(&stored), None, Some(&held)], 0),
        ] {
            assert_eq!(generation_of(&value.into(), known), Generation::new(generation), "{value}");
        }
    }
}
