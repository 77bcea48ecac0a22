//! `RetryGrant`: a grant that was declared dead is tried once more, because an operator says so.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::{Broker, Core, Error, Target, refresh};
use crate::{
    failure::FailureCause,
    grant::Grant,
    name::{CredentialName, Resources, Scopes, Subject},
    policy::Permit,
    store::{GrantRecord, GrantState, Material, Search, UnitName},
    token::{Generation, GrantKey, TokenKey},
};

/// What became of a grant.
#[derive(Clone, Debug)]
pub enum Retried {
    /// It gave a token of this generation, and is active.
    Revived(Generation),
    /// The provider refused it again.
    StillDead(FailureCause),
    /// It is not dead; nothing was sent.
    NotDead,
    /// It would be tried; nothing was sent.
    WouldRetry(FailureCause),
    /// It was left out, and can be tried by itself where it can be named.
    LeftOut(FailureCause),
    /// No answer came of it.
    Failed(Error),
}

impl Retried {
    /// Where nothing came of it, the error.
    fn or_failed(self) -> Result<Self, Error> {
        if let Self::Failed(error) = self { Err(error) } else { Ok(self) }
    }
}

/// One page of a pass over all dead grants of a credential.
#[derive(Clone, Debug, Default)]
pub struct RetryPage {
    /// Where the page before ended.
    pub from: RetryPosition,
    /// Whether to send nothing.
    pub dry_run: bool,
    /// How many grants are tried in a minute at most.
    pub per_minute: u32,
}

/// Where a page ends: in which step of the search, and after which grant of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryPosition {
    /// The step; `None`: the first.
    pub step: Option<String>,
    /// The grant; `None`: none of the step was looked at.
    pub after: Option<String>,
}

/// What a page came to.
#[derive(Debug)]
pub struct RetriedPage {
    /// The grants, each with its subject where that is known.
    pub grants: Vec<(Option<Subject>, Retried)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<RetryPosition>,
}

/// No page takes longer, but for the grant that is under way then: a caller waits for it.
const LONGEST_PAGE: Duration = Duration::from_secs(5);

/// How many grants a page has at most.
const MOST: usize = 100;

impl Broker {
    /// Tries one grant.
    ///
    /// # Errors
    ///
    /// [`Error`], when there is no such grant, or nothing came of it.
    pub async fn retry_grant(&self, permit: Permit, dry_run: bool) -> Result<Retried, Error> {
        let target = self.target_aside(&permit)?;
        let loaded = self.core.read(&target).await?.loaded;
        let stale = loaded.token.as_ref().map_or(Generation::ZERO, |token| token.generation);
        let record = loaded.record.filter(|record| has_refresh_token(record, &target));
        match record.map(|record| record.state) {
            None => Err(Error::Failed { cause: FailureCause::ReauthorizationRequired, retry_after: None }),
            Some(GrantState::Active) => Ok(Retried::NotDead),
            Some(GrantState::Dead(cause)) if dry_run => Ok(Retried::WouldRetry(cause)),
            Some(GrantState::Dead(_)) => self.core.retry(target, stale).await.or_failed(),
        }
    }

    /// Tries dead grants of a credential, a page at a time. Those are left out that ended with a lost answer: to present such a
    /// refresh token again would be a reuse. `may` says for which subjects the caller may.
    ///
    /// # Errors
    ///
    /// [`Error`], when there is no such credential, or the store cannot be read.
    pub async fn retry_dead_grants(
        &self,
        permit: &Permit,
        page: RetryPage,
        may: impl Fn(&Subject) -> bool,
    ) -> Result<RetriedPage, Error> {
        let name = &permit.grant().credential;
        let (credential, _) = self.roster.get(name).ok_or(Error::CredentialNotFound)?;
        if !matches!(credential.grant, Grant::RefreshToken { .. }) {
            return Err(Error::invalid("credential", "only grants with a refresh token are declared dead"));
        }
        let RetryPosition { step, after } = page.from;
        let search = Search { credential: name, from: step.as_deref() };
        let found = self.core.store.dead_grants(&search).await?;
        let mut dead: Vec<_> = found.grants.into_iter().filter(|(unit, _)| is_after(unit, after.as_deref())).collect();
        dead.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (end, pause) = (Instant::now() + LONGEST_PAGE, Duration::from_secs(60) / page.per_minute.max(1));
        let mut grants = Vec::new();
        for (unit, record) in dead {
            let subject = record.secrets.subject.clone();
            if subject.as_ref().is_none_or(&may) {
                let began = Instant::now();
                let retried = self.retry_found(name, &record, page.dry_run).await?;
                let was_sent = matches!(retried, Retried::Revived(_) | Retried::StillDead(_) | Retried::Failed(_));
                grants.push((subject, retried));
                if was_sent {
                    sleep_until(began + pause).await;
                }
            }
            if Instant::now() >= end || grants.len() >= MOST {
                let next = RetryPosition { step, after: Some(unit.as_str().to_owned()) };
                return Ok(RetriedPage { grants, next: Some(next) });
            }
        }
        let next = found.next.map(|step| RetryPosition { step: Some(step), after: None });
        Ok(RetriedPage { grants, next })
    }

    async fn retry_found(&self, name: &CredentialName, record: &GrantRecord, dry_run: bool) -> Result<Retried, Error> {
        let cause = match record.state {
            GrantState::Active => return Ok(Retried::NotDead),
            GrantState::Dead(cause) => cause,
        };
        let Some(subject) = record.secrets.subject.clone() else { return Ok(Retried::LeftOut(cause)) };
        let grant = GrantKey { credential: name.clone(), subject };
        let key = TokenKey { grant, scopes: Scopes::default(), resources: Resources::default() };
        let target =
            self.core.target_in(&self.roster, &key, |sought, place| self.core.cache.slot_aside(sought, place))?;
        if cause != FailureCause::ReauthorizationRequired || !has_refresh_token(record, &target) {
            return Ok(Retried::LeftOut(cause));
        }
        if dry_run {
            return Ok(Retried::WouldRetry(cause));
        }
        let stale = self.core.read(&target).await?.token.map_or(Generation::ZERO, |token| token.generation);
        Ok(self.core.retry(target, stale).await)
    }
}

impl Core {
    /// Tries a grant in a task of its own: whoever asked may leave, and the answer is stored all the same.
    async fn retry(self: &Arc<Self>, target: Target, stale: Generation) -> Retried {
        let core = Arc::clone(self);
        let task = self.tasks.spawn(async move { refresh::retry(&core, &target, stale).await }.in_current_span());
        match task.await {
            Ok(Ok(token)) => Retried::Revived(token.generation),
            Ok(Err(Error::Failed {
                cause: cause @ (FailureCause::ReauthorizationRequired | FailureCause::RefreshOutcomeLost),
                retry_after: None,
            })) => Retried::StillDead(cause),
            Ok(Err(error)) => Retried::Failed(error),
            Err(_) => Retried::Failed(Error::RefreshInProgress { left: Duration::ZERO }),
        }
    }
}

/// RFC 6749 §10.4: a refresh token of another provider or client is none here.
fn has_refresh_token(record: &GrantRecord, target: &Target) -> bool {
    let is_own = record.secrets.belong_to(&target.credential.bindings());
    is_own && matches!(record.secrets.material, Material::RefreshToken(_))
}

fn is_after(unit: &UnitName, after: Option<&str>) -> bool {
    after.is_none_or(|after| unit.as_str() > after)
}
