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

/// The expiry of a token that was asked for at `sent`. A life counts from when the request left: the answer may have
/// travelled for long, and the provider's clock is not ours.
pub fn expiry(granted: &Granted, default: Option<Duration>, sent: &Moment) -> Expiry {
    let said = granted.expires_in.or(default).or_else(|| jwt_life(granted.access_token.expose_secret(), sent.wall()));
    let whole = said.unwrap_or(GUESS);
    let lifetime = whole.saturating_sub(SKEW.min(whole / 10));
    Expiry { deadline: sent.after(lifetime), lifetime, stated: said.is_some() }
}

/// The `exp` of a JWT access token (RFC 9068 §2.2), unverified: it is a hint about a token that we were just handed, and
/// nothing is granted for it.
fn jwt_life(token: &str, now: SystemTime) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    claims.exp.checked_sub(now).filter(|left| *left > 0).map(Duration::from_secs)
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
    fn the_first_who_knows_is_believed() {
        let sent = Moment::now();
        let exp = sent.wall().duration_since(UNIX_EPOCH).unwrap().as_secs() + 500;
        let jwt = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)));
        let default = Some(Duration::from_secs(200));
        let whole = |granted, default| {
            let expiry = expiry(&granted, default, &sent);
            (expiry.lifetime.as_secs(), expiry.stated)
        };
        assert_eq!(whole(granted("opaque", Some(100)), default), (95, true));
        assert_eq!(whole(granted("opaque", None), default), (195, true));
        assert_eq!(whole(granted(&jwt, None), None), (495, true));
        assert_eq!(whole(granted("a.b.c", None), None), (3595, false));
        assert_eq!(whole(granted("opaque", None), None), (3595, false));
    }

    #[test]
    fn a_short_life_keeps_most_of_itself() {
        let expiry = expiry(&granted("opaque", Some(2)), None, &Moment::now());
        assert_eq!(expiry.lifetime, Duration::from_millis(1800));
    }
}
