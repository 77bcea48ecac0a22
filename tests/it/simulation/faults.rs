//! How much goes wrong in a run. Each run draws its own climate, so that some have one kind of trouble and much of it.

use std::{ops::Range, time::Duration};

use super::chance::Chance;

/// How often what goes wrong: once in so many times; zero is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Climate {
    /// A request to the store that is lost, before or after it was carried out.
    pub store_lost: u32,
    /// One that takes long, up to what a replica waits for.
    pub store_slow: u32,
    /// One that is carried out long after its sender gave it up.
    pub store_late: u32,
    /// A request to a provider that fails in a way that says that nothing was done.
    pub refused: u32,
    /// One of which no answer arrives.
    pub unanswered: u32,
    /// One that takes long.
    pub provider_slow: u32,
    /// One that arrives after its sender gave it up.
    pub provider_late: u32,
    /// Between two operations of callers: a replica dies.
    pub crash: u32,
    /// It does so at any step of its work with the store or a provider.
    pub fall: u32,
    /// A replica stands still, as a suspended machine does.
    pub pause: u32,
    /// It does so between two steps of a refresh.
    pub stall: u32,
    /// A replica loses the store.
    pub cut: u32,
    /// All replicas lose the store.
    pub outage: u32,
    /// The store forgets the last seconds, as one does that is restored, or loses what its replica did not have yet.
    pub rollback: u32,
    /// A replica is stopped in peace.
    pub retire: u32,
    /// A provider says for a while that good refresh tokens are none.
    pub ill: u32,
}

impl Climate {
    pub fn draw(chance: &Chance) -> Self {
        let often = |values: [u32; 3]| *chance.pick(&[0, values[0], values[1], values[2]]);
        Self {
            store_lost: often([200, 50, 12]),
            store_slow: often([100, 20, 6]),
            store_late: often([400, 100, 30]),
            refused: often([20, 8, 3]),
            unanswered: often([30, 10, 4]),
            provider_slow: often([20, 8, 3]),
            provider_late: often([0, 60, 20]),
            crash: often([80, 40, 20]),
            fall: often([2_000, 600, 200]),
            pause: often([80, 40, 20]),
            stall: often([60, 25, 10]),
            cut: often([60, 30, 15]),
            outage: often([90, 60, 30]),
            // What is forgotten excuses much, so most runs have none of it.
            rollback: if chance.one_in(6) { 50 } else { 0 },
            retire: often([90, 60, 40]),
            ill: often([80, 40, 20]),
        }
    }
}

/// What becomes of one request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFate {
    Good,
    LostBefore,
    LostAfter,
    Slow,
    Late,
}

impl StoreFate {
    pub fn draw(chance: &Chance, climate: &Climate) -> Self {
        if chance.one_in(climate.store_lost) {
            *chance.pick(&[Self::LostBefore, Self::LostAfter])
        } else if chance.one_in(climate.store_late) {
            Self::Late
        } else if chance.one_in(climate.store_slow) {
            Self::Slow
        } else {
            Self::Good
        }
    }

    /// How long the request travels, in ms.
    pub fn there(self) -> Range<u64> {
        match self {
            Self::Good | Self::LostBefore | Self::LostAfter => 5..40,
            Self::Slow => 40..1_800,
            Self::Late => 2_500..30_000,
        }
    }

    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Good => None,
            Self::LostBefore => Some("store: request lost"),
            Self::LostAfter => Some("store: reply lost"),
            Self::Slow => Some("store: slow"),
            Self::Late => Some("store: carried out late"),
        }
    }
}

/// What becomes of one request to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderFate {
    Good,
    /// The connection is refused.
    NotSent,
    /// 503, and nothing was done.
    Unavailable,
    /// 429.
    RateLimited,
    LostBefore,
    LostAfter,
    /// A status that says nothing, and nothing was done.
    UnclearBefore,
    /// A status that says nothing, after all was done.
    UnclearAfter,
    /// All was done, and the answer cannot be read.
    Garbled,
    Slow,
    Late,
}

impl ProviderFate {
    pub fn draw(chance: &Chance, climate: &Climate) -> Self {
        if chance.one_in(climate.refused) {
            *chance.pick(&[Self::NotSent, Self::Unavailable, Self::RateLimited])
        } else if chance.one_in(climate.unanswered) {
            *chance.pick(&[Self::LostBefore, Self::LostAfter, Self::UnclearBefore, Self::UnclearAfter, Self::Garbled])
        } else if chance.one_in(climate.provider_late) {
            Self::Late
        } else if chance.one_in(climate.provider_slow) {
            Self::Slow
        } else {
            Self::Good
        }
    }

    /// Whether the provider acts on the request.
    pub fn arrives(self) -> bool {
        match self {
            Self::Good | Self::LostAfter | Self::UnclearAfter | Self::Garbled | Self::Slow | Self::Late => true,
            Self::NotSent | Self::Unavailable | Self::RateLimited | Self::LostBefore | Self::UnclearBefore => false,
        }
    }

    /// How long the request, and then its answer, travels, in ms.
    pub fn there(self, limit: Duration) -> Range<u64> {
        let limit = u64::try_from(limit.as_millis()).unwrap();
        match self {
            Self::Slow => 200..limit * 2 / 3,
            Self::Late => limit + 1_000..limit * 4,
            Self::Good
            | Self::NotSent
            | Self::Unavailable
            | Self::RateLimited
            | Self::LostBefore
            | Self::LostAfter
            | Self::UnclearBefore
            | Self::UnclearAfter
            | Self::Garbled => 20..200,
        }
    }

    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Good => None,
            Self::NotSent => Some("provider: not reached"),
            Self::Unavailable => Some("provider: unavailable"),
            Self::RateLimited => Some("provider: rate limit"),
            Self::LostBefore => Some("provider: request lost"),
            Self::LostAfter => Some("provider: answer lost"),
            Self::UnclearBefore => Some("provider: unclear status, nothing done"),
            Self::UnclearAfter => Some("provider: unclear status, all done"),
            Self::Garbled => Some("provider: answer unreadable"),
            Self::Slow => Some("provider: slow"),
            Self::Late => Some("provider: request late"),
        }
    }
}
