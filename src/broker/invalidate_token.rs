//! `InvalidateToken`: an upstream rejected a token; exactly one replica gets a new one, for everybody.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Broker, Core, Error, Served, Target, report::Replaced};
use crate::{
    clock::Moment,
    policy::Permit,
    rejection::{self, Verdict},
    secret::SecretString,
    token::Generation,
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
    /// The generation of the current token; zero if none is known.
    pub generation: Generation,
    /// One sentence for people.
    pub detail: String,
    /// When reports are acted upon again.
    pub next_attempt_at: Option<SystemTime>,
}

impl Broker {
    /// Takes in a report.
    ///
    /// # Errors
    ///
    /// [`Error`], when the token was rejected and no other one can be had.
    pub async fn invalidate_token(&self, permit: Permit, report: Report) -> Result<Reported, Error> {
        let target = self.target(&permit)?;
        drop(permit);
        if let Some(evidence) = &report.evidence
            && let Verdict::NotTokenRejected(why) = target.credential.rejected_when.judge(&evidence.as_seen())
        {
            self.core.count_report(&target, "not_a_token_rejection");
            return Ok(Reported {
                outcome: Outcome::NotATokenRejection,
                served: None,
                generation: self.core.current_generation(&target).await,
                detail: why.to_string(),
                next_attempt_at: None,
            });
        }
        let deadline = Instant::now() + self.core.timing.max_wait;
        let (outcome, token) = match self.core.report(&target, report.rejected.into(), deadline).await? {
            Replaced::With(outcome, token) => (outcome, token),
            Replaced::Unchanged(token) => {
                let wait = target.credential.min_age();
                return Ok(unchanged(wait, token.generation, &self.core.now()));
            }
            Replaced::HeldBack(wait) => {
                let generation = self.core.current_generation(&target).await;
                return Ok(held_back(wait, generation, &self.core.now()));
            }
        };
        let detail = match outcome {
            Outcome::Refreshed => "the token was replaced",
            Outcome::AlreadyReplaced => "the report was about an older token; the provider was not asked",
            Outcome::NotATokenRejection | Outcome::HeldBack(_) => "a new token would not help",
        };
        let generation = token.generation;
        let served = Some(Served::new(token, target.slot.is_degraded()));
        Ok(Reported { outcome, served, generation, detail: detail.to_owned(), next_attempt_at: None })
    }
}

impl Core {
    /// The generation of the current token. The store is read only where this replica knows of none.
    async fn current_generation(&self, target: &Target) -> Generation {
        let known = target.slot.newest_known();
        if known > Generation::ZERO {
            return known;
        }
        let stored = self.load(target).await.ok().and_then(|known| known.token);
        stored.map_or(Generation::ZERO, |token| token.generation)
    }
}

fn unchanged(wait: Duration, generation: Generation, now: &Moment) -> Reported {
    Reported {
        outcome: Outcome::HeldBack(wait),
        served: None,
        generation,
        detail: "the provider gave the same token again; it gives no other one before this one ends".to_owned(),
        next_attempt_at: Some(now.after(wait).wall()),
    }
}

fn held_back(wait: Duration, generation: Generation, now: &Moment) -> Reported {
    let seconds = wait.as_secs_f64().ceil();
    Reported {
        outcome: Outcome::HeldBack(wait),
        served: None,
        generation,
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
