//! `[cache]`: the tokens that a replica holds in memory.

use std::time::Duration;

use super::{
    key::Key,
    reader::Reader,
    value::{duration, number},
};

pub(super) const KEYS: &[Key] = &[Key::new("max_tokens"), Key::new("max_age")];

/// The cache's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How many tokens are held.
    pub max_tokens: u64,
    /// How long a replica trusts its cache before it looks into a shared store again.
    pub max_age: Duration,
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Cache {
    Cache {
        max_tokens: reader.optional("max_tokens", number(1..=100_000_000)).unwrap_or(100_000),
        max_age: reader.optional("max_age", duration).unwrap_or(Duration::from_secs(5)),
    }
}
