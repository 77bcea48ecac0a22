//! What a store gives back: rows of the embedded database, replies of Redis, sealed values, and what was sealed. The
//! first line says which of them the rest is.
#![no_main]

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use bearerd::{
    clock::{self, Moment},
    name::{CredentialName, Resources, Scopes, Subject},
    store::{
        self, GrantRecord, Place, Ring, Unit,
        names::Names,
        record::{GrantRow, MAX_WAIT, StoredToken, open_secrets, open_token},
        seal::{Sealed, Seat},
    },
    token::{self, Generation, GrantKey, TokenKey},
};
use libfuzzer_sys::fuzz_target;
use redis::Value;

// The reader of replies is the Redis store's own business, so its file itself is taken.
#[allow(dead_code)]
#[path = "../../src/store/redis/script.rs"]
mod script;

/// What stands beside that file and sends scripts; nothing is sent here.
#[allow(dead_code)]
mod link {
    use super::primaries::Care;

    pub struct Link;

    impl Link {
        pub async fn send(&self, _key: &str, _command: &redis::Cmd, _care: Care) -> redis::RedisResult<redis::Value> {
            Ok(redis::Value::Nil)
        }
    }
}

/// How what is sent would be cared for.
#[allow(dead_code)]
mod primaries {
    #[derive(Clone, Copy)]
    pub enum Care {
        Plain,
        Durable,
    }
}

static RING: LazyLock<Ring> = LazyLock::new(|| Ring::new([("fuzz", [7; 32].as_slice())]).unwrap());
static ASKED: LazyLock<Moment> = LazyLock::new(Moment::now);
static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let grant = GrantKey { credential: CredentialName::new("fuzz").unwrap(), subject: Subject::default() };
    let key = TokenKey { grant, scopes: Scopes::default(), resources: Resources::default() };
    Names::new(&[7; 32]).place(Unit::Token { key: &key, binding: "https://as.example/token fuzz" }, &key)
});
const REVISION: Generation = Generation::new(7);
const NOW: u64 = 1_700_000_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let (kind, rest) = split(bytes, b'\n');
    match kind {
        b"row" => row(rest),
        b"reply" => reply(rest),
        b"secrets" => drop(open_secrets(&RING, &PLACE.unit, REVISION, &sealed("grant", REVISION, rest))),
        b"token" => token(&sealed("token", REVISION, rest)),
        _ => token(&Sealed(rest.to_vec())),
    }
});

/// A sealed token.
fn token(sealed: &Sealed) {
    let stored = StoredToken { generation: REVISION, sealed, remaining: None, now_us: NOW };
    drop(open_token(&RING, &PLACE, &stored, &ASKED));
}

/// A row of the embedded database.
fn row(bytes: &[u8]) {
    let Ok(row) = serde_json::from_slice::<GrantRow>(bytes) else { return };
    let (again, revision) = (serde_json::to_vec(&row).unwrap(), row.rev);
    assert_eq!(serde_json::from_slice::<GrantRow>(&again).unwrap(), row);
    if let Ok(record) = row.open(&RING, &PLACE.unit, NOW) {
        assert_eq!(record.revision, revision);
        holds(&record);
    }
}

/// A reply of `load`: a line for each field, an empty line, and a token: its generation, its PTTL, and what is sealed.
fn reply(bytes: &[u8]) {
    let (mut fields, mut rest) = (HashMap::new(), bytes);
    while let (line @ [_, ..], behind) = split(rest, b'\n') {
        let (name, value) = split(line, b' ');
        let name = String::from_utf8_lossy(name).into_owned();
        let value = match &*name {
            "sealed" => sealed("grant", REVISION, value).0,
            "q_sealed" => sealed("quarantine", REVISION, value).0,
            _ => value.to_vec(),
        };
        fields.insert(name, value);
        rest = behind;
    }
    let (generation, rest) = split(split(rest, b'\n').1, b' ');
    let (left, plain) = split(rest, b' ');
    let number = |text: &[u8]| String::from_utf8_lossy(text).parse::<u64>().unwrap_or_default();
    let value = sealed("token", Generation::new(number(generation)), plain).0;
    let token = match generation {
        [] => Vec::new(),
        _ => vec![text(generation), Value::BulkString(value), text(left)],
    };
    let view = ("ok".to_owned(), i64::MIN, fields, token, (1_700_000_000, 0), Vec::new());
    if let Ok(seen) = script::open(view, &RING, &PLACE, &ASKED) {
        seen.record.iter().for_each(holds);
        assert!(seen.record.is_none_or(|record| seen.next > record.revision));
    }
}

/// What every record holds to, however it was damaged.
fn holds(record: &GrantRecord) {
    assert!(record.revision <= Generation::MAX);
    assert!(record.failure.is_none_or(|failure| failure.wait <= MAX_WAIT));
    assert!(record.intent.as_ref().is_none_or(|intent| intent.sends >= 1 && intent.age <= Duration::from_micros(NOW)));
}

fn sealed(field: &str, revision: Generation, plain: &[u8]) -> Sealed {
    let token = format!("{}/{}", PLACE.unit.as_str(), PLACE.token.as_str());
    let key = if field == "token" { &*token } else { PLACE.unit.as_str() };
    RING.seal(&Seat { key, field, revision }, plain).unwrap()
}

fn text(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_vec())
}

/// What stands before a byte, and what behind it.
fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == at);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
