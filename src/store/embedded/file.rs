//! The file of the embedded store: its tables, and the transactions on them.

use std::{
    io,
    ops::Bound,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    clock::Moment,
    file,
    name::CredentialName,
    store::{
        AttemptId, Found, Loaded, StoreError, Written,
        names::{Names, Place, UnitName},
        record::{GrantRow, StoredToken, micros, open_token, token_key},
        seal::{Ring, Sealed},
    },
    token::{Generation, Token},
};

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The row of [`META`] that holds the sealed key of names.
pub(super) const ROOT: &str = "naming";
pub(super) const GRANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("grants");
pub(super) const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// When which token expires, so that a sweep touches expired ones only.
const EXPIRIES: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiries");

/// How many expired tokens one sweep takes at most; the rest waits for the next.
const SWEEP_BATCH: usize = 1_000;

/// How many grants one step of a search looks at.
const PAGE: usize = 256;

/// The open file, and the keys to what is in it.
pub(super) struct File {
    database: Database,
    pub(super) ring: Ring,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is on disk now.
    Now,
    /// The same attempt made it before; nothing happened this time.
    Before,
    /// The revision was not the expected one, or the change itself refused.
    Refused,
}

impl From<Changed> for Written {
    fn from(changed: Changed) -> Self {
        match changed {
            Changed::Now | Changed::Before => Self::Done,
            Changed::Refused => Self::Moved,
        }
    }
}

/// Makes the file for its owner alone, or takes from other users what they can do with the one that is there.
fn own(path: &Path) -> io::Result<()> {
    match file::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match file::close_to_others(path) {
                Ok(false) => {}
                Ok(true) => {
                    warn!(database = %path.display(), "every user of this host could use the database; its mode was changed");
                }
                Err(error) => {
                    warn!(database = %path.display(), %error, "every user of this host may be able to use the database; run chmod o= on it");
                }
            }
            Ok(())
        }
        created => created.map(drop),
    }
}

/// A token as it stands in the file.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenRow {
    pub(super) generation: Generation,
    pub(super) expires_us: Option<u64>,
    pub(super) sealed: Sealed,
}

impl File {
    /// Opens the file, or makes it. A file that another process has open is refused.
    pub(super) fn open(path: &Path, ring: Ring) -> Result<Self, StoreError> {
        own(path).map_err(|error| StoreError::Open(format!("{}: {error}", path.display())))?;
        let database = Database::create(path).map_err(|error| {
            let in_use = matches!(error, DatabaseError::DatabaseAlreadyOpen);
            let why = if in_use { "it is in use by another process".to_owned() } else { error.to_string() };
            StoreError::Open(format!("{}: {why}", path.display()))
        })?;
        Ok(Self { database, ring })
    }

    /// The maker of names, by the key in this file; the key is drawn when the file is new.
    pub(super) fn names(&self) -> Result<Names, StoreError> {
        let fresh = Names::draw_sealed_key(&self.ring)?;
        let sealed = self.write(|transaction| {
            let mut meta = transaction.open_table(META).map_err(away)?;
            let kept = meta.get(ROOT).map_err(away)?.map(|value| value.value().to_vec());
            if kept.is_none() {
                meta.insert(ROOT, fresh.as_slice()).map_err(away)?;
            }
            // Every table exists from here on, so that reading never meets a missing one.
            transaction.open_table(GRANTS).map_err(away)?;
            transaction.open_table(TOKENS).map_err(away)?;
            transaction.open_table(EXPIRIES).map_err(away)?;
            Ok(kept.unwrap_or_else(|| fresh.clone()))
        })?;
        Names::open(&self.ring, &sealed)
    }

    /// The sealed key of names.
    pub(super) fn root(&self) -> Result<Vec<u8>, StoreError> {
        let transaction = self.database.begin_read().map_err(away)?;
        let meta = transaction.open_table(META).map_err(away)?;
        let root = meta.get(ROOT).map_err(away)?.map(|value| value.value().to_vec());
        root.ok_or_else(|| StoreError::Unreadable("the key of names is missing".into()))
    }

    /// Whether the file can be read.
    pub(super) fn ping(&self) -> Result<(), StoreError> {
        self.database.begin_read().map(drop).map_err(away)
    }

    /// Deletes tokens that have expired and tells how many.
    pub(super) fn sweep(&self) -> Result<usize, StoreError> {
        self.write(|transaction| sweep(transaction, now_us()))
    }

    /// Reads a place.
    pub(super) fn load(&self, place: &Place) -> Result<Loaded, StoreError> {
        let asked = Moment::now();
        let now = now_us();
        let transaction = self.database.begin_read().map_err(away)?;
        let grants = transaction.open_table(GRANTS).map_err(away)?;
        let row = grants.get(place.unit.as_str()).map_err(away)?.map(|value| grant_row(value.value())).transpose()?;
        let since = row.as_ref().map_or(Generation::ZERO, |row| row.since);
        let tokens = transaction.open_table(TOKENS).map_err(away)?;
        let token = tokens.get(token_key(place).as_str()).map_err(away)?.map(|v| token_row(v.value())).transpose()?;
        let token = match token {
            Some(token) if token.generation >= since => self.open_token(place, &token, now, &asked)?,
            Some(_) | None => None,
        };
        let record = row.map(|row| row.open(&self.ring, &place.unit, now)).transpose()?;
        let next = record.as_ref().map_or(Generation::ZERO, |record| record.revision).next(now);
        Ok(Loaded { record, token, next, refusal: None })
    }

