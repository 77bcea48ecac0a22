//! Faults at random, and a note of each, so that afterwards it can be told what it excuses.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, sleep};

use super::{scene::Scene, witness::Intent};
use crate::support::{Flow, Way};

/// What can be done to replicas, their Redis and the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillReplica(usize),
    /// At this step of its next refresh.
    KillReplicaAt(usize, &'static str),
    /// After Redis was killed under an answer that it was to store.
    KillReplicaWithSpool(usize),
    StopReplica(usize),
    KillRedis,
    StopRedis,
    FlushScripts,
    KillConnections,
    CutFromRedis(usize, Cut),
    CutFromProvider(Cut),
    LoseAnswer,
}

/// What can be done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Hold,
    SwallowThere,
    SwallowBack,
    Reset,
    Refuse,
    Slow,
}

/// A fault that was done.
#[derive(Clone, Debug)]
pub struct Blow {
    pub fault: Fault,
    /// From when to when it was felt, in µs.
    from: u64,
    to: u64,
    /// What a killed replica had in its spool.
    pub spooled: Vec<String>,
}

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

const STEPS: &[&str] = &["claimed", "dispatched", "answered", "committed"];
const CUTS: &[Cut] = &[Cut::Hold, Cut::SwallowThere, Cut::SwallowBack, Cut::Reset, Cut::Refuse, Cut::Slow];

impl Fault {
    /// One of them.
    pub fn draw(random: &mut StdRng) -> Self {
        let replica = random.random_range(0..3);
        let cut = *CUTS.choose(random).unwrap();
        let step = *STEPS.choose(random).unwrap();
        match random.random_range(0..11) {
            10 if cfg!(feature = "failpoints") => Self::KillReplicaWithSpool(replica),
            1 if cfg!(feature = "failpoints") => Self::KillReplicaAt(replica, step),
            0 | 1 => Self::KillReplica(replica),
            2 => Self::StopReplica(replica),
            3 => Self::KillRedis,
            4 => Self::StopRedis,
            5 => Self::FlushScripts,
            6 => Self::KillConnections,
            7 => Self::CutFromRedis(replica, cut),
            8 => Self::CutFromProvider(cut),
            _ => Self::LoseAnswer,
        }
    }

    /// Its kind, for the figures.
    pub fn kind(self) -> &'static str {
        match self {
            Self::KillReplica(_) => "kill -9 of a replica",
            Self::KillReplicaAt(_, step) => match step {
                "claimed" => "kill -9 of a replica with the lease",
                "dispatched" => "kill -9 of a replica with the intent",
                "answered" => "kill -9 of a replica with the answer",
                _ => "kill -9 of a replica after its commit",
            },
            Self::KillReplicaWithSpool(_) => "kill -9 of Redis and then of a replica with the answer",
            Self::StopReplica(_) => "SIGSTOP of a replica",
            Self::KillRedis => "kill -9 of Redis",
            Self::StopRedis => "SIGSTOP of Redis",
            Self::FlushScripts => "SCRIPT FLUSH",
            Self::KillConnections => "CLIENT KILL",
            Self::CutFromRedis(..) => "network between a replica and Redis",
            Self::CutFromProvider(_) => "network to the provider",
            Self::LoseAnswer => "an answer lost",
        }
    }

    /// Does it.
    pub async fn strike(self, scene: &mut Scene) -> Blow {
        let from = now_us();
        let mut spooled = Vec::new();
        match self {
            Self::KillReplica(replica) => spooled = kill(scene, replica),
            Self::KillReplicaAt(replica, step) => {
                let _ = wait_for_step(&scene.replicas.each[replica].failpoints(), step).await;
                spooled = kill(scene, replica);
            }
            Self::KillReplicaWithSpool(replica) => {
                let failpoints = scene.replicas.each[replica].failpoints();
                if wait_for_step(&failpoints, "answered").await {
                    scene.replicas.redis.kill();
                    std::fs::remove_file(failpoints.join("answered.reached")).unwrap();
                    wait_for_step(&failpoints, "spooled").await;
                }
                spooled = kill(scene, replica);
            }
            Self::StopReplica(replica) => {
                if scene.replicas.each[replica].process().ended().is_none() {
                    scene.replicas.each[replica].process().signal("STOP");
                }
            }
            Self::KillRedis => scene.replicas.redis.kill(),
            Self::StopRedis => {
                if scene.replicas.redis.process().ended().is_none() {
                    scene.replicas.redis.process().signal("STOP");
                }
            }
            // Redis may be away at this very moment.
            Self::FlushScripts => scene.replicas.redis.attempt(&["SCRIPT", "FLUSH"]).await,
            Self::KillConnections => {
                for kind in ["normal", "pubsub"] {
                    scene.replicas.redis.attempt(&["CLIENT", "KILL", "TYPE", kind]).await;
                }
            }
            Self::CutFromRedis(replica, way) => cut(&scene.redis_lines[replica], way).await,
            Self::CutFromProvider(way) => cut(&scene.provider_line, way).await,
            Self::LoseAnswer => scene.provider_line.lose_next_answer(),
        }
        Blow { fault: self, from, to: u64::MAX, spooled }
    }
}

