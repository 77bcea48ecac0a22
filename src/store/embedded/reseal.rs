//! Going through the file step by step: the key of names, then grants, then tokens, each in the order of its keys.

use std::ops::Bound;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::file::{File, GRANTS, META, ROOT, TOKENS, away, encode, grant_row, token_row};
use crate::store::{
    Stepped, StoreError,
    census::Counter,
    names::{KEY_SEAT, UnitName},
    record::token_seat,
    seal::Sealed,
};

/// How many rows one step takes at most: nobody else writes meanwhile.
const ROWS: usize = 128;

/// The tables that hold many rows, by the word that stands in a position before the last key that was taken.
const TABLES: [(&str, Rows, Rewrite); 2] = [("grants", GRANTS, grant), ("tokens", TOKENS, token)];

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

/// Looks at a row; what it returns is written in its place.
type Rewrite = fn(&str, &[u8], &mut Counter<'_>) -> Result<Option<Vec<u8>>, StoreError>;

impl File {
    /// Goes one step. All of it is one transaction, so what is written anew is what was read.
    pub(super) fn reseal(&self, from: Option<&str>, reseal: bool) -> Result<Stepped, StoreError> {
        let mut counter = Counter::new(&self.ring, reseal);
        let next = self.write(|transaction| {
            if from.is_none() {
                root(transaction, &mut counter)?;
            }
            let (word, last) = from.and_then(|from| from.split_once(' ')).unwrap_or(("grants", ""));
            let at = TABLES.iter().position(|(name, _, _)| *name == word).unwrap_or_default();
            let Some((name, table, rewrite)) = TABLES.get(at) else { return Ok(None) };
            let last = rows(transaction, *table, last, *rewrite, &mut counter)?;
            let following = TABLES.get(at + 1).map(|(name, _, _)| format!("{name} "));
            Ok(last.map(|last| format!("{name} {last}")).or(following))
        })?;
        Ok(Stepped { census: counter.census, next })
    }
}

fn root(transaction: &WriteTransaction, counter: &mut Counter<'_>) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(away)?;
    let root = meta.get(ROOT).map_err(away)?.map(|value| Sealed(value.value().to_vec()));
    if let Some(root) = root
        && let Some(anew) = counter.look(&KEY_SEAT, &root)
    {
        meta.insert(ROOT, anew.0.as_slice()).map_err(away)?;
        counter.replaced(&anew);
    }
    Ok(())
}

/// Takes the rows after `last`, and returns the last one that was taken, if there may be more.
fn rows(
    transaction: &WriteTransaction,
    table: Rows,
    last: &str,
    rewrite: Rewrite,
    counter: &mut Counter<'_>,
) -> Result<Option<String>, StoreError> {
    let mut table = transaction.open_table(table).map_err(away)?;
    let mut anew = Vec::new();
    let (mut taken, mut end) = (0, None);
    for row in table.range::<&str>((Bound::Excluded(last), Bound::Unbounded)).map_err(away)?.take(ROWS) {
        let (key, value) = row.map_err(away)?;
        if let Some(row) = rewrite(key.value(), value.value(), counter)? {
            anew.push((key.value().to_owned(), row));
        }
        (taken, end) = (taken + 1, Some(key.value().to_owned()));
    }
    for (key, row) in anew {
        table.insert(key.as_str(), row.as_slice()).map_err(away)?;
    }
    Ok(end.filter(|_| taken == ROWS))
}

/// A row that cannot be read is for whoever asks for that grant; the others are sealed anew all the same.
fn grant(key: &str, bytes: &[u8], counter: &mut Counter<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let Ok(mut row) = grant_row(bytes) else {
        counter.damaged();
        return Ok(None);
    };
    let (unit, mut changed) = (UnitName::from(key), false);
    for (seat, sealed) in row.sealed_values(&unit) {
        if let Some(anew) = counter.look(&seat, sealed) {
            counter.replaced(&anew);
            (*sealed, changed) = (anew, true);
        }
    }
    changed.then(|| encode(&row)).transpose()
}

fn token(key: &str, bytes: &[u8], counter: &mut Counter<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let Ok(mut row) = token_row(bytes) else {
        counter.damaged();
        return Ok(None);
    };
    let Some(anew) = counter.look(&token_seat(key, row.generation), &row.sealed) else { return Ok(None) };
    counter.replaced(&anew);
    row.sealed = anew;
    encode(&row).map(Some)
}
