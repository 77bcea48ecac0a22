//! How long a token lives, from what the provider said, the configuration, the token itself, or a careful guess.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::answer::Granted;
use crate::{clock::Moment, secret::ExposeSecret, token::Expiry};

/// The life of a token of which nobody says anything. Never "for ever", and never so short that every call asks anew.
const GUESS: Duration = Duration::from_secs(3600);

/// What is taken off a life, so that a token does not end between bearerd and the upstream; a tenth for short lives.
const SKEW: Duration = Duration::from_secs(5);

/// What a credential says of the lives of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// The life of a token whose provider says none.
    pub default: Option<Duration>,
    /// The longest life, whatever the provider says.
    pub longest: Option<Duration>,
}

/// The expiry of a token that was asked for at `sent`: the earliest of what the answer, the token itself and the
/// configuration say. A life counts from when the request left: the answer may have travelled for long, and the provider's
/// clock is not ours.
pub fn expiry(granted: &Granted, lifetimes: Lifetimes, sent: &Moment) -> Expiry {
    let own = jwt_life(granted.access_token.expose_secret(), sent.wall());
    let said = granted.expires_in.or(lifetimes.default).into_iter().chain(own).min();
    let whole = said.unwrap_or(GUESS).min(lifetimes.longest.unwrap_or(Duration::MAX));
    let lifetime = whole.saturating_sub(SKEW.min(whole / 10));
    Expiry { deadline: sent.after(lifetime), lifetime, stated: said.is_some() || lifetimes.longest.is_some() }
}

/// What is left of a JWT access token by its `exp` (RFC 9068 §2.2), unverified: it is a hint about a token that we were
/// just handed, and nothing is granted for it. One that has passed says nothing but that the clocks differ.
fn jwt_life(token: &str, now: SystemTime) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let left = claims.exp - now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Duration::try_from_secs_f64(left).ok().filter(|left| left.as_secs() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenType;

    fn granted(token: &str, expires_in: Option<u64>) -> Granted {
        Granted {
            access_token: token.into(),
            kind: TokenType::Bearer,
            expires_in: expires_in.map(Duration::from_secs),
            refresh_token: None,
            scopes: None,
        }
    }

    #[test]
    fn the_earliest_end_counts() {
        let sent = Moment::now();
        let exp = sent.wall().duration_since(UNIX_EPOCH).unwrap().as_secs() + 500;
        let jwt = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)));
        let default = Some(Duration::from_secs(200));
        let limited = |granted, default, longest| {
            let expiry = expiry(&granted, Lifetimes { default, longest }, &sent);
            (expiry.lifetime.as_secs(), expiry.stated)
        };
        let whole = |granted, default| limited(granted, default, None);
        assert_eq!(whole(granted("opaque", Some(100)), default), (95, true));
        assert_eq!(whole(granted("opaque", None), default), (195, true));
        assert!(whole(granted(&jwt, None), None).1);
        // In milliseconds by mistake (P-K10, row 29); a part of a second has passed since.
        for (said, default) in [(Some(3_600_000), None), (None, None), (None, Some(Duration::from_secs(3600)))] {
            assert!((493..=495).contains(&whole(granted(&jwt, said), default).0), "{said:?}");
        }
        assert_eq!(whole(granted(&jwt, Some(100)), None), (95, true));
        assert_eq!(limited(granted("opaque", Some(3_600_000)), None, default), (195, true));
        assert_eq!(limited(granted("opaque", None), None, default), (195, true));
        assert_eq!(whole(granted("a.b.c", None), None), (3595, false));
        assert_eq!(whole(granted("opaque", None), None), (3595, false));
    }

    #[test]
    fn a_short_life_keeps_most_of_itself() {
        let expiry = expiry(&granted("opaque", Some(2)), Lifetimes::default(), &Moment::now());
        assert_eq!(expiry.lifetime, Duration::from_millis(1800));
    }
}
