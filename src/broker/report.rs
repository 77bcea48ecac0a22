//! What a report of a token leads to. It is found out once for all who report the same at the same time, so that a storm of
//! reports is one look into the store and one rejection; then everybody waits for the one flight of the successor.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::Instrument;

use super::{
    Core, Error, Outcome, Rejected, Target,
    decide::{self, ReportPlan},
    flight::{FlightKey, Flights, flight_key},
    load::Known,
    outage, static_secret,
};
use crate::{
    grant::Grant,
    secret::{ExposeSecret, SecretString, same},
    store::names::Fingerprint,
    telemetry::CredentialLabels,
    token::{Generation, Token, Wanted},
};

/// What is reported.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// The token of this generation was rejected.
    Generation(Generation),
    /// This token was rejected.
    AccessToken(SecretString),
    /// Whoever asks for a token refuses this generation and all before it.
    Refused(Generation),
}

impl From<Rejected> for About {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Generation(generation) => Self::Generation(generation),
            Rejected::AccessToken(value) => Self::AccessToken(value),
        }
    }
}

impl About {
    fn generation(&self) -> Option<Generation> {
        match self {
            Self::Generation(generation) | Self::Refused(generation) => Some(*generation),
            Self::AccessToken(_) => None,
        }
    }
}

/// What came of a report.
pub(super) enum Replaced {
    /// This token is to be used now.
    With(Outcome, Arc<Token>),
    /// The provider gave the very token that was rejected, under a new generation.
    Unchanged(Arc<Token>),
    /// The rejected token is too young to be replaced.
    HeldBack(Duration),
}

/// What follows from a report, for all who share it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judged {
    /// Tokens of this generation and older are dead now.
    Rejected(Generation),
    /// The token is too young to be replaced.
    HeldBack(Duration),
    /// Nothing; the word is for the metric.
    Nothing(&'static str),
}

/// The reports that are looked at.
pub(super) type Reports = Flights<(FlightKey, Matter), Result<Judged, Error>>;

/// What makes two reports the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Matter {
    Generation(Generation),
    AccessToken(Fingerprint),
    Refused(Generation),
}

impl Core {
    /// Acts on a report: nothing if the token was replaced already, else the one flight that everybody shares.
    pub(super) async fn report(
        self: &Arc<Self>,
        target: &Target,
        about: About,
        deadline: Instant,
    ) -> Result<Replaced, Error> {
        let newer = about.generation().and_then(|reported| target.slot.fresh(&newer_than(reported), &self.now()));
        if let Some(newer) = newer {
            self.count_report(target, "already_replaced");
            return Ok(Replaced::With(Outcome::AlreadyReplaced, newer));
        }
        let rejected = self.value_of(target, &about);
        match self.judged(target, about, deadline).await? {
            Judged::Rejected(generation) => {
                self.count_report(target, "rejected");
                let token = self.token(target, newer_than(generation), deadline).await?;
                let is_same = |value: &Fingerprint| self.store.names().fingerprint(&value_in(&token)) == *value;
                Ok(match rejected.is_some_and(|rejected| is_same(&rejected)) {
                    true => Replaced::Unchanged(token),
                    false => Replaced::With(Outcome::Refreshed, token),
                })
            }
            Judged::HeldBack(wait) => {
                self.count_report(target, "held_back");
                Ok(Replaced::HeldBack(wait))
            }
            Judged::Nothing(result) => {
                self.count_report(target, result);
                let token = self.token(target, Wanted::default(), deadline).await?;
                Ok(Replaced::With(Outcome::AlreadyReplaced, token))
            }
        }
    }

    /// The token that is reported, as far as this replica has it. A static secret has no successor to compare it with.
    fn value_of(&self, target: &Target, about: &About) -> Option<Fingerprint> {
        if matches!(target.credential.grant, Grant::Static { .. }) {
            return None;
        }
        if let About::AccessToken(value) = about {
            return Some(self.store.names().fingerprint(value));
        }
        let held = target.slot.valid(&Wanted::default(), &self.now())?;
        (about.generation() == Some(held.generation)).then(|| self.store.names().fingerprint(&value_in(&held)))
    }

