//! Going through Redis step by step, one server after the other, with SCAN: it finds everything that is there all the
//! while, some of it perhaps twice.

use std::hash::{DefaultHasher, Hash, Hasher};

use redis::{FromRedisValue, RedisResult, Value, from_redis_value};
use tokio::time::timeout;

use super::{
    Redis,
    contact::timed_out,
    link::{RESPONSE_TIMEOUT, unavailable},
    primaries::{Care, Node, Primaries},
    script,
};
use crate::{
    store::{
        Found, GrantRecord, Search, Step, Stepped, StoreError, UnitName,
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

const GRANT: &[Field] = &[
    Field { seat: "grant", revision: "rev", sealed: "sealed" },
    Field { seat: "quarantine", revision: "q_rev", sealed: "q_sealed" },
    Field { seat: "report", revision: "report_rev", sealed: "report" },
];
const TOKEN: &[Field] = &[Field { seat: "token", revision: "gen", sealed: "sealed" }];

/// Where a step begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Which servers there were when the pass began.
    servers: u64,
    /// How many of them were gone through to their end.
    done: usize,
    /// What the next one's SCAN goes on from.
    cursor: u64,
}

impl Redis {
    /// Goes one step. A position that was never given begins anew, which does no harm.
    pub(super) async fn step(&self, step: &Step<'_>) -> Result<Stepped, StoreError> {
        self.root.check(&self.link, &self.ring, &self.names).await?;
        let mut counter = Counter::new(&self.ring, step.reseal);
        if step.from.is_none() {
            self.reseal_root(&mut counter).await?;
        }
        let primaries = self.link.primaries().await.map_err(unavailable)?;
        let nodes = in_order(&primaries);
        let position = Position::after(step.from, fingerprint(&nodes))?;
        let Some(node) = nodes.get(position.done) else { return Ok(Stepped { census: counter.census, next: None }) };
        let (cursor, keys) = self.scan(node, position.cursor, "*").await?;
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            let Some((seat, fields)) = seat_of(&self.prefix, key) else { continue };
            self.reseal_key(key, &seat, fields, &mut counter).await?;
        }
        Ok(Stepped { census: counter.census, next: position.next(cursor, nodes.len()).map(Position::text) })
    }

    /// Looks for dead grants in one step.
    pub(super) async fn search(&self, search: &Search<'_>) -> Result<Found, StoreError> {
        self.root.check(&self.link, &self.ring, &self.names).await?;
        let primaries = self.link.primaries().await.map_err(unavailable)?;
        let nodes = in_order(&primaries);
        let position = Position::after(search.from, fingerprint(&nodes))?;
        let Some(node) = nodes.get(position.done) else { return Ok(Found { grants: Vec::new(), next: None }) };
        let pattern = format!("{}/*}}:grant", search.credential.as_str());
        let (cursor, keys) = self.scan(node, position.cursor, &pattern).await?;
        let mut grants = Vec::new();
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            let Some((seat, _)) = seat_of(&self.prefix, key) else { continue };
            let unit = UnitName::from(&*seat);
            match self.dead_grant(key, &unit).await {
                Ok(record) => grants.extend(record.map(|record| (unit, record))),
                // It is for whoever asks for that grant.
                Err(StoreError::Unreadable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Found { grants, next: position.next(cursor, nodes.len()).map(Position::text) })
    }

    async fn dead_grant(&self, key: &str, unit: &UnitName) -> Result<Option<GrantRecord>, StoreError> {
        let mut ask = self.scripts.grant.call();
        ask.key(key.to_owned());
        let reply: Vec<Value> = ask.run(&self.link, Care::Plain).await.map_err(unavailable)?;
        script::dead_grant(reply, &self.ring, unit)
    }

    /// The keys of one server from here on, and where it goes on. A key has its braces before what the pattern is for.
    async fn scan(&self, node: &Node, cursor: u64, pattern: &str) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:{{{pattern}", self.prefix)).arg("COUNT").arg(KEYS);
        let answer = timeout(RESPONSE_TIMEOUT, node.send(&scan, Care::Plain)).await;
        read(answer.unwrap_or_else(|_| Err(timed_out())))
    }

    async fn reseal_root(&self, counter: &mut Counter<'_>) -> Result<(), StoreError> {
        for last in (0..TRIES).rev() {
            let sealed = Sealed(self.root.find(&self.link).await?);
            let Some(anew) = counter.look(&KEY_SEAT, &sealed) else { return Ok(()) };
            let mut call = self.scripts.reseal_root.call();
            call.key(self.root.key().to_owned()).arg(sealed.0.as_slice()).arg(anew.0.as_slice());
            if self.lasting_word(&call).await? == "done" {
                self.root.remember(anew.0.clone());
                counter.replaced(&anew);
                return Ok(());
            }
            if last == 0 {
                counter.stays(&sealed);
            }
        }
        Ok(())
    }

    async fn reseal_key(
        &self,
        key: &str,
        seat: &str,
        fields: &[Field],
        counter: &mut Counter<'_>,
    ) -> Result<(), StoreError> {
        for field in fields {
            match self.reseal_field(key, seat, field, counter).await {
                // A key of another type, which has no other field either.
                Err(StoreError::Unreadable(_)) => {
                    counter.damaged();
                    return Ok(());
                }
                settled => settled?,
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
            let mut call = self.scripts.reseal.call();
            call.key(key.to_owned()).arg(field.revision).arg(revision.get()).arg(field.sealed);
            call.arg(sealed.0.as_slice()).arg(anew.0.as_slice());
            if self.lasting_word(&call).await? == "done" {
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
        let mut ask = self.scripts.sealed.call();
        ask.key(key.to_owned()).arg(field.revision).arg(field.sealed);
        let read: RedisResult<[Option<Vec<u8>>; 2]> = ask.run(&self.link, Care::Plain).await;
        let [revision, sealed] = read.map_err(unavailable)?;
        let Some(sealed) = sealed.map(Sealed) else { return Ok(None) };
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

impl Position {
    /// Reads where the step before ended. A pass whose servers are not there any more, or not alone, ends: what is on the
    /// others would be left out of it, and no cursor of one server means anything to another.
    fn after(from: Option<&str>, servers: u64) -> Result<Self, StoreError> {
        let first = Self { servers, ..Self::default() };
        let Some(position) = from.map_or(Some(first), Self::read) else { return Ok(first) };
        if position.servers == servers {
            return Ok(position);
        }
        let why = "it is spread over other servers than when this pass began; begin a new one";
        Err(StoreError::Unavailable(why.into()))
    }

    fn next(self, cursor: u64, nodes: usize) -> Option<Self> {
        let done = if cursor == 0 { self.done + 1 } else { self.done };
        (done < nodes).then_some(Self { done, cursor, ..self })
    }

    fn read(text: &str) -> Option<Self> {
        let (servers, rest) = text.split_once(' ')?;
        let (done, cursor) = rest.split_once(' ')?;
        Some(Self { servers: servers.parse().ok()?, done: done.parse().ok()?, cursor: cursor.parse().ok()? })
    }

    fn text(self) -> String {
        format!("{} {} {}", self.servers, self.done, self.cursor)
    }
}

/// The servers in an order that is the same for every replica.
fn in_order(primaries: &Primaries) -> Vec<&Node> {
    let mut nodes: Vec<&Node> = primaries.nodes().iter().collect();
    nodes.sort_by_cached_key(|node| node.endpoint.to_string());
    nodes
}

/// Which servers these are, in a word that says nothing else.
fn fingerprint(nodes: &[&Node]) -> u64 {
    let mut hasher = DefaultHasher::new();
    nodes.iter().for_each(|node| node.endpoint.hash(&mut hasher));
    hasher.finish()
}

fn read<T: FromRedisValue>(answer: RedisResult<Value>) -> Result<T, StoreError> {
    answer.and_then(|value| Ok(from_redis_value(value)?)).map_err(unavailable)
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
    fn servers_come_one_after_the_other() {
        let first = Position::after(None, 7).unwrap();
        assert_eq!(first, Position { servers: 7, done: 0, cursor: 0 });
        let second = first.next(90, 2).unwrap();
        assert_eq!(second, Position { servers: 7, done: 0, cursor: 90 });
        assert_eq!(Position::after(Some(&second.text()), 7).unwrap(), second);
        let third = second.next(0, 2).unwrap();
        assert_eq!(third, Position { servers: 7, done: 1, cursor: 0 });
        assert_eq!(third.next(0, 2), None);
    }

    #[test]
    fn a_pass_ends_with_its_servers_and_a_forged_position_begins_anew() {
        let position = Position { servers: 7, done: 1, cursor: 3 };
        assert!(matches!(Position::after(Some(&position.text()), 8), Err(StoreError::Unavailable(_))));
        for forged in ["", "17", "7 1", "7 x 3", "7 1 3 4"] {
            assert_eq!(Position::after(Some(forged), 7).unwrap(), Position { servers: 7, ..Position::default() });
        }
    }

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