async fn cut(line: &crate::support::Proxy, cut: Cut) {
    match cut {
        Cut::Hold => line.set_both(Flow::Hold),
        Cut::SwallowThere => line.set(Way::There, Flow::Swallow),
        Cut::SwallowBack => line.set(Way::Back, Flow::Swallow),
        Cut::Reset => line.reset(),
        Cut::Refuse => {
            line.refuse().await;
            line.reset();
        }
        Cut::Slow => line.set_both(Flow::Late(Duration::from_millis(300))),
    }
}

/// Waits until a refresh stands at the step; but not for ever, because another replica may do all of them.
async fn wait_for_step(failpoints: &Path, step: &str) -> bool {
    std::fs::write(failpoints.join(step), []).unwrap();
    let (reached, give_up) = (failpoints.join(format!("{step}.reached")), Instant::now() + Duration::from_secs(6));
    while !reached.exists() && Instant::now() < give_up {
        sleep(Duration::from_millis(1)).await;
    }
    reached.exists()
}

fn kill(scene: &mut Scene, replica: usize) -> Vec<String> {
    scene.replicas.each[replica].process().kill();
    let names = scene.spooled(replica).into_iter();
    names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// Makes everything well again: Redis and the network first, because replicas need them to start.
pub async fn heal(scene: &mut Scene, blows: &mut [Blow], logs: &mut String) {
    for line in scene.redis_lines.iter().chain([&scene.provider_line]) {
        line.heal().await;
    }
    if scene.replicas.redis.process().ended().is_some() {
        scene.replicas.redis.start_again().await;
    } else {
        scene.replicas.redis.process().signal("CONT");
    }
    for replica in 0..3 {
        for file in scene.replicas.each[replica].failpoints().read_dir().unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        if scene.replicas.each[replica].process().ended().is_some() {
            logs.push_str(&format!("--- replica {replica}, killed\n{}", scene.replicas.each[replica].log()));
            scene.replicas.restart(replica).await;
        } else {
            scene.replicas.each[replica].process().signal("CONT");
        }
    }
    for blow in blows {
        blow.to = now_us();
    }
}

impl Blow {
    /// Whether callers of a replica may find nobody.
    pub fn silences_a_replica(&self) -> bool {
        match self.fault {
            Fault::KillReplica(_)
            | Fault::KillReplicaAt(..)
            | Fault::KillReplicaWithSpool(_)
            | Fault::StopReplica(_) => true,
            Fault::KillRedis
            | Fault::StopRedis
            | Fault::FlushScripts
            | Fault::KillConnections
            | Fault::CutFromRedis(..)
            | Fault::CutFromProvider(_)
            | Fault::LoseAnswer => false,
        }
    }

    /// Why the grant could end although bearerd did what it promises: what was sent with `first` was answered, and
    /// before the answer was stored `second` was sent. `sender` is the replica of the first.
    pub fn excuses(&self, sender: usize, first: &Intent, second: &Intent, takeover: u64) -> Option<&'static str> {
        if self.to < first.at || second.at < self.from {
            return None;
        }
        let unanswered = first.settled.is_some();
        let passed = second.at - first.at >= takeover;
        match self.fault {
            Fault::KillReplica(replica) | Fault::KillReplicaAt(replica, _) | Fault::KillReplicaWithSpool(replica) => {
                let excuse = match self.spooled.contains(&first.attempt) {
                    false => Some("killed with the only copy of the answer"),
                    true if second.at < self.to => Some("its spool was away until others had to ask"),
                    true => None,
                };
                excuse.filter(|_| replica == sender)
            }
            Fault::StopReplica(replica) => (replica == sender && (passed || unanswered))
                .then_some("stopped with the answer until others had to ask"),
            Fault::CutFromRedis(replica, _) => {
                (replica == sender && passed).then_some("cut off from Redis with the answer until others had to ask")
            }
            Fault::CutFromProvider(_) | Fault::LoseAnswer => unanswered.then_some("the answer was lost on its way"),
            Fault::KillRedis | Fault::StopRedis | Fault::FlushScripts | Fault::KillConnections => None,
        }
    }
}