    /// What follows from a report, from whoever looks at the same one already.
    async fn judged(self: &Arc<Self>, target: &Target, about: About, deadline: Instant) -> Result<Judged, Error> {
        let matter = match &about {
            About::Generation(generation) => Matter::Generation(*generation),
            About::AccessToken(value) => Matter::AccessToken(self.store.names().fingerprint(value)),
            About::Refused(generation) => Matter::Refused(*generation),
        };
        let key = (flight_key(target), matter);
        let judged = self.reports.board(&key, |id, land| {
            let (core, target, key) = (Arc::clone(self), target.clone(), key.clone());
            self.tasks.spawn(judge_for_all(core, target, about, (key, id), land).in_current_span());
        });
        match timeout_at(deadline, judged).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(_)) | Err(_) => Err(Error::RefreshInProgress { left: Duration::ZERO }),
        }
    }

    /// Finds out what follows from a report, and rejects the token if it is that.
    async fn judge(&self, target: &Target, about: &About) -> Result<Judged, Error> {
        // Memory may be behind the store, so what a report means is read there. But a token that is gone from the store may
        // still be served from memory, and is then known by its value here only.
        let held = target.slot.valid(&Wanted::default(), &self.now());
        let known = self.load(target).await;
        if known.as_ref().is_err_and(|error| outage::is_bridged(target, error)) {
            return Ok(self.judge_alone(target, about, held.as_deref()));
        }
        let Known { mut loaded, token, epoch: _ } = known?;
        if let Grant::Static { form, first: _ } = &target.credential.grant {
            let current = static_secret::token(target, form, &loaded, &Wanted::default())?;
            loaded.token = Some(Token::clone(&current));
        }
        let known = [loaded.token.as_ref(), token.as_deref(), held.as_deref()];
        let alone = target.slot.alone().generation;
        let generation = match about {
            About::Generation(generation) => *generation,
            About::AccessToken(value) => generation_of(value, known),
            About::Refused(generation) if *generation == alone => *generation,
            About::Refused(generation) => decide::refused(*generation, &loaded).ok_or_else(never_issued)?,
        };
        match decide::report(generation, &loaded, target.credential.min_age()) {
            ReportPlan::Reject { strikes } => self.reject(target, generation, strikes).await,
            ReportPlan::HeldBack { wait } => Ok(Judged::HeldBack(wait)),
            ReportPlan::AlreadyReplaced => Ok(Judged::Nothing("already_replaced")),
            // The store was away when this replica made that token, and knows nothing of it.
            ReportPlan::NeverIssued if generation == alone => Ok(self.judge_alone(target, about, held.as_deref())),
            // Whoever makes up generations gets a token that is valid anyway, and moves nothing.
            ReportPlan::NeverIssued => Ok(Judged::Nothing("never_issued")),
        }
    }

    async fn reject(&self, target: &Target, generation: Generation, strikes: u32) -> Result<Judged, Error> {
        // A static secret has no successor to wait for: it stays, and whoever reports it is told who must act.
        if !matches!(target.credential.grant, Grant::Static { .. }) {
            let place = &target.slot.place;
            self.lately.rejected(&place.unit, &place.token, generation);
            self.store.reject(place, generation, strikes).await?;
            target.slot.raise_floor(generation);
        }
        Ok(Judged::Rejected(generation))
    }

    pub(super) fn count_report(&self, target: &Target, result: &'static str) {
        let credential = target.credential.name.clone();
        self.telemetry.reports.get_or_create(&CredentialLabels { credential, result }).inc();
    }
}

/// Looks at a report, for everybody. If the token was rejected, whoever reports it before its successor is there is told the
/// same without another look.
async fn judge_for_all(
    core: Arc<Core>,
    target: Target,
    about: About,
    (key, id): ((FlightKey, Matter), u64),
    land: oneshot::Sender<Result<Judged, Error>>,
) {
    let entry = core.reports.entry(key, id);
    let judged = core.judge(&target, &about).await;
    let Ok(Judged::Rejected(generation)) = judged else {
        drop(entry);
        let _ = land.send(judged);
        return;
    };
    // Nobody waiting any more is no fault, and what comes of the flight is told to those who wait for it.
    let _ = land.send(judged);
    let _ = core.join(&target, newer_than(generation), Instant::now() + core.timing.max_wait).await;
}

fn value_in(token: &Token) -> SecretString {
    token.value.expose_secret().into()
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
    use crate::{name::Scopes, token::TokenType};

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
