//! Going through Redis step by step, with SCAN: it finds everything that is there all the while, some of it perhaps twice.

use redis::RedisError;

use super::{Redis, link::unavailable, root, root_key};
use crate::{
    store::{
        Step, Stepped, StoreError,
        census::Counter,
        names::KEY_SEAT,
        seal::{Sealed, Seat},
    },
    token::Generation,
};

/// How many keys Redis looks at in one step; it serves nobody else meanwhile.
const KEYS: usize = 200;

/// A value that was written by somebody else is looked at again this often; more in a row does not happen.
const TRIES: usize = 5;

/// Where a hash keeps something sealed.
struct Field {
    /// What its seat calls it.
    seat: &'static str,
    /// The field that holds the revision it is bound to.
    revision: &'static str,
    /// The field that holds it.
    sealed: &'static str,
}

const GRANT: &[Field] = &[Field { seat: "grant", revision: "rev", sealed: "sealed" }];
const TOKEN: &[Field] = &[Field { seat: "token", revision: "gen", sealed: "sealed" }];

impl Redis {
    /// Goes one step. A position that Redis never gave begins anew, which does no harm.
    pub(super) async fn step(&self, step: &Step<'_>) -> Result<Stepped, StoreError> {
        let mut counter = Counter::new(&self.ring, step.reseal);
        if step.from.is_none() {
            self.reseal_root(&mut counter).await?;
        }
        let cursor: u64 = step.from.and_then(|from| from.parse().ok()).unwrap_or_default();
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:{{*", self.prefix)).arg("COUNT").arg(KEYS);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut self.link.clone()).await.map_err(unavailable)?;
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            let Some((seat, fields)) = seat_of(&self.prefix, key) else { continue };
            for field in fields {
                self.reseal_field(key, &seat, field, &mut counter).await?;
            }
        }
        Ok(Stepped { census: counter.census, next: (next != 0).then(|| next.to_string()) })
    }

    async fn reseal_root(&self, counter: &mut Counter<'_>) -> Result<(), StoreError> {
        for last in (0..TRIES).rev() {
            let sealed = Sealed(root(&mut self.link.clone(), &self.prefix).await.map_err(unavailable)?);
            let Some(anew) = counter.look(&KEY_SEAT, &sealed) else { return Ok(()) };
            let mut call = self.scripts.reseal_root.prepare_invoke();
            call.key(root_key(&self.prefix)).arg(sealed.0.as_slice()).arg(anew.0.as_slice());
            if self.word(&call).await? == "done" {
                counter.replaced(&anew);
                return Ok(());
            }
            if last == 0 {
                counter.stays(&sealed);
            }
        }
        Ok(())
    }

    async fn reseal_field(
        &self,
        key: &str,
        seat: &str,
        field: &Field,
        counter: &mut Counter<'_>,
    ) -> Result<(), StoreError> {
        for last in (0..TRIES).rev() {
            let Some((revision, sealed)) = self.read_field(key, field, counter).await? else { return Ok(()) };
            let seat = Seat { key: seat, field: field.seat, revision };
            let Some(anew) = counter.look(&seat, &sealed) else { return Ok(()) };
            let mut call = self.scripts.reseal.prepare_invoke();
            call.key(key).arg(field.revision).arg(revision.get()).arg(field.sealed);
            call.arg(sealed.0.as_slice()).arg(anew.0.as_slice());
            if self.word(&call).await? == "done" {
                counter.replaced(&anew);
                return Ok(());
            }
            if last == 0 {
                counter.stays(&sealed);
            }
        }
        Ok(())
    }

    /// What is sealed, and its revision; `None` if nothing is, or if it is not ours to read.
    async fn read_field(
        &self,
        key: &str,
        field: &Field,
        counter: &mut Counter<'_>,
    ) -> Result<Option<(Generation, Sealed)>, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(key).arg(field.revision).arg(field.sealed);
        let read: Result<[Option<Vec<u8>>; 2], RedisError> = read.query_async(&mut self.link.clone()).await;
        let (revision, sealed) = match read.map_err(unavailable) {
            Ok([revision, Some(sealed)]) => (revision, Sealed(sealed)),
            Ok([_, None]) => return Ok(None),
            Err(StoreError::Unreadable(_)) => {
                counter.damaged();
                return Ok(None);
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Open(_))) => return Err(error),
        };
        let text = revision.and_then(|revision| String::from_utf8(revision).ok());
        match text.and_then(|text| text.parse().ok()) {
            Some(number) => Ok(Some((Generation::new(number), sealed))),
            None => {
                counter.damaged();
                Ok(None)
            }
        }
    }
}

/// What the seat of a key's record is called, and what is sealed in it; `None` for a key that holds nothing sealed.
fn seat_of(prefix: &str, key: &str) -> Option<(String, &'static [Field])> {
    let (unit, rest) = key.strip_prefix(prefix)?.strip_prefix(":{")?.split_once("}:")?;
    match rest.split_once(':') {
        None if rest == "grant" => Some((unit.to_owned(), GRANT)),
        Some(("token", token)) => Some((format!("{unit}/{token}"), TOKEN)),
        None | Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_is_sealed_in_them() {
        for (key, expected) in [
            ("bearerd:{crm/u}:grant", Some(("crm/u", "grant"))),
            ("bearerd:{crm/u}:token:t", Some(("crm/u/t", "token"))),
            ("bearerd:{crm/u}:lease", None),
            ("bearerd:{crm/u}:grant:more", None),
            ("bearerd:{crm/u}", None),
            ("bearerd:root", None),
            ("other:{crm/u}:grant", None),
        ] {
            let seat = seat_of("bearerd", key);
            let seat = seat.as_ref().map(|(seat, fields)| (seat.as_str(), fields[0].seat));
            assert_eq!(seat, expected, "{key}");
        }
    }
}
