//! The scripts, and how their replies are read. Redis is outside of this process: a reply of another form than expected
//! is an unreadable record, never a panic.

use std::{collections::HashMap, str::FromStr, time::Duration};

use redis::{Cmd, FromRedisValue, RedisResult, ToRedisArgs, Value, from_redis_value};

use super::{link::Link, primaries::Care};
use crate::{
    clock::Moment,
    store::{
        GrantRecord, Rest, StoreError, TokenRefusal,
        names::{Place, UnitName},
        record::{GrantRow, MAX_WAIT, StoredToken, left, open_token},
        seal::{Ring, Sealed},
    },
    token::{Generation, Token},
};

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("prelude.lua"), "\n", include_str!($file)))
    };
}

/// A script, and the name that servers give it.
pub(super) struct Script {
    source: &'static str,
    hash: String,
}

/// A script with the keys that it works on, which belong together, and its arguments.
pub(super) struct Call<'a> {
    script: &'a Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// A call of it, of which keys and arguments are still to be said.
    pub(super) fn call(&self) -> Call<'_> {
        Call { script: self, keys: Vec::new(), arguments: Vec::new() }
    }
}

impl Call<'_> {
    pub(super) fn key(&mut self, key: String) -> &mut Self {
        self.keys.push(key);
        self
    }

    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.arguments.extend(argument.to_redis_args());
        self
    }

    /// Sends it to whoever holds the keys. A server that does not have the script, because it is new or has forgotten
    /// it, gets it whole: to load it everywhere would ask servers that have nothing to do with it.
    pub(super) async fn run<T: FromRedisValue>(&self, link: &Link, care: Care) -> RedisResult<T> {
        let key = self.keys.first().map_or("", String::as_str);
        let answer = match link.send(key, &self.command("EVALSHA", &self.script.hash), care).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                link.send(key, &self.command("EVAL", self.script.source), care).await
            }
            settled => settled,
        };
        Ok(from_redis_value(answer?)?)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let keys = self.keys.iter().map(String::len);
        let arguments = self.arguments.iter().map(Vec::len);
        // As large as it gets, or it would grow again and again; the number of keys has one digit.
        let sizes = [name.len(), script.len(), 1].into_iter().chain(keys).chain(arguments);
        let mut command = Cmd::with_capacity(sizes.clone().count(), sizes.sum());
        command.arg(name).arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// Every script of the store.
pub(super) struct Scripts {
    pub(super) load: Script,
    pub(super) look: Script,
    pub(super) claim: Script,
    pub(super) dispatch: Script,
    pub(super) commit: Script,
    pub(super) settle: Script,
    pub(super) refuse: Script,
    pub(super) release: Script,
    pub(super) reject: Script,
    pub(super) import: Script,
    pub(super) quarantine: Script,
    pub(super) adopt: Script,
    pub(super) reassert: Script,
    pub(super) cool_down: Script,
    pub(super) cooling: Script,
    pub(super) turn: Script,
    pub(super) grant: Script,
    pub(super) sealed: Script,
    pub(super) reseal: Script,
    pub(super) reseal_root: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            load: script!("load.lua"),
            look: Script::new(include_str!("look.lua")),
            claim: script!("claim.lua"),
            dispatch: script!("dispatch.lua"),
            commit: script!("commit.lua"),
            settle: script!("settle.lua"),
            refuse: script!("refuse.lua"),
            release: script!("release.lua"),
            reject: script!("reject.lua"),
            import: script!("import.lua"),
            quarantine: script!("quarantine.lua"),
            adopt: script!("adopt.lua"),
            reassert: script!("reassert.lua"),
            cool_down: script!("cool_down.lua"),
            cooling: script!("cooling.lua"),
            turn: script!("turn.lua"),
            grant: script!("grant.lua"),
            sealed: script!("sealed.lua"),
            reseal: script!("reseal.lua"),
            reseal_root: script!("reseal_root.lua"),
        }
    }
}

/// The script that reads the store's first record, which is needed before there is a store.
pub(super) fn root() -> Script {
    script!("root.lua")
}

/// The reply of `load` and `claim`: status, what is left of another's lease in ms, the grant's fields, the token
/// (generation, sealed, PTTL) or nothing, the time (s, µs), and the last refusal of the token (cause, count, when the next try
/// is due in µs, whether it came ahead of time) or nothing.
pub(super) type View = (String, i64, HashMap<String, Vec<u8>>, Vec<Value>, (u64, u64), Vec<Value>);

/// What a [`View`] says, opened.
pub(super) struct Seen {
    pub(super) status: String,
    pub(super) lease_left: Duration,
    pub(super) record: Option<GrantRecord>,
    pub(super) token: Option<Token>,
    /// The generation of a token that is there and has ended.
    pub(super) ended: Option<Generation>,
    pub(super) next: Generation,
    pub(super) refusal: Option<TokenRefusal>,
}

