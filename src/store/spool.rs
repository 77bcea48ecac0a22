//! Answers of providers that the store could not take at once, sealed in files of this host.
//!
//! An answer can hold the only living refresh token of a grant. As long as the store is away it stands here too, so that
//! it outlives the process, and is stored when the process starts again.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    AttemptId, Census, Commit, GrantSecrets, StoreError,
    census::Counter,
    names::{Place, TokenName, UnitName},
    record::{
        StoredToken, grant_seat, micros, open_ended_token, open_secrets, seal_secrets, seal_token, token_key,
        token_seat,
    },
    seal::{Ring, Sealed},
};
use crate::{
    clock::Moment,
    file,
    token::{Generation, Token},
};

/// The directory of such answers.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    ring: Ring,
}

/// An answer that could not be stored yet.
#[derive(Debug)]
pub struct Spooled {
    place: Place,
    attempt: AttemptId,
    expected: Generation,
    next: Generation,
    secrets: GrantSecrets,
    token: Token,
}

/// A file of the spool. What is not sealed are hashes and numbers.
#[derive(Serialize, Deserialize)]
struct Entry {
    unit: String,
    token: String,
    attempt: String,
    expected: Generation,
    next: Generation,
    expires_us: Option<u64>,
    sealed_grant: Sealed,
    sealed_token: Sealed,
}

const EXTENSION: &str = "answer";

impl Spool {
    /// Opens the directory, or makes it, for this process's user alone.
    pub fn open(directory: &Path, ring: Ring) -> Result<Self, StoreError> {
        let refused = |error: io::Error| StoreError::Open(format!("the spool {}: {error}", directory.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refused)?;
        // Found out now, and not when the only refresh token depends on it.
        file::refuse_writable(directory).map_err(refused)?;
        let probe = directory.join(format!("probe-{:016x}", rand::random::<u64>()));
        write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(refused)?;
        Ok(Self { inner: Arc::new(Inner { directory: directory.to_owned(), ring }) })
    }

    /// Keeps an answer; it is on the disk when this returns.
    pub async fn keep(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let text = self.inner.encode(commit)?;
        let path = self.inner.path(commit.attempt);
        let written = tokio::task::spawn_blocking(move || replace(&path, &text)).await;
        let failed = |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("the spool: {error}"));
        written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// Forgets an answer that was stored.
    pub async fn forget(&self, attempt: &AttemptId) {
        let path = self.inner.path(attempt);
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(&path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "an answer that was stored stays in the spool; the next process tries it again, without effect");
        }
    }

    /// The answers that former processes left. A file that cannot be read is told of, and left where it is.
    pub fn pending(&self) -> Vec<Spooled> {
        self.inner.answers().filter_map(|path| self.inner.read(&path)).collect()
    }

    /// Counts which key sealed what is here, and seals anew what another key than the first one sealed. There are a few
    /// files at most, so this is one step.
    pub async fn reseal(&self, reseal: bool) -> Census {
        let inner = Arc::clone(&self.inner);
        // A task that ended counted nothing; the next step counts again.
        tokio::task::spawn_blocking(move || inner.reseal(reseal)).await.unwrap_or_default()
    }
}

impl Inner {
    fn answers(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
    }

    fn reseal(&self, reseal: bool) -> Census {
        let mut counter = Counter::new(&self.ring, reseal);
        for path in self.answers() {
            let entry = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
            match entry {
                Some(entry) => self.reseal_entry(&path, entry, &mut counter),
                None => counter.damaged(),
            }
        }
        counter.census
    }

