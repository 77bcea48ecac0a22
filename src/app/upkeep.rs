//! What is done again and again: the store is asked whether it is there, readiness follows, and gauges are kept true.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::store::OpenStore;
use crate::{audit::Audit, broker::Broker, server::Readiness, store::StoreError, telemetry::Telemetry};

/// How often the store is asked whether it is there.
const STORE_CHECK: Duration = Duration::from_secs(2);

/// How many of these checks lie between two sweeps of expired tokens, each of which writes to the disk.
const SWEEP_EVERY: u32 = 30;

/// How many checks in a row must say the same before it counts: a single one that is slow is no outage.
const IN_A_ROW: u32 = 2;

/// How often it is said that the store is still away.
const REMINDER: Duration = Duration::from_secs(5 * 60);

/// Runs until it is ended.
pub(super) async fn run(
    opened: OpenStore,
    audit: Audit,
    broker: Broker,
    telemetry: Arc<Telemetry>,
    ready: watch::Sender<Readiness>,
) {
    let mut tick = interval(STORE_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut store = StoreState::new();
    for round in (0..SWEEP_EVERY).cycle() {
        tick.tick().await;
        audit.tick();
        let answer = opened.store().ping().await;
        telemetry.store_up.set(i64::from(answer.is_ok()));
        telemetry.cached_tokens.set(i64::try_from(broker.cached_tokens()).unwrap_or(i64::MAX));
        let now = store.note(answer.is_ok(), Instant::now());
        tell(now, answer.err());
        ready.send_if_modified(|ready| {
            let next = if store.is_there { Readiness::Ready } else { Readiness::Degraded };
            // Whoever is stopping stays so.
            ready.serves() && std::mem::replace(ready, next) != next
        });
        if round == 0
            && let Err(error) = opened.sweep().await
        {
            warn!(%error, "expired tokens could not be swept");
        }
    }
}

/// One line for each change, and now and then one more.
fn tell(news: News, error: Option<StoreError>) {
    let cause = error.map(|error| error.to_string()).unwrap_or_default();
    match news {
        News::Lost => warn!(
            "lost the store: {cause}; valid tokens in memory are served and marked as degraded, anything else fails until \
             it is back"
        ),
        News::StillLost => warn!("the store is still away: {cause}; only valid tokens in memory are served"),
        News::Back => info!("the store answers again"),
        News::Nothing => {}
    }
}

/// What a check of the store leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Lost,
    StillLost,
    Back,
}

/// Whether the store is there, as far as it counts. It was there when it was opened.
struct StoreState {
    is_there: bool,
    /// How many checks in a row said the opposite.
    against: u32,
    told: Option<Instant>,
}

impl StoreState {
    fn new() -> Self {
        Self { is_there: true, against: 0, told: None }
    }

    fn note(&mut self, answers: bool, now: Instant) -> News {
        self.against = if answers == self.is_there { 0 } else { self.against + 1 };
        if self.against >= IN_A_ROW {
            (self.is_there, self.against) = (answers, 0);
            self.told = Some(now);
            return if answers { News::Back } else { News::Lost };
        }
        if !self.is_there && self.told.is_none_or(|told| now - told >= REMINDER) {
            self.told = Some(now);
            return News::StillLost;
        }
        News::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C-K7, N9, rows 51 and 52.
    #[test]
    fn a_change_is_told_once_and_then_rarely() {
        let (mut store, begin) = (StoreState::new(), Instant::now());
        let mut at = 0;
        let mut check = |answers: bool, times: usize| -> Vec<News> {
            (0..times)
                .map(|_| {
                    at += 2;
                    store.note(answers, begin + Duration::from_secs(at))
                })
                .collect()
        };
        assert_eq!(check(true, 3), [News::Nothing; 3]);
        // One slow answer is nothing, however often it happens.
        for _ in 0..5 {
            assert_eq!([check(false, 1), check(true, 1)].concat(), [News::Nothing; 2]);
        }
        assert_eq!(check(false, 2), [News::Nothing, News::Lost]);
        let hour = check(false, 1_800);
        assert_eq!(hour.iter().filter(|news| **news == News::StillLost).count(), 12);
        assert!(hour.iter().all(|news| matches!(news, News::StillLost | News::Nothing)));
        // One answer is nothing either.
        assert_eq!([check(true, 1), check(false, 1)].concat(), [News::Nothing; 2]);
        assert_eq!(check(true, 2), [News::Nothing, News::Back]);
        assert_eq!(check(true, 1_000), [News::Nothing; 1_000]);
    }
}
