//! All chance of a run, from one seed.

use std::{ops::Range, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub struct Chance(Mutex<StdRng>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Whether what happens once in so many times happens now. Zero: never.
    pub fn one_in(&self, times: u32) -> bool {
        times > 0 && self.0.lock().random_range(0..times) == 0
    }

    pub fn number(&self, range: Range<usize>) -> usize {
        self.0.lock().random_range(range)
    }

    pub fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.lock().random_range(range))
    }

    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.number(0..items.len())]
    }

    pub fn seed(&self) -> u64 {
        self.0.lock().random()
    }
}
