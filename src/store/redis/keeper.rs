//! The task that replaces all connections whenever one is lost, leads to a server that takes no writes any more, or brings
//! nothing of what is said on the channel.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisResult};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info};

use super::{
    contact::{Pushes, in_time, passing},
    dial::Dialer,
    event::Push,
    first_look,
    link::{Line, RESPONSE_TIMEOUT, State},
    primaries::Primaries,
    pulse::Pulse,
};
use crate::store::{Event, StoreError};

/// Pauses between tries to connect double from the one to the other.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A line that stood this long was a good one, and the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(10);

/// What makes connections, one line at a time and for as long as somebody has a [`Link`].
pub(super) struct Keeper {
    pub(super) dialer: Arc<Dialer>,
    pub(super) state: watch::Sender<State>,
    pub(super) useless: watch::Receiver<u64>,
    pub(super) events: broadcast::Sender<Event>,
    /// What was said of how the servers are set up.
    pub(super) told: HashSet<String>,
    pub(super) pause: Duration,
}

impl Keeper {
    pub(super) async fn keep(mut self, mut line: Line, mut pushes: Pushes) {
        loop {
            let began = Instant::now();
            if !self.listen(&line, pushes).await {
                return;
            }
            if began.elapsed() > STEADY {
                self.pause = FIRST_PAUSE;
            }
            info!(
                "lost the connection to Redis; connecting again, and each token in memory is looked up before it counts as fresh"
            );
            self.state.send_replace(None);
            tell(&self.events, Event::Gap);
            let Some((primaries, heard)) = self.redial().await else { return };
            info!("connected to Redis again");
            line = Line { primaries: Arc::new(primaries), number: line.number + 1 };
            self.state.send_replace(Some(Ok(line.clone())));
            tell(&self.events, Event::Heard);
            pushes = heard;
        }
    }

    /// Passes on what is heard until the line is lost, silent or of no use; false if nobody is there who would use one.
    async fn listen(&mut self, line: &Line, mut pushes: Pushes) -> bool {
        let Self { useless, events, dialer, .. } = self;
        let mut pulse = Pulse::new(Instant::now(), rand::random());
        loop {
            tokio::select! {
                // What has arrived counts before the time that has passed.
                biased;
                push = pushes.recv() => match push.as_ref().map(|push| dialer.channel().meaning(push)) {
                    None | Some(Some(Push::Lost)) => return true,
                    Some(Some(Push::Changed(change))) => tell(events, Event::Changed(change)),
                    Some(Some(Push::Unverified { unit, token })) => tell(events, Event::Unverified { unit, token }),
                    Some(Some(Push::Heartbeat)) => pulse = Pulse::new(Instant::now(), rand::random()),
                    Some(None) => {}
                },
                told = useless.wait_for(|worst| *worst >= line.number) => return told.is_ok(),
                () = sleep_until(pulse.end) => {
                    info!("heard nothing on the channel of Redis for too long; replacing the connection");
                    return true;
                }
                () = sleep_until(pulse.due) => {
                    say(dialer, line);
                    pulse.said(Instant::now(), rand::random());
                }
            }
        }
    }

    /// Tries until there is a connection. Meanwhile commands fail at once, with the reason.
    async fn redial(&mut self) -> Option<(Primaries, Pushes)> {
        while !self.state.is_closed() {
            // Many replicas lose the same server at the same time.
            sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            match self.dialer.dial().await {
                Ok((primaries, pushes)) => match self.examine(&primaries).await {
                    Ok(()) => return Some((primaries, pushes)),
                    Err(error) => drop(self.state.send_replace(Some(Err(error)))),
                },
                Err(error) => drop(self.state.send_replace(Some(Err(error)))),
            }
        }
        None
    }
}

impl Keeper {
    /// Looks at the servers as when the store was opened: a failover may lead to one that would lose grants.
    async fn examine(&mut self, primaries: &Primaries) -> RedisResult<()> {
        let looked = first_look::examine(primaries, self.dialer.durability(), &self.told).await;
        let refused = |why: String| (ErrorKind::InvalidClientConfig, "the server cannot be used", why).into();
        match looked {
            Ok(told) => self.told = told,
            Err(StoreError::Unavailable(why) | StoreError::Unreadable(why)) => return Err(passing(why)),
            Err(StoreError::Open(why)) => {
                if self.told.insert(why.clone()) {
                    error!(
                        "{why}; it is not used, and valid tokens in memory are served as degraded until that is mended"
                    );
                }
                return Err(refused(why));
            }
        }
        Ok(())
    }
}

/// Nobody waits for the answer: what counts is whether it is heard.
fn say(dialer: &Arc<Dialer>, line: &Line) {
    let (dialer, primaries) = (Arc::clone(dialer), Arc::clone(&line.primaries));
    tokio::spawn(async move { in_time(RESPONSE_TIMEOUT, dialer.say(&primaries)).await });
}

fn tell(events: &broadcast::Sender<Event>, event: Event) {
    // Nobody listening is no fault.
    let _ = events.send(event);
}
