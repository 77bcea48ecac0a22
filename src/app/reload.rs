//! Putting a changed configuration in force while calls are served: credentials, policy, callers' own tokens and seal keys,
//! all or nothing.

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::{
    login::StoreLogin,
    store::{self, OpenStore},
};
use crate::{
    api::Live,
    audit::{Audit, Configured},
    config::{Config, ConfigErrors, ReadFile},
    store::{Ring, StoreError, spool::Spool},
    telemetry::{ReloadLabels, Telemetry},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the configuration anew.
pub(super) type Load = Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// What a change is put in force with.
pub(super) struct Change {
    /// What the process was started with: settings that cannot change are still those.
    pub(super) started: Config,
    pub(super) opened: OpenStore,
    pub(super) login: StoreLogin,
    /// The seal keys that store and spool use.
    pub(super) ring: Ring,
    pub(super) spool: Option<Spool>,
    pub(super) api: Live,
    pub(super) audit: Audit,
    pub(super) telemetry: Arc<Telemetry>,
}

/// Why a change is not in force.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// It has mistakes. Each is told where it stands in the file, as at the start.
    #[error("the changed configuration has {} mistakes:\n{}", .0.count(), .0.render(false))]
    Mistakes(ConfigErrors),
    /// The store does not open with the seal keys, or does not answer.
    #[error("the changed [seal] cannot be used: {0}")]
    Seal(#[from] StoreError),
    /// It has no rows, and this process was started with what cannot do without: no rows mean that whoever is on this
    /// host may do everything, and somebody else may be at the other end.
    #[error("there is no [[allow]] any more, and `{0}` needs one for as long as this process runs")]
    NeedsRows(String),
    /// The task that reads it ended.
    #[error("the configuration was not read to its end")]
    Ended,
}

/// Follows the files until the task is ended.
pub(super) async fn follow(change: Change, load: Load, mut hangup: Signal) {
    let mut files = change.started.files.clone();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            heard = hangup.recv() => heard.is_some(),
        };
        change.login.look().await;
        let looked = spawn_blocking(move || (files.iter().any(ReadFile::has_changed), files)).await;
        let Ok((changed, same)) = looked else { return };
        files = same;
        if asked || changed {
            let outcome = change.reload(&load, &mut files).await;
            change.tell(outcome);
        }
    }
}

impl Change {
    /// Reads everything anew and puts it in force; what is to be watched from now on is in `files`, whatever comes of it.
    async fn reload(&self, load: &Load, files: &mut Vec<ReadFile>) -> Result<Config, Refused> {
        let load = Arc::clone(load);
        let read = spawn_blocking(move || load()).await.map_err(|_| Refused::Ended)?;
        match read {
            Ok(config) => {
                // First: a store that wants another login cannot be asked whether the keys open it.
                self.login.change(&config.store).await;
                let put = self.put_in_force(&config).await;
                // A store that is away does not make the change a bad one: it is tried again at the next look.
                if !matches!(put, Err(Refused::Seal(StoreError::Unavailable(_)))) {
                    files.clone_from(&config.files);
                }
                put.map(|()| config)
            }
            Err(errors) => {
                *files = errors.files().to_vec();
                Err(Refused::Mistakes(errors))
            }
        }
    }

    /// The keys first: nothing of the new configuration is in force if they do not open this store.
    async fn put_in_force(&self, config: &Config) -> Result<(), Refused> {
        if let Some(setting) = self.started.still_needs_rows(config) {
            return Err(Refused::NeedsRows(setting));
        }
        let ring = store::ring(&self.started.store, &config.seal)?;
        self.opened.opens_with(&ring).await?;
        self.ring.replace_with(&ring);
        self.api.change(config.credentials.clone(), config.policy(), config.identity.config.tokens.clone());
        if let Some(spool) = &self.spool {
            // Nobody else gets to the files of this host.
            spool.reseal(true).await;
        }
        Ok(())
    }

    fn tell(&self, outcome: Result<Config, Refused>) {
        let result = match &outcome {
            Ok(config) => {
                for warning in &config.warnings {
                    warn!("about the changed configuration: {}", warning.title());
                }
                for setting in self.started.needs_restart(config) {
                    warn!("`{setting}` was changed and needs a restart; the old value stays in force");
                }
                let (credentials, rows) = (config.credentials.len(), config.allow.len());
                info!(credentials, rows, "the configuration was read anew and is in force");
                "ok"
            }
            Err(refused) => {
                error!("the old configuration stays in force: {refused}");
                "refused"
            }
        };
        match &outcome {
            Ok(config) => self.audit.configured(Configured::Reloaded, Some(&config.digest)),
            Err(_) => self.audit.configured(Configured::Refused, None),
        }
        self.telemetry.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.telemetry.configuration_current.set(i64::from(outcome.is_ok()));
    }
}