    fn open_token(&self, place: &Place, row: &TokenRow, now: u64, asked: &Moment) -> Result<Option<Token>, StoreError> {
        let remaining = row.expires_us.map(|at| Duration::from_micros(at.saturating_sub(now)));
        let stored = StoredToken { generation: row.generation, sealed: &row.sealed, remaining, now_us: now };
        open_token(&self.ring, place, &stored, asked)
    }

    /// Writes a new revision of a grant, and the token that came with it, in one transaction. Everything that was noted
    /// of the revision before is gone. A grant without a token is one that was handed over: tokens that are older than
    /// it are not its own.
    pub(super) fn advance(
        &self,
        unit: &UnitName,
        expected: Generation,
        new: GrantRow,
        token: Option<(&Place, &TokenRow)>,
    ) -> Result<Changed, StoreError> {
        self.write(|transaction| {
            let row = read_row(transaction, unit)?;
            if row.rev != expected {
                return Ok(if row.attempt == new.attempt { Changed::Before } else { Changed::Refused });
            }
            let new = match token {
                Some(_) => GrantRow { since: row.since, strikes: row.strikes, past: row.written_before(), ..new },
                None => GrantRow { since: new.rev, ..new },
            };
            write_row(transaction, unit, &new)?;
            if let Some((place, token)) = token {
                put_token(transaction, &token_key(place), token)?;
            }
            Ok(Changed::Now)
        })
    }

    /// Keeps an answer beside a grant, unless another grant took the place of its own, the answer was stored before, or a
    /// newer one is kept.
    pub(super) fn quarantine(
        &self,
        unit: &UnitName,
        attempt: &AttemptId,
        expected: Generation,
        next: Generation,
        sealed: Sealed,
    ) -> Result<Written, StoreError> {
        self.write(|transaction| {
            let row = read_row(transaction, unit)?;
            let stored = row.past.iter().any(|past| past == attempt.as_str());
            if row.rev == Generation::ZERO || row.since > expected || stored {
                return Ok(Written::Moved);
            }
            if row.q_rev < next {
                write_row(transaction, unit, &GrantRow { q_rev: next, q_sealed: Some(sealed), ..row })?;
            }
            Ok(Written::Done)
        })
    }

    /// Writes a new revision of the same grant, which keeps its tokens.
    pub(super) fn adopt(&self, unit: &UnitName, expected: Generation, new: GrantRow) -> Result<Written, StoreError> {
        self.write(|transaction| {
            let row = read_row(transaction, unit)?;
            if row.rev != expected {
                return Ok(if row.attempt == new.attempt { Written::Done } else { Written::Moved });
            }
            let past = row.written_before();
            write_row(transaction, unit, &GrantRow { since: row.since, strikes: row.strikes, past, ..new })?;
            Ok(Written::Done)
        })
    }

    /// Writes a revision that is newer than the stored one, and its token.
    pub(super) fn reassert(
        &self,
        unit: &UnitName,
        new: GrantRow,
        token: Option<(&Place, &TokenRow)>,
    ) -> Result<Written, StoreError> {
        self.write(|transaction| {
            let row = read_row(transaction, unit)?;
            if row.rev >= new.rev {
                return Ok(Written::Moved);
            }
            write_row(transaction, unit, &GrantRow { strikes: row.strikes, ..new })?;
            if let Some((place, token)) = token {
                put_token(transaction, &token_key(place), token)?;
            }
            Ok(Written::Done)
        })
    }

    /// Changes a grant if it has the expected revision and the change itself does not refuse.
    pub(super) fn change(
        &self,
        unit: &UnitName,
        expected: Generation,
        change: impl FnOnce(&mut GrantRow) -> Written,
    ) -> Result<Written, StoreError> {
        self.write(|transaction| {
            let mut row = read_row(transaction, unit)?;
            if row.rev != expected {
                return Ok(Written::Moved);
            }
            let written = change(&mut row);
            if written == Written::Done {
                write_row(transaction, unit, &row)?;
            }
            Ok(written)
        })
    }

    /// Withdraws the intent of an attempt that was refused, and remembers that it ended.
    pub(super) fn settle_attempt(
        &self,
        unit: &UnitName,
        expected: Generation,
        attempt: &AttemptId,
    ) -> Result<Changed, StoreError> {
        self.write(|transaction| {
            let mut row = read_row(transaction, unit)?;
            if row.rev != expected {
                return Ok(Changed::Refused);
            }
            if row.settled.as_deref() == Some(attempt.as_str()) {
                return Ok(Changed::Before);
            }
            row.withdraw(attempt.as_str());
            row.settled = Some(attempt.as_str().to_owned());
            write_row(transaction, unit, &row)?;
            Ok(Changed::Now)
        })
    }

