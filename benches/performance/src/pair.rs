//! Two sides that take turns: A B A B …, so that a minute in which the machine is slower is one for both.

use crate::error::Error;

/// One measurement of each side, one right after the other.
#[derive(Clone, Debug)]
pub struct Pair<T> {
    /// bearerd.
    pub ours: T,
    /// What it is measured against.
    pub theirs: T,
}

/// Measures both sides in turn, so many times, after one turn each that does not count: it fills caches and pools.
pub fn take_turns<T>(
    rounds: usize,
    mut ours: impl FnMut() -> Result<T, Error>,
    mut theirs: impl FnMut() -> Result<T, Error>,
) -> Result<Vec<Pair<T>>, Error> {
    let mut turn = || Ok(Pair { ours: ours()?, theirs: theirs()? });
    turn()?;
    (0..rounds).map(|_| turn()).collect()
}
