//! What the store acknowledged to this process lately, in case the store goes back in time: a Redis that comes up with an
//! older file, or a replica of it that was promoted without the last writes.
//!
//! A refresh token that is older than the one the provider gave last is worth nothing, and presenting it may end the
//! grant. So whatever is read is held against this before it is used, and written again if the store has less. Nothing is
//! kept of grants for which asking twice is harmless.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Core;
use crate::{
    store::{
        Acknowledged, AttemptId, Commit, GrantSecrets, Import, Material, Place, StoreError, UnitName, Written,
        names::TokenName,
    },
    token::{Generation, Token},
};

/// How long it is remembered: longer than a failover takes, and than a server that comes up from its files.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How many writes are remembered; older ones go.
const MOST: usize = 4_096;

/// How many are written again at a time: a store that waits for its disks and replicas takes its time for each.
const AT_ONCE: usize = 64;

/// The last acknowledged writes, by unit.
#[derive(Default)]
pub(super) struct Lately {
    writes: Mutex<Writes>,
    /// Held by whoever goes through all of them.
    pass: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Writes {
    newest: HashMap<UnitName, Arc<Write>>,
    order: VecDeque<Arc<Write>>,
}

/// One write that was acknowledged.
pub(super) struct Write {
    at: Instant,
    unit: UnitName,
    attempt: AttemptId,
    revision: Generation,
    secrets: GrantSecrets,
    token: Option<(Place, Token)>,
    /// Whether the token was rejected since.
    rejected: AtomicBool,
}

impl Lately {
    /// Remembers a commit.
    pub(super) fn committed(&self, commit: &Commit<'_>) {
        let Commit { place, attempt, expected: _, next, secrets, token } = *commit;
        self.remember(&place.unit, attempt, next, secrets, Some((place.clone(), token.clone())));
    }

    /// Remembers an import or an adoption.
    pub(super) fn imported(&self, import: &Import<'_>) {
        let Import { unit, attempt, expected: _, next, secrets } = *import;
        self.remember(unit, attempt, next, secrets, None);
    }

    /// Remembers what replaced a candidate, also if that is nothing: else the refresh token could be presented once more.
    pub(super) fn replaced(&self, import: &Import<'_>) {
        let Import { unit, attempt, expected: _, next, secrets } = *import;
        self.keep(unit, attempt, next, secrets, None);
    }

    /// Remembers an import that was tried before, with its token.
    pub(super) fn promoted(&self, known: &Acknowledged<'_>) {
        let Acknowledged { unit, attempt, revision, secrets, token } = *known;
        self.remember(unit, attempt, revision, secrets, token.map(|(place, token)| (place.clone(), token.clone())));
    }

    /// Notes that tokens up to this generation are dead: the grant may be written again, but such a token may not. A commit of
    /// another replica says so of the generation before its own, whatever that was.
    pub(super) fn rejected(&self, unit: &UnitName, token: &TokenName, generation: Generation) {
        let writes = self.writes.lock();
        let Some(write) = writes.newest.get(unit) else { return };
        let is_it = write.token.as_ref().is_some_and(|(place, _)| place.token == *token);
        if is_it && write.revision <= generation {
            write.rejected.store(true, Ordering::Relaxed);
        }
    }

    fn remember(
        &self,
        unit: &UnitName,
        attempt: &AttemptId,
        revision: Generation,
        secrets: &GrantSecrets,
        token: Option<(Place, Token)>,
    ) {
        if !matches!(secrets.material, Material::Nothing) {
            self.keep(unit, attempt, revision, secrets, token);
        }
    }

    fn keep(
        &self,
        unit: &UnitName,
        attempt: &AttemptId,
        revision: Generation,
        secrets: &GrantSecrets,
        token: Option<(Place, Token)>,
    ) {
        let (unit, attempt, secrets) = (unit.clone(), attempt.clone(), secrets.clone());
        let rejected = AtomicBool::new(false);
        let write = Arc::new(Write { at: Instant::now(), unit, attempt, revision, secrets, token, rejected });
        let mut writes = self.writes.lock();
        if writes.newest.get(&write.unit).is_some_and(|newest| newest.revision > revision) {
            return;
        }
        writes.newest.insert(write.unit.clone(), Arc::clone(&write));
        writes.order.push_back(write);
        writes.forget();
    }

    /// What is remembered of a unit, if it is newer than what was read.
    fn newer_than(&self, unit: &UnitName, read: Generation) -> Option<Arc<Write>> {
        let mut writes = self.writes.lock();
        writes.forget();
        writes.newest.get(unit).filter(|write| write.revision > read).cloned()
    }

    /// The newest of each unit, the oldest of these first.
    fn all(&self) -> Vec<Arc<Write>> {
        let mut writes = self.writes.lock();
        writes.forget();
        writes.order.iter().filter(|write| writes.is_newest(write)).cloned().collect()
    }
}

impl Write {
    /// What the store had, less a token that is dead by now.
    fn acknowledged(&self) -> Acknowledged<'_> {
        let Self { at: _, unit, attempt, revision, secrets, token, rejected } = self;
        let alive = !rejected.load(Ordering::Relaxed);
        let token = token.as_ref().filter(|_| alive).map(|(place, token)| (place, token));
        Acknowledged { unit, attempt, revision: *revision, secrets, token }
    }
}

impl Writes {
    fn is_newest(&self, write: &Arc<Write>) -> bool {
        self.newest.get(&write.unit).is_some_and(|newest| Arc::ptr_eq(newest, write))
    }

