//! Access tokens as both stores keep them: all of a token is sealed, its end too.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{PAYLOAD_VERSION, micros, open, seal};
use crate::{
    clock::Moment,
    name::Scopes,
    secret::{ExposeSecret, SecretString},
    store::{
        Ring, StoreError,
        names::Place,
        seal::{Sealed, Seat},
    },
    token::{Expiry, Generation, Token, TokenType},
};

/// How far the wall clocks of two processes may be apart before the life of a token is shorter for one than for the other.
pub const SKEW: Duration = Duration::from_secs(60);

/// The sealed payload of a token.
#[derive(Serialize, Deserialize)]
struct TokenPayload {
    v: u8,
    value: String,
    kind: TokenType,
    scopes: Scopes,
    lifetime_ms: Option<u64>,
    stated: bool,
    /// The end on the wall clock of the process that sealed it, in ms since 1970; records of before have none.
    #[serde(default)]
    ends_ms: Option<u64>,
}

impl Drop for TokenPayload {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// Seals a token for its place; its generation is the revision it is bound to.
pub fn seal_token(ring: &Ring, place: &Place, token: &Token) -> Result<Sealed, StoreError> {
    let payload = TokenPayload {
        v: PAYLOAD_VERSION,
        value: token.value.expose_secret().to_owned(),
        kind: token.kind.clone(),
        scopes: token.scopes.clone(),
        lifetime_ms: token.expiry.map(|expiry| u64::try_from(expiry.lifetime.as_millis()).unwrap_or(u64::MAX)),
        stated: token.expiry.is_some_and(|expiry| expiry.stated),
        ends_ms: token.expiry.map(|expiry| unix_millis(expiry.deadline.wall())),
    };
    seal(ring, &token_seat(&token_key(place), token.generation), &payload)
}

/// A token as a store has it: what it says of the token's end is not authenticated.
#[derive(Clone, Copy, Debug)]
pub struct StoredToken<'a> {
    /// The revision that made it.
    pub generation: Generation,
    /// What [`seal_token`] made.
    pub sealed: &'a Sealed,
    /// What the store says is left of it; `None` if it says that there is no end.
    pub remaining: Option<Duration>,
    /// The store's time, in µs.
    pub now_us: u64,
}

/// Opens a token that was read by a question from `asked`; `None` if it has ended.
pub fn open_token(
    ring: &Ring,
    place: &Place,
    stored: &StoredToken<'_>,
    asked: &Moment,
) -> Result<Option<Token>, StoreError> {
    let token = open_ended_token(ring, place, stored, asked)?;
    Ok(Some(token).filter(|token| token.remaining(asked).is_none_or(|left| !left.is_zero())))
}

/// The same, also of a token that has ended.
pub fn open_ended_token(
    ring: &Ring,
    place: &Place,
    stored: &StoredToken<'_>,
    asked: &Moment,
) -> Result<Token, StoreError> {
    let StoredToken { generation, sealed, remaining, now_us } = *stored;
    let mut payload: TokenPayload = open(ring, &token_seat(&token_key(place), generation), sealed)?;
    let left = [remaining, payload.left_of_life(generation, now_us), payload.left_by_wall_clock(asked)];
    let left = left.into_iter().flatten().min();
    let expiry = left.map(|left| Expiry {
        deadline: asked.after(left),
        lifetime: payload.lifetime_ms.map_or(left, Duration::from_millis),
        stated: payload.stated,
    });
    Ok(Token {
        value: SecretString::from(std::mem::take(&mut payload.value)).into(),
        kind: payload.kind.clone(),
        generation,
        scopes: payload.scopes.clone(),
        expiry,
    })
}

impl TokenPayload {
    /// A token's generation is the store's time before it was asked for, or later; both are sealed. So on the store's clock it
    /// ends no later than its whole life after that, whatever became of its TTL.
    fn left_of_life(&self, generation: Generation, now_us: u64) -> Option<Duration> {
        let life = Duration::from_millis(self.lifetime_ms?);
        Some(Duration::from_micros(generation.get().saturating_add(micros(life)).saturating_sub(now_us)))
    }

    /// The wall clocks of two processes may differ by [`SKEW`], and this only ever shortens a life.
    fn left_by_wall_clock(&self, asked: &Moment) -> Option<Duration> {
        let end = Duration::from_millis(self.ends_ms?) + SKEW;
        Some(end.saturating_sub(Duration::from_millis(unix_millis(asked.wall()))))
    }
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn token_key(place: &Place) -> String {
    format!("{}/{}", place.unit.as_str(), place.token.as_str())
}

pub(crate) fn token_seat(key: &str, generation: Generation) -> Seat<'_> {
    Seat { key, field: "token", revision: generation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        store::{
            names::{TokenName, UnitName},
            record::MAX_WAIT,
        },
    };

