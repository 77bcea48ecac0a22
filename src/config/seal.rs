//! `[seal]`: the keys that encrypt every record at rest.

use std::{collections::BTreeSet, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    key::Key,
    reader::{Reader, Value},
    secret,
    store::Store,
    value::{Wrong, text},
};
use crate::secret::{ExposeSecret, SecretString};

pub(super) const KEYS: &[Key] = &[Key::hidden("keys")];

pub(super) const ROW_KEYS: &[Key] = &[Key::new("id"), Key::hidden("file"), Key::hidden("env")];

/// The seal.
#[derive(Clone, Debug, Default)]
pub struct Seal {
    /// The first key seals, every key opens. Empty only with the embedded store, where a key is made beside the
    /// database.
    pub keys: Vec<SealKey>,
}

/// One key; `Debug` shows its name alone.
#[derive(Clone)]
pub struct SealKey {
    /// Its name, which every record carries that it sealed.
    pub id: String,
    /// The key.
    pub key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Seal {
    let mut seen = BTreeSet::new();
    let rows = reader.tables("keys", ROW_KEYS);
    let keys = rows.iter().filter_map(|row| {
        let id = row.required("id", "\"2026-11\"", id);
        let key = secret::content(row, secret::Shape::Line).and_then(|content| key(row, &content));
        let id = id?;
        if !seen.insert(id.clone()) {
            row.misfit("id", "is the name of two keys", "write another name");
        }
        Some(SealKey { id, key: key? })
    });
    Seal { keys: keys.collect() }
}

/// A store that other hosts can read must not depend on a key that one replica made.
pub(super) fn fit(store_table: &Reader<'_>, seal_table: &Reader<'_>, store: Option<&Store>) {
    let rows = seal_table.value("keys").and_then(|value| value.get_ref().as_array());
    if matches!(store, Some(Store::Redis { .. })) && rows.is_none_or(|rows| rows.is_empty()) {
        store_table.misfit(
            "kind",
            "is \"redis\", and there is no key to encrypt what is kept there",
            "add [seal] with keys = [{ id = \"2026-11\", file = \"/path\" }]; `bearerd keygen` prints a key",
        );
    }
}

fn id(value: &Value<'_>) -> Result<String, Wrong> {
    let id = text(value)?;
    let good = id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let right = "write 1 to 64 letters, digits, '-', '_' or '.'";
    if good { Ok(id.to_owned()) } else { Err(Wrong::new(value, "is not a key's name", right)) }
}

fn key(row: &Reader<'_>, content: &SecretString) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = STANDARD.decode(content.expose_secret()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(Zeroizing::new);
    if key.is_none() {
        let place = if row.value("file").is_some() { "file" } else { "env" };
        let right = "it must hold 32 bytes in base64, as `bearerd keygen` prints them";
        row.value(place)
            .into_iter()
            .for_each(|value| row.wrong(place, Wrong::new(value, "refers to no seal key", right)));
    }
    key
}
