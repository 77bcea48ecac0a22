//! Opening the configured store.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::FutureExt;
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{
    config, file,
    secret::SecretString,
    store::{
        Ring, Store, StoreError,
        embedded::Embedded,
        redis::{Redis, RedisConfig},
        spool::Spool,
    },
};

/// A store that was opened, with what only its kind needs.
#[derive(Clone)]
pub(super) enum OpenStore {
    Embedded(Arc<Embedded>),
    Redis(Arc<Redis>),
}

impl OpenStore {
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::<Embedded>::clone(store),
            Self::Redis(store) => Arc::<Redis>::clone(store),
        }
    }

    /// Whether these seal keys are this store's: whether they open its first record.
    pub(super) async fn opens_with(&self, ring: &Ring) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.opens_with(ring).await,
            Self::Redis(store) => store.opens_with(ring).await,
        }
    }

    /// Logs in with what the files of this configuration hold now. The error is a few words on why they cannot be read.
    pub(super) async fn log_in_as(&self, store: config::Store) -> Result<(), String> {
        let Self::Redis(redis) = self else { return Ok(()) };
        // A file system that does not answer must hold up nothing else.
        let read = spawn_blocking(move || redis_settings(&store, config::Source::read)).await;
        match read.map_err(|error| error.to_string())?? {
            Some(settings) => redis.log_in_as(&settings).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Deletes expired tokens where the store does not do so by itself.
    pub(super) async fn sweep(&self) -> Result<usize, StoreError> {
        match self {
            Self::Embedded(store) => store.sweep().await,
            Self::Redis(_) => Ok(0),
        }
    }
}

/// The seal keys of a store: the configured ones, or the one beside the database.
pub(super) fn ring(store: &config::Store, seal: &config::Seal) -> Result<Ring, StoreError> {
    match store {
        config::Store::Embedded { path } if seal.keys.is_empty() => own_ring(path),
        config::Store::Embedded { .. } | config::Store::Redis { .. } => {
            let keys = seal.keys.iter().map(|key| (key.id.as_str(), key.key.as_slice()));
            Ring::new(keys).map_err(|error| StoreError::Open(error.to_string()))
        }
    }
}

/// Opens the store with its seal keys.
pub(super) async fn open(store: &config::Store, ring: Ring) -> Result<OpenStore, StoreError> {
    match store {
        config::Store::Embedded { path } => Ok(OpenStore::Embedded(Arc::new(Embedded::open(path, ring)?))),
        config::Store::Redis { .. } => {
            let settings = redis_settings(store, |source| Ok(source.content().clone())).map_err(StoreError::Open)?;
            let settings = settings.ok_or_else(|| StoreError::Open("the store is no Redis".into()))?;
            // Boxed: what it takes to find a server is deeper than the compiler follows from here.
            let opened = Redis::open(&settings, ring).boxed().await?;
            Ok(OpenStore::Redis(Arc::new(opened)))
        }
    }
}

/// How to reach Redis, its secrets read in this way; `None` where the store is another one.
fn redis_settings(
    store: &config::Store,
    read: impl Fn(&config::Source) -> Result<SecretString, String>,
) -> Result<Option<RedisConfig>, String> {
    let config::Store::Redis {
        url,
        prefix,
        username,
        password,
        sentinel_username,
        sentinel_password,
        wait_replicas,
        wait_fsync,
        ca,
        spool: _,
    } = store
    else {
        return Ok(None);
    };
    Ok(Some(RedisConfig {
        url: read(url)?,
        username: username.clone(),
        password: password.as_ref().map(&read).transpose()?,
        sentinel_username: sentinel_username.clone(),
        sentinel_password: sentinel_password.as_ref().map(&read).transpose()?,
        prefix: prefix.clone(),
        wait_replicas: *wait_replicas,
        wait_fsync: *wait_fsync,
        ca: ca.clone(),
    }))
}

/// Opens the spool, where one is configured. The embedded store needs none: it is a file of this host itself.
pub(super) fn spool(store: &config::Store, ring: &Ring) -> Result<Option<Spool>, StoreError> {
    match store {
        config::Store::Embedded { .. } => Ok(None),
        config::Store::Redis { spool, .. } => {
            spool.as_ref().map(|directory| Spool::open(directory, ring.clone())).transpose()
        }
    }
}

/// The key beside the database, for those who configure none. It is made on the first start.
fn own_ring(database: &Path) -> Result<Ring, StoreError> {
    let path = key_path(database);
    let refused = |what: &dyn std::fmt::Display| StoreError::Open(format!("{}: {what}", path.display()));
    if path.exists() {
        file::refuse_writable(&path).map_err(|error| refused(&error))?;
        if file::close_to_others(&path).map_err(|error| refused(&error))? {
            warn!(key = %path.display(), "every user of this host could read the seal key; its mode was changed to keep them out");
        }
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        // A database without its key cannot be read; a new key would only hide why.
        Err(error) if error.kind() == ErrorKind::NotFound && database.exists() => {
            return Err(refused(&format!("the key of {} is missing", database.display())));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make_key(&path).map_err(|error| refused(&error))?,
        Err(error) => return Err(refused(&error)),
    };
    let key = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| refused(&"holds no key"))?);
    info!(key = %path.display(), "no seal key is configured; records are sealed with the one beside the database");
    Ring::new([("local", key.as_slice())]).map_err(|error| refused(&error))
}

fn key_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

fn make_key(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut *key).map_err(|_| io::Error::other("the system gives no randomness"))?;
    let text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    let mut new = file::create_new(path)?;
    writeln!(new, "{}", *text)?;
    new.sync_all()?;
    warn!(key = %path.display(), "a seal key was made; whoever has it and the database can read every secret in it");
    Ok(text)
}
