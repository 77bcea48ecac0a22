//! Refreshing ahead of time, in the background, so that no caller waits for a provider while a valid token exists.
//!
//! Each token gets a timer when it enters this replica's memory. When the timer ends and the token was used since, it is
//! refreshed; if it was not, the next use asks for it. Which replica does it is left to chance and the lease.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::time::DelayQueue;
use tracing::{Instrument, error_span, field::Empty};

use super::{Core, Error, Target, decide};
use crate::{
    cache::Slot,
    clock::Moment,
    failure::FailureCause,
    token::{Generation, Life, Token, Wanted},
    trace::TraceId,
};

/// The shortest wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Where tokens are scheduled.
pub(super) struct Ahead {
    queue: mpsc::UnboundedSender<(Instant, Due)>,
}

/// A token whose time comes.
pub(super) struct Due {
    slot: Weak<Slot>,
    generation: Generation,
    /// Until then the grant can be saved if its answer was lost, so it is asked again whether or not the token is used.
    savable_until: Option<Instant>,
}

impl Ahead {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<(Instant, Due)>) {
        let (queue, due) = mpsc::unbounded_channel();
        (Self { queue }, due)
    }

    fn after(&self, wait: Duration, slot: &Arc<Slot>, generation: Generation, savable_until: Option<Instant>) {
        let due = Due { slot: Arc::downgrade(slot), generation, savable_until };
        // The receiver goes only with the broker itself.
        let _ = self.queue.send((Instant::now() + wait, due));
    }
}

/// Watches the timers until the broker is gone.
pub(super) async fn run(core: Weak<Core>, mut incoming: mpsc::UnboundedReceiver<(Instant, Due)>) {
    let mut timers: DelayQueue<Due> = DelayQueue::new();
    loop {
        tokio::select! {
            // Not by chance, so that the same happens again in a simulation.
            biased;
            scheduled = incoming.recv() => {
                let Some((at, due)) = scheduled else { return };
                timers.insert_at(due, at);
            }
            Some(expired) = timers.next(), if !timers.is_empty() => {
                let Some(core) = core.upgrade() else { return };
                core.timer_ended(expired.into_inner());
            }
        }
    }
}

impl Core {
    /// Sets the timer of a token.
    pub(super) fn schedule_ahead(&self, target: &Target, token: &Token, now: &Moment) {
        if let Some(wait) = due_in(target, token.life(), now, self.jitter()) {
            self.ahead.after(wait, &target.slot, token.generation, None);
        }
    }

    fn timer_ended(self: &Arc<Self>, due: Due) {
        let Some(slot) = due.slot.upgrade() else { return };
        if slot.generation() != Some(due.generation) {
            // The token was replaced meanwhile. That it is used is for the timer of its successor to see.
            return;
        }
        let roster = self.roster.load();
        let Some((credential, edition)) = roster.get(&slot.key.grant.credential) else { return };
        if edition != slot.edition {
            return;
        }
        let target = Target { credential: Arc::clone(credential), slot };
        // If this is the second timer, after a failure, the right to ask is taken anew.
        target.slot.unask_ahead(due.generation);
        let can_be_saved = due.savable_until.is_some_and(|until| Instant::now() < until);
        if target.slot.take_used() || target.credential.keep_alive || can_be_saved {
            self.refresh_ahead(&target, due.generation, due.savable_until);
        }
    }

    /// On the way of every served token: asks for a refresh if its time has come and its timer found it unused.
    pub(super) fn consider_ahead(self: &Arc<Self>, target: &Target, life: Life, now: &Moment) {
        // Without jitter the moment is the latest at which the timer ends, so the timer always comes first.
        if due_in(target, life, now, 1.0).is_some_and(|wait| wait.is_zero()) {
            self.refresh_ahead(target, life.generation, None);
        }
    }

    /// Has a token refreshed in the background, unless that was asked for before. Tells whether it is done now.
    pub(super) fn refresh_ahead(
        self: &Arc<Self>,
        target: &Target,
        generation: Generation,
        savable_until: Option<Instant>,
    ) -> bool {
        if !target.slot.ask_ahead(generation) {
            return false;
        }
        // A quiet grant would sleep through the time in which its provider takes the same refresh token again.
        let window = target.credential.profile.rotation.window();
        let savable_until = savable_until.or_else(|| window.map(|window| Instant::now() + window));
        let (core, target) = (Arc::clone(self), target.clone());
        let span =
            error_span!("refresh", action = Empty, credential = Empty, subject = Empty, trace_id = %TraceId::random());
        self.note_grant(&span, "ahead", &target.slot.key.grant);
        let refreshing = async move {
            let Err(error) = core.replace_ahead(&target, generation).await else { return };
            target.slot.set_degraded(true);
            tracing::warn!("refresh ahead of time failed: {error}; callers get the present token until it ends");
            if let Some(wait) = error.retry_after() {
                core.ahead.after(wait.max(RETRY), &target.slot, generation, savable_until);
            }
        };
        tokio::spawn(refreshing.instrument(span));
        true
    }

    async fn replace_ahead(self: &Arc<Self>, target: &Target, generation: Generation) -> Result<(), Error> {
        // Where asking twice is harmless there is no fate to look for, and nothing that the store would have to be there
        // for.
        if !target.credential.grant.repeating_is_harmless() && !self.may_replace_ahead(target).await? {
            // The refresh token's fate is unknown. As long as the token is valid, nothing is risked for a newer one.
            let cause = FailureCause::RefreshOutcomeUnknown;
            return Err(Error::Failed { cause, retry_after: Some(RETRY) });
        }
        let wanted = Wanted { refused: generation, min_remaining: Duration::ZERO };
        self.join(target, wanted, Instant::now() + self.timing.max_wait).await.map(drop)
    }

    async fn may_replace_ahead(&self, target: &Target) -> Result<bool, Error> {
        let known = self.load(target).await?;
        Ok(decide::may_replace_ahead(known.loaded.record.as_ref(), &self.recovery(&target.credential)))
    }
}

/// What is left until a token should be refreshed; `None` if it never should.
fn due_in(target: &Target, life: Life, now: &Moment, jitter: f64) -> Option<Duration> {
    let expiry = life.expiry?;
    decide::ahead(expiry.lifetime, expiry.deadline.remaining(now), target.credential.refresh_ahead, jitter)
}