    fn reseal_entry(&self, path: &Path, mut entry: Entry, counter: &mut Counter<'_>) {
        let place = Place { unit: UnitName::from(&*entry.unit), token: TokenName::from(&*entry.token) };
        let token_key = token_key(&place);
        let seats = [grant_seat(&place.unit, entry.next), token_seat(&token_key, entry.next)];
        let mut anew = Vec::new();
        for (seat, sealed) in seats.iter().zip([&mut entry.sealed_grant, &mut entry.sealed_token]) {
            if let Some(new) = counter.look(seat, sealed) {
                anew.push((std::mem::replace(sealed, new.clone()), new));
            }
        }
        if anew.is_empty() {
            return;
        }
        // If the answer is stored and forgotten at this moment it comes back, and the store knows that it had it.
        let written = serde_json::to_vec(&entry).map_err(io::Error::other).and_then(|text| replace(path, &text));
        for (old, new) in anew {
            match &written {
                Ok(()) => counter.replaced(&new),
                Err(error) => {
                    warn!(file = %path.display(), %error, "a spooled answer cannot be sealed anew");
                    counter.stays(&old);
                }
            }
        }
    }

    fn path(&self, attempt: &AttemptId) -> PathBuf {
        self.directory.join(attempt.as_str()).with_extension(EXTENSION)
    }

    fn encode(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StoreError> {
        let place = commit.place;
        let left = commit.token.remaining(&Moment::now());
        let entry = Entry {
            unit: place.unit.as_str().to_owned(),
            token: place.token.as_str().to_owned(),
            attempt: commit.attempt.as_str().to_owned(),
            expected: commit.expected,
            next: commit.next,
            expires_us: left.map(|left| now_us().saturating_add(micros(left))),
            sealed_grant: seal_secrets(&self.ring, &place.unit, commit.next, commit.secrets)?,
            sealed_token: seal_token(&self.ring, place, commit.token)?,
        };
        serde_json::to_vec(&entry).map_err(|_| StoreError::Unreadable("an answer cannot be written".into()))
    }

    fn read(&self, path: &Path) -> Option<Spooled> {
        let read = fs::read(path).map_err(|error| error.to_string());
        let opened = read.and_then(|text| self.decode(&text).map_err(|error| error.to_string()));
        opened.inspect_err(|error| warn!(file = %path.display(), %error, "a spooled answer cannot be read")).ok()
    }

    fn decode(&self, text: &[u8]) -> Result<Spooled, StoreError> {
        let damaged = |_| StoreError::Unreadable("the file is damaged".into());
        let entry: Entry = serde_json::from_slice(text).map_err(damaged)?;
        let place = Place { unit: UnitName::from(&*entry.unit), token: TokenName::from(&*entry.token) };
        let left = entry.expires_us.map(|at| Duration::from_micros(at.saturating_sub(now_us())));
        // What counts is the refresh token beside it; by the store's clock no time has passed that this process knows of.
        let now_us = entry.next.get();
        let stored = StoredToken { generation: entry.next, sealed: &entry.sealed_token, remaining: left, now_us };
        Ok(Spooled {
            secrets: open_secrets(&self.ring, &place.unit, entry.next, &entry.sealed_grant)?,
            token: open_ended_token(&self.ring, &place, &stored, &Moment::now())?,
            attempt: AttemptId::from(entry.attempt),
            expected: entry.expected,
            next: entry.next,
            place,
        })
    }
}

impl From<&Commit<'_>> for Spooled {
    fn from(commit: &Commit<'_>) -> Self {
        let Commit { place, attempt, expected, next, secrets, token } = *commit;
        let (place, attempt, secrets, token) = (place.clone(), attempt.clone(), secrets.clone(), token.clone());
        Self { place, attempt, expected, next, secrets, token }
    }
}

impl Spooled {
    /// The write that is still to be done.
    pub fn commit(&self) -> Commit<'_> {
        Commit {
            place: &self.place,
            attempt: &self.attempt,
            expected: self.expected,
            next: self.next,
            secrets: &self.secrets,
            token: &self.token,
        }
    }
}