    fn forget(&mut self) {
        while let Some(oldest) = self.order.front()
            && (self.order.len() > MOST || oldest.at.elapsed() > REMEMBERED)
        {
            if self.is_newest(oldest) {
                self.newest.remove(&oldest.unit);
            }
            self.order.pop_front();
        }
    }
}

impl Core {
    /// Whether the store has less than it acknowledged to this process. If so it has it again when this returns, or
    /// something newer still: whatever was read is to be read again.
    pub(super) async fn went_back(&self, unit: &UnitName, read: Generation) -> Result<bool, StoreError> {
        match self.lately.newer_than(unit, read) {
            Some(write) => self.write_again(&write).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// After events were missed: others may read what the store lost before this process has a reason to. Who misses them
    /// again meanwhile begins when this has ended: it may have been lost once more.
    pub(super) async fn write_all_again(self: Arc<Self>) {
        let _pass = self.lately.pass.lock().await;
        let core = &self;
        let again = |write: Arc<Write>| async move { core.write_again(&write).await };
        let mut written = stream::iter(self.lately.all()).map(again).buffer_unordered(AT_ONCE);
        while let Some(written) = written.next().await {
            if let Err(error) = written {
                // Then it happens when the unit is read, or when the store is back once more.
                warn!(%error, "what the store may have lost could not be written again");
                return;
            }
        }
    }

    /// Writes a commit that was refused, if the revision that it was computed from is not there any more: then the
    /// store went back while the answer was on its way, and this is newer than anything it can still have.
    pub(super) async fn commit_over_older(&self, commit: &Commit<'_>) -> Result<Written, StoreError> {
        let Commit { place, attempt, expected, next, secrets, token } = *commit;
        if self.store.load(place).await?.revision() >= expected {
            return Ok(Written::Moved);
        }
        let unit = &place.unit;
        let known = Acknowledged { unit, attempt, revision: next, secrets, token: Some((place, token)) };
        let written = self.store.reassert(&known).await?;
        if written == Written::Done {
            error!(?unit, revision = %next, "the store went back in time while a token was asked for; the new one is kept");
            self.store.release(unit, attempt).await?;
        }
        Ok(written)
    }

    async fn write_again(&self, write: &Write) -> Result<(), StoreError> {
        if self.store.reassert(&write.acknowledged()).await? == Written::Done {
            let Write { unit, revision, .. } = write;
            error!(?unit, %revision, "the store went back in time; what it had acknowledged is written again");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::Scopes, token::TokenType};

    fn write(lately: &Lately, unit: &str, revision: u64) {
        let (unit, attempt) = (&UnitName::from(unit), &AttemptId::random());
        let secrets = &GrantSecrets { material: Material::RefreshToken("rt".into()), ..GrantSecrets::default() };
        let (expected, next) = (Generation::ZERO, Generation::new(revision));
        lately.imported(&Import { unit, attempt, expected, next, secrets });
    }

    #[tokio::test]
    async fn a_token_is_not_written_again_that_was_rejected_or_replaced() {
        let place = Place { unit: UnitName::from("crm/a"), token: TokenName::from("t") };
        let secrets = &GrantSecrets { material: Material::RefreshToken("rt".into()), ..GrantSecrets::default() };
        let (attempt, next) = (&AttemptId::random(), Generation::new(7));
        let token = &Token {
            value: "at".into(),
            kind: TokenType::Bearer,
            generation: next,
            scopes: Scopes::default(),
            expiry: None,
        };
        for (unit, name, floor, written_again) in [
            ("crm/a", "t", 6, true),
            ("crm/a", "t", 7, false),
            ("crm/a", "t", 8, false),
            ("crm/a", "other", 8, true),
            ("crm/b", "t", 8, true),
        ] {
            let lately = Lately::default();
            lately.committed(&Commit { place: &place, attempt, expected: Generation::ZERO, next, secrets, token });
            lately.rejected(&UnitName::from(unit), &TokenName::from(name), Generation::new(floor));
            let write = lately.newer_than(&place.unit, Generation::ZERO).unwrap();
            assert_eq!(write.acknowledged().token.is_some(), written_again, "{unit} {name} {floor}");
        }
    }

    fn known(lately: &Lately, unit: &str, read: u64) -> Option<u64> {
        lately.newer_than(&UnitName::from(unit), Generation::new(read)).map(|write| write.revision.get())
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_write_of_a_unit_is_known_for_a_while() {
        let lately = Lately::default();
        for revision in [7, 9, 8] {
            write(&lately, "crm/a", revision);
        }
        assert_eq!(known(&lately, "crm/b", 0), None);
        for (read, newer) in [(0, Some(9)), (8, Some(9)), (9, None), (10, None)] {
            assert_eq!(known(&lately, "crm/a", read), newer, "{read}");
        }
        tokio::time::advance(REMEMBERED).await;
        write(&lately, "crm/b", 1);
        assert_eq!(known(&lately, "crm/a", 0), Some(9));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(known(&lately, "crm/a", 0), None);
        assert_eq!(lately.all().len(), 1);
    }

    #[tokio::test]
    async fn only_so_many_are_known_and_nothing_without_a_secret() {
        let lately = Lately::default();
        for number in 0..=MOST {
            write(&lately, &format!("crm/{number}"), 1);
        }
        assert_eq!((known(&lately, "crm/0", 0), known(&lately, "crm/1", 0)), (None, Some(1)));
        assert_eq!(lately.all().len(), MOST);
        let (unit, attempt, secrets) = (&UnitName::from("crm/x"), &AttemptId::random(), &GrantSecrets::default());
        let (expected, next) = (Generation::ZERO, Generation::new(1));
        lately.imported(&Import { unit, attempt, expected, next, secrets });
        assert_eq!(known(&lately, "crm/x", 0), None);
    }
}