/// Opens a reply; what is left of the token counts from when the question was asked.
pub(super) fn open(view: View, ring: &Ring, place: &Place, asked: &Moment) -> Result<Seen, StoreError> {
    let (status, lease_left, fields, token, (seconds, micros), refusal) = view;
    let now = seconds.saturating_mul(1_000_000).saturating_add(micros);
    let record = match fields.is_empty() {
        true => None,
        false => Some(row(&place.unit, fields)?.open(ring, &place.unit, now)?),
    };
    let (token, ended) = token_of(token, ring, place, now, asked)?;
    let next = record.as_ref().map_or(Generation::ZERO, |record| record.revision).next(now);
    let refusal = refusal_of(refusal, &place.unit, now)?;
    Ok(Seen { status, lease_left: millis(lease_left), record, token, ended, next, refusal })
}

fn refusal_of(reply: Vec<Value>, unit: &UnitName, now_us: u64) -> Result<Option<TokenRefusal>, StoreError> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (cause, count, retry_us, early): (String, u32, u64, u8) =
        from_redis_value(Value::Array(reply)).map_err(|_| damaged(unit))?;
    let cause = cause.parse().map_err(|_| damaged(unit))?;
    Ok(Some(TokenRefusal { cause, count, wait: left(retry_us, now_us, MAX_WAIT), early: early == 1 }))
}

/// Reads the reply of `grant`: the fields of a dead grant and the time (s, µs), or nothing.
pub(super) fn dead_grant(reply: Vec<Value>, ring: &Ring, unit: &UnitName) -> Result<Option<GrantRecord>, StoreError> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (fields, (seconds, micros)): (HashMap<String, Vec<u8>>, (u64, u64)) =
        from_redis_value(Value::Array(reply)).map_err(|_| damaged(unit))?;
    let now = seconds.saturating_mul(1_000_000).saturating_add(micros);
    row(unit, fields)?.open(ring, unit, now).map(Some)
}

fn row(unit: &UnitName, mut fields: HashMap<String, Vec<u8>>) -> Result<GrantRow, StoreError> {
    let sealed = fields.remove("sealed").map(Sealed);
    let q_sealed = fields.remove("q_sealed").map(Sealed);
    let report = fields.remove("report").map(Sealed);
    let word = |name: &str| fields.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(GrantRow {
        rev: Generation::new(number(unit, word("rev"))?),
        dead: word("dead"),
        since: Generation::new(number(unit, word("since"))?),
        attempt: word("attempt"),
        past: word("past").map(|past| past.split_whitespace().map(str::to_owned).collect()).unwrap_or_default(),
        settled: word("settled"),
        intent: word("intent"),
        intent_us: number(unit, word("intent_us"))?,
        sent_us: number(unit, word("sent_us"))?,
        sends: number(unit, word("sends"))?,
        fail: word("fail"),
        failures: number(unit, word("failures"))?,
        retry_us: number(unit, word("retry_us"))?,
        early_us: number(unit, word("early_us"))?,
        revive_us: number(unit, word("revive_us"))?,
        deaths: number(unit, word("deaths"))?,
        made_us: number(unit, word("made_us"))?,
        strikes: number(unit, word("strikes"))?,
        sealed,
        q_rev: Generation::new(number(unit, word("q_rev"))?),
        q_sealed,
        report_rev: Generation::new(number(unit, word("report_rev"))?),
        report,
    })
}

fn number<T: FromStr + Default>(unit: &UnitName, word: Option<String>) -> Result<T, StoreError> {
    word.map_or(Ok(T::default()), |word| word.parse()).map_err(|_| damaged(unit))
}

/// The token, or the generation of one that has ended.
fn token_of(
    reply: Vec<Value>,
    ring: &Ring,
    place: &Place,
    now_us: u64,
    asked: &Moment,
) -> Result<(Option<Token>, Option<Generation>), StoreError> {
    if reply.is_empty() {
        return Ok((None, None));
    }
    let (generation, sealed, left): (u64, Vec<u8>, i64) =
        from_redis_value(Value::Array(reply)).map_err(|_| damaged(&place.unit))?;
    let (generation, sealed) = (Generation::new(generation), Sealed(sealed));
    // PTTL: -1 is a key without TTL, 0 and -2 one that goes in this very moment.
    let remaining = (left != -1).then(|| millis(left));
    let stored = StoredToken { generation, sealed: &sealed, remaining, now_us };
    let token = open_token(ring, place, &stored, asked)?;
    let ended = token.is_none().then_some(generation);
    Ok((token, ended))
}

/// Reads the reply of `cooling`: the cause, empty if there is none, and the PTTL.
pub(super) fn rest(word: &str, left: i64) -> Result<Option<Rest>, StoreError> {
    // -1 is a key without TTL, which is not ours: nothing would ever end it.
    let left = millis(left);
    if word.is_empty() || left.is_zero() || left > MAX_WAIT {
        return Ok(None);
    }
    let cause = word.parse().map_err(|_| StoreError::Unreadable("a rest has a cause that does not exist".into()))?;
    Ok(Some(Rest { cause, left }))
}

fn millis(left: i64) -> Duration {
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

fn damaged(unit: &UnitName) -> StoreError {
    StoreError::Unreadable(format!("{unit:?} has a field of the wrong form"))
}