    /// Deletes the token of a place if it is of this generation or older, and notes the strikes of its grant.
    pub(super) fn reject(&self, place: &Place, generation: Generation, strikes: u32) -> Result<(), StoreError> {
        self.write(|transaction| {
            remove_token(transaction, &token_key(place), |row| row.generation <= generation)?;
            let row = read_row(transaction, &place.unit)?;
            if row == GrantRow::default() {
                return Ok(());
            }
            write_row(transaction, &place.unit, &GrantRow { strikes, ..row })
        })
    }

    /// The dead grants of a credential after this one, of at most [`PAGE`] that are looked at.
    pub(super) fn dead_grants(&self, credential: &CredentialName, from: Option<&str>) -> Result<Found, StoreError> {
        let (now, prefix) = (now_us(), format!("{}/", credential.as_str()));
        let transaction = self.database.begin_read().map_err(away)?;
        let table = transaction.open_table(GRANTS).map_err(away)?;
        let first = from.filter(|from| from.starts_with(&prefix)).unwrap_or(&prefix);
        let (mut found, mut last) = (Found { grants: Vec::new(), next: None }, None);
        let rows = table.range::<&str>((Bound::Excluded(first), Bound::Unbounded)).map_err(away)?;
        for (index, entry) in rows.enumerate() {
            let (key, value) = entry.map_err(away)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            if index == PAGE {
                found.next = last;
                break;
            }
            last = Some(key.value().to_owned());
            let unit = UnitName::from(key.value());
            // One that cannot be read is for whoever asks for that grant.
            let row = grant_row(value.value()).ok().filter(|row| row.dead.is_some());
            let record = row.and_then(|row| row.open(&self.ring, &unit, now).ok());
            found.grants.extend(record.map(|record| (unit, record)));
        }
        Ok(found)
    }

    /// Runs one transaction; it is on disk when this returns.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.database.begin_write().map_err(away)?;
        let result = work(&transaction)?;
        transaction.commit().map_err(away)?;
        Ok(result)
    }
}

fn read_row(transaction: &WriteTransaction, unit: &UnitName) -> Result<GrantRow, StoreError> {
    let grants = transaction.open_table(GRANTS).map_err(away)?;
    let row = grants.get(unit.as_str()).map_err(away)?.map(|value| grant_row(value.value())).transpose()?;
    Ok(row.unwrap_or_default())
}

fn write_row(transaction: &WriteTransaction, unit: &UnitName, row: &GrantRow) -> Result<(), StoreError> {
    let mut grants = transaction.open_table(GRANTS).map_err(away)?;
    grants.insert(unit.as_str(), encode(row)?.as_slice()).map_err(away)?;
    Ok(())
}

fn put_token(transaction: &WriteTransaction, key: &str, row: &TokenRow) -> Result<(), StoreError> {
    remove_token(transaction, key, |_| true)?;
    let mut tokens = transaction.open_table(TOKENS).map_err(away)?;
    tokens.insert(key, encode(row)?.as_slice()).map_err(away)?;
    if let Some(at) = row.expires_us {
        transaction.open_table(EXPIRIES).map_err(away)?.insert((at, key), ()).map_err(away)?;
    }
    Ok(())
}

fn remove_token(
    transaction: &WriteTransaction,
    key: &str,
    condition: impl FnOnce(&TokenRow) -> bool,
) -> Result<(), StoreError> {
    let mut tokens = transaction.open_table(TOKENS).map_err(away)?;
    let row = tokens.get(key).map_err(away)?.map(|value| token_row(value.value())).transpose()?;
    let Some(row) = row.filter(condition) else { return Ok(()) };
    tokens.remove(key).map_err(away)?;
    if let Some(at) = row.expires_us {
        transaction.open_table(EXPIRIES).map_err(away)?.remove((at, key)).map_err(away)?;
    }
    Ok(())
}

fn sweep(transaction: &WriteTransaction, now: u64) -> Result<usize, StoreError> {
    let mut expiries = transaction.open_table(EXPIRIES).map_err(away)?;
    let mut tokens = transaction.open_table(TOKENS).map_err(away)?;
    let mut due = Vec::new();
    for entry in expiries.range(..(now, "")).map_err(away)?.take(SWEEP_BATCH) {
        let (key, ()) = entry.map(|(key, _)| (key, ())).map_err(away)?;
        let (at, name) = key.value();
        due.push((at, name.to_owned()));
    }
    for (at, name) in &due {
        expiries.remove((*at, name.as_str())).map_err(away)?;
        tokens.remove(name.as_str()).map_err(away)?;
    }
    Ok(due.len())
}

pub(super) fn grant_row(bytes: &[u8]) -> Result<GrantRow, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Unreadable("a grant's row is damaged".into()))
}

pub(super) fn token_row(bytes: &[u8]) -> Result<TokenRow, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Unreadable("a token's row is damaged".into()))
}

pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(row).map_err(|_| StoreError::Unreadable("a row cannot be written".into()))
}

/// The clock of this store: the machine's wall clock, as the file outlives the process.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

pub(super) fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