    fn ring() -> Ring {
        Ring::new([("k", [3_u8; 32].as_slice())]).unwrap()
    }

    const T0: Duration = Duration::from_secs(1_900_000_000);

    /// What is left, in ms, of a token of this life whose end on the wall clock is `ends` ms after T0, with `ttl` ms left in the store,
    /// `age` ms after its generation on the store's clock, and `wall` ms after T0 on this process's.
    fn left(lifetime: Option<u64>, ends: Option<i64>, ttl: Option<u64>, age: u64, wall: i64) -> Option<Option<u64>> {
        let at = |offset: i64| u64::try_from(i64::try_from(T0.as_millis()).unwrap() + offset).unwrap();
        let place = Place { unit: UnitName::from("crm/abc"), token: TokenName::from("t") };
        let generation = Generation::new(u64::try_from(T0.as_micros()).unwrap());
        let mut payload = serde_json::json!({
            "v": 1, "value": "at", "kind": TokenType::Bearer, "scopes": Scopes::default(), "lifetime_ms": lifetime,
            "stated": true,
        });
        if let Some(ends) = ends {
            payload["ends_ms"] = at(ends).into();
        }
        let sealed = seal(&ring(), &token_seat(&token_key(&place), generation), &payload).unwrap();
        let now_us = generation.get() + age * 1000;
        let remaining = ttl.map(Duration::from_millis);
        let stored = StoredToken { generation, sealed: &sealed, remaining, now_us };
        let asked = Clock::with_wall_stopped_at(SystemTime::UNIX_EPOCH + Duration::from_millis(at(wall))).now();
        let token = open_token(&ring(), &place, &stored, &asked).unwrap();
        token.map(|token| token.remaining(&asked).map(|left| u64::try_from(left.as_millis()).unwrap()))
    }

    /// S13, case 35.
    #[test]
    fn what_is_sealed_of_a_tokens_end_only_ever_shortens_its_life() {
        const HOUR: u64 = 3_600_000;
        let end = Some(i64::try_from(HOUR).unwrap());
        for (lifetime, ends, ttl, age, wall, expected) in [
            // The store's word is the shortest.
            (Some(HOUR), end, Some(1_000), 0, 0, Some(Some(1_000))),
            // It is longer than the whole life, or gone: the key was made again.
            (Some(HOUR), end, Some(9 * HOUR), 1_000, 1_000, Some(Some(HOUR - 1_000))),
            (Some(HOUR), end, None, 1_000, 1_000, Some(Some(HOUR - 1_000))),
            (Some(HOUR), end, None, HOUR, 0, None),
            (Some(HOUR), end, Some(1_000), 2 * HOUR, 0, None),
            // A record of the version before, which sealed no end.
            (Some(HOUR), None, Some(1_000), 0, 0, Some(Some(1_000))),
            (Some(HOUR), None, None, HOUR + 1, 0, None),
            // A store whose clock stands still, or was set back: a minute is forgiven to the wall clock.
            (Some(HOUR), end, Some(HOUR), 0, 3_600_000, Some(Some(60_000))),
            (Some(HOUR), end, Some(HOUR), 0, 3_659_999, Some(Some(1))),
            (Some(HOUR), end, None, 0, 3_660_000, None),
            // A wall clock that is slow gives no token more life.
            (Some(HOUR), end, Some(5_000), 0, -99_000, Some(Some(5_000))),
            // A token without an end has none.
            (None, None, None, 9 * HOUR, 0, Some(None)),
        ] {
            let got = left(lifetime, ends, ttl, age, wall);
            assert_eq!(got, expected, "{lifetime:?} {ends:?} {ttl:?} {age} {wall}");
        }
    }

    /// What this version seals is read by the version before, which knows no end and passes over what it does not know.
    #[test]
    fn a_sealed_end_is_one_more_member_and_nothing_else() {
        let place = Place { unit: UnitName::from("crm/abc"), token: TokenName::from("t") };
        let (generation, now) = (Generation::new(9), Moment::now());
        let expiry = Expiry { deadline: now.after(MAX_WAIT), lifetime: MAX_WAIT, stated: true };
        let token = Token {
            value: "at".into(),
            kind: TokenType::Bearer,
            generation,
            scopes: Scopes::default(),
            expiry: Some(expiry),
        };
        let sealed = seal_token(&ring(), &place, &token).unwrap();
        let plain = ring().open(&token_seat(&token_key(&place), generation), &sealed).unwrap();
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&plain).unwrap();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        assert_eq!(names, ["ends_ms", "kind", "lifetime_ms", "scopes", "stated", "v", "value"]);
        assert_eq!(members["v"], 1);
    }
}