/// Whoever looks finds the file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    write(&draft, bytes)?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Writes a new file. What a process that was killed left at its place is removed; no link there is followed.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = file::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::Scopes,
        secret::{ExposeSecret, SecretString},
        store::Material,
        token::{Expiry, TokenType},
    };

    const KEY: [u8; 32] = [5; 32];

    fn spool(directory: &Path, key: &[u8; 32]) -> Spool {
        Spool::open(directory, Ring::new([("k", key.as_slice())]).unwrap()).unwrap()
    }

    fn token() -> Token {
        let lifetime = Duration::from_secs(60);
        let expiry = Some(Expiry { deadline: Moment::now().after(lifetime), lifetime, stated: true });
        let value = SecretString::from("at-canary");
        Token {
            value: value.into(),
            kind: TokenType::Bearer,
            generation: Generation::new(9),
            scopes: Scopes::default(),
            expiry,
        }
    }

    async fn kept(directory: &Path, attempt: &AttemptId) -> Spool {
        let spool = spool(directory, &KEY);
        let place = Place { unit: UnitName::from("crm/u"), token: TokenName::from("t") };
        let secrets = GrantSecrets { material: Material::RefreshToken("rt-canary".into()), ..GrantSecrets::default() };
        let (expected, next, token) = (Generation::new(8), Generation::new(9), &token());
        spool.keep(&Commit { place: &place, attempt, expected, next, secrets: &secrets, token }).await.unwrap();
        spool
    }

    #[tokio::test]
    async fn an_answer_outlives_the_process_and_tells_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let attempt = AttemptId::random();
        drop(kept(directory.path(), &attempt).await);
        for file in fs::read_dir(directory.path()).unwrap() {
            assert!(!String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).contains("canary"));
        }
        let spool = spool(directory.path(), &KEY);
        let [pending] = &*spool.pending() else { panic!("one answer") };
        let commit = pending.commit();
        assert_eq!((commit.expected, commit.next), (Generation::new(8), Generation::new(9)));
        let Material::RefreshToken(token) = &commit.secrets.material else { panic!("{commit:?}") };
        assert_eq!(token.expose_secret(), "rt-canary");
        assert!(commit.token.remaining(&Moment::now()).unwrap() > Duration::from_secs(30));
        spool.forget(&attempt).await;
        assert!(spool.pending().is_empty());
    }

    #[tokio::test]
    async fn answers_are_sealed_anew_and_stay_answers() {
        let directory = tempfile::tempdir().unwrap();
        let spool = kept(directory.path(), &AttemptId::random()).await;
        let ring = |keys: &[(&str, [u8; 32])]| Ring::new(keys.iter().map(|(id, key)| (*id, key.as_slice()))).unwrap();
        spool.inner.ring.replace_with(&ring(&[("new", [6; 32]), ("k", KEY)]));
        fs::write(directory.path().join("torn.answer"), b"{").unwrap();
        let counted = spool.reseal(false).await;
        assert_eq!((counted.sealed["k"], counted.sealed["unknown"], counted.resealed), (2, 1, 0));
        let census = spool.reseal(true).await;
        assert_eq!((census.sealed["new"], census.resealed, census.unreadable), (2, 2, 1));
        spool.inner.ring.replace_with(&ring(&[("new", [6; 32])]));
        assert_eq!(spool.pending().len(), 1, "it opens without the old key");
        assert_eq!(spool.reseal(true).await.resealed, 0);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        kept(directory.path(), &AttemptId::random()).await;
        fs::write(directory.path().join("torn.answer"), b"{").unwrap();
        assert_eq!(spool(directory.path(), &KEY).pending().len(), 1);
        assert_eq!(spool(directory.path(), &[6; 32]).pending().len(), 0, "another key");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    /// LOW 18.
    #[test]
    fn a_directory_that_every_user_can_write_is_refused_and_no_link_in_it_is_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (spool, mine) = (directory.path().join("spool"), directory.path().join("mine"));
        fs::create_dir(&spool).unwrap();
        fs::write(&mine, "mine").unwrap();
        for name in ["probe", "x.draft"] {
            symlink(&mine, spool.join(name)).unwrap();
        }
        let open = || Spool::open(&spool, Ring::new([("a", [1; 32].as_slice())]).unwrap());
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = open().err().unwrap().to_string();
        assert!(refused.contains("every user of this host can write it"), "{refused}");
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o770)).unwrap();
        open().unwrap();
        replace(&spool.join("x.answer"), b"an answer").unwrap();
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
        assert_eq!(fs::read_to_string(spool.join("x.answer")).unwrap(), "an answer");
    }
}
