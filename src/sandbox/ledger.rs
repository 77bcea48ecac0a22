//! The ledger: which grants and tokens exist and which of them are good. Pure: the time is handed in.

use std::{collections::HashMap, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::Instant;

use super::{
    Rotation,
    journal::Presented,
    refusal::{ErrorWord, Refusal},
    scope,
};
use crate::name::Scopes;

/// No access token lives longer, whatever the options say: the sum with a moment must stay inside the clock's range.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Everything that was issued.
pub(super) struct Ledger {
    rotation: Rotation,
    lifetime: Duration,
    families: Vec<Family>,
    /// Rotated refresh tokens stay here for good: that is how reuse is seen.
    refresh_tokens: HashMap<String, Presented>,
    access_tokens: HashMap<String, AccessToken>,
}

/// A grant with all refresh tokens that came out of it.
struct Family {
    subject: String,
    /// A refresh token is bound to the client that it was issued to (RFC 6749 §6). No authorization request named one
    /// here, so it is the one that comes first.
    client: Option<String>,
    scopes: Scopes,
    rotation: u64,
    alive: bool,
}

/// A live access token.
#[derive(Clone, Debug)]
pub(super) struct AccessToken {
    /// On whose behalf: a subject, or a client that acts for itself.
    pub holder: String,
    /// What it may be used for.
    pub scopes: Scopes,
    family: Option<usize>,
    ends: Instant,
}

/// What goes into a successful answer (RFC 6749 §5.1).
pub(super) struct Issued {
    pub access_token: String,
    pub expires_in: Duration,
    pub refresh_token: Option<String>,
    pub scopes: Scopes,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(rotation: Rotation, lifetime: Duration) -> Self {
        let (refresh_tokens, access_tokens) = (HashMap::new(), HashMap::new());
        Self { rotation, lifetime: lifetime.min(LONGEST), families: Vec::new(), refresh_tokens, access_tokens }
    }

    /// Starts a grant and returns its first refresh token.
    pub fn mint(&mut self, subject: &str) -> String {
        let scopes = Scopes::granted(scope::CONSENTED);
        self.families.push(Family { subject: subject.to_owned(), client: None, scopes, rotation: 0, alive: true });
        self.enter(Presented { family: self.families.len() - 1, rotation: 0 })
    }

    /// Where a refresh token stands, however old it is.
    pub fn position(&self, refresh_token: &str) -> Option<Presented> {
        self.refresh_tokens.get(refresh_token).copied()
    }

    /// Whether a grant still gives tokens.
    pub fn is_alive(&self, family: usize) -> bool {
        self.families.get(family).is_some_and(|family| family.alive)
    }

    /// Ends a grant together with its access tokens.
    pub fn revoke(&mut self, family: usize) {
        if let Some(family) = self.families.get_mut(family) {
            family.alive = false;
        }
        self.access_tokens.retain(|_, token| token.family != Some(family));
    }

    /// Ends the grant of a refresh token at its client's wish (RFC 7009 §2.1). A token that was never issued is as good
    /// as revoked (§2.2). A grant that no client has used yet may be ended by any.
    pub fn revoke_for(&mut self, token: &str, client: &str) -> Result<(), Refusal> {
        if self.access_tokens.contains_key(token) {
            return Err(ErrorWord::UnsupportedTokenType.because("only refresh tokens can be revoked here"));
        }
        let Some(presented) = self.position(token) else { return Ok(()) };
        let bound = self.families.get(presented.family).and_then(|family| family.client.as_deref());
        if bound.is_some_and(|bound| bound != client) {
            return Err(ErrorWord::InvalidGrant.because("the refresh token was issued to another client"));
        }
        self.revoke(presented.family);
        Ok(())
    }

    /// Ends every access token; grants live on.
    pub fn revoke_access_tokens(&mut self) {
        self.access_tokens.clear();
    }

    /// Issues an access token without a grant behind it (RFC 6749 §4.4.3, RFC 7521 §4.1: no refresh token).
    pub fn issue(&mut self, holder: &str, scopes: Scopes, now: Instant) -> Issued {
        self.issue_in(None, holder.to_owned(), scopes, now)
    }

    /// Refreshes (RFC 6749 §6). A token that was rotated away is taken for stolen (RFC 9700 §4.14.2): its whole family
    /// ends, since nobody can say which of two holders is the thief.
    pub fn refresh(
        &mut self,
        refresh_token: &str,
        client: &str,
        scope: Option<&str>,
        now: Instant,
    ) -> Result<Issued, Refusal> {
        let unknown = ErrorWord::InvalidGrant.because("the refresh token is unknown, or was issued to another client");
        let presented = self.position(refresh_token).ok_or(unknown)?;
        let family = self.families.get_mut(presented.family).ok_or(unknown)?;
        if family.client.as_deref().is_some_and(|bound| bound != client) {
            return Err(unknown);
        }
        if !family.alive {
            return Err(ErrorWord::InvalidGrant.because("the grant was revoked"));
        }
        if presented.rotation != family.rotation {
            self.revoke(presented.family);
            return Err(ErrorWord::InvalidGrant.because("the refresh token was used before; the grant is revoked"));
        }
        let scopes = scope::within(scope, &family.scopes, &family.scopes)?;
        family.client = Some(client.to_owned());
        let subject = family.subject.clone();
        let next = self.rotate(presented);
        Ok(Issued { refresh_token: next, ..self.issue_in(Some(presented.family), subject, scopes, now) })
    }

    /// The access token, if it is good at `now`.
    pub fn live(&self, access_token: &str, now: Instant) -> Option<&AccessToken> {
        self.access_tokens.get(access_token).filter(|token| now < token.ends)
    }

    fn rotate(&mut self, presented: Presented) -> Option<String> {
        match self.rotation {
            Rotation::Off => None,
            Rotation::Strict => {
                let next = Presented { rotation: presented.rotation + 1, ..presented };
                self.families.get_mut(next.family)?.rotation = next.rotation;
                Some(self.enter(next))
            }
        }
    }

    fn enter(&mut self, position: Presented) -> String {
        let token = opaque("rt");
        self.refresh_tokens.insert(token.clone(), position);
        token
    }

    fn issue_in(&mut self, family: Option<usize>, holder: String, scopes: Scopes, now: Instant) -> Issued {
        self.access_tokens.retain(|_, token| now < token.ends);
        let access_token = opaque("at");
        let entry = AccessToken { holder, scopes: scopes.clone(), family, ends: now + self.lifetime };
        self.access_tokens.insert(access_token.clone(), entry);
        Issued { access_token, expires_in: self.lifetime, refresh_token: None, scopes }
    }
}

/// 256 random bits. The prefix tells a reader of a trace which kind of token leaked; nothing parses it.
fn opaque(prefix: &str) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    #[test]
    fn an_access_token_ends_with_its_lifetime() {
        let (mut ledger, now) = (Ledger::new(Rotation::Strict, LIFETIME), Instant::now());
        let issued = ledger.issue("client", Scopes::granted(["read"]), now);
        assert_eq!(ledger.live(&issued.access_token, now).unwrap().holder, "client");
        assert!(ledger.live(&issued.access_token, now + LIFETIME - Duration::from_millis(1)).is_some());
        assert!(ledger.live(&issued.access_token, now + LIFETIME).is_none());
    }

    #[test]
    fn reuse_ends_the_family_and_no_other() {
        let (mut ledger, now) = (Ledger::new(Rotation::Strict, LIFETIME), Instant::now());
        let (first, other) = (ledger.mint("ada"), ledger.mint("grace"));
        let second = ledger.refresh(&first, "c", None, now).ok().unwrap();
        let third = ledger.refresh(second.refresh_token.as_deref().unwrap(), "c", None, now).ok().unwrap();
        let others = ledger.refresh(&other, "c", None, now).ok().unwrap();
        assert_eq!(
            ledger.position(third.refresh_token.as_deref().unwrap()),
            Some(Presented { family: 0, rotation: 2 })
        );

        assert_eq!(ledger.refresh(&first, "c", None, now).err().unwrap().error, ErrorWord::InvalidGrant);
        assert!(!ledger.is_alive(0) && ledger.is_alive(1));
        assert!(ledger.live(&second.access_token, now).is_none());
        assert!(ledger.live(&third.access_token, now).is_none());
        assert!(ledger.live(&others.access_token, now).is_some());
        assert!(ledger.refresh(third.refresh_token.as_deref().unwrap(), "c", None, now).is_err());
    }

    #[test]
    fn a_refused_request_does_not_rotate() {
        let (mut ledger, now) = (Ledger::new(Rotation::Strict, LIFETIME), Instant::now());
        let first = ledger.mint("ada");
        for scope in ["admin", "read  write", "\"", " "] {
            let refused = ledger.refresh(&first, "c", Some(scope), now).err().unwrap();
            assert_eq!(refused.error, ErrorWord::InvalidScope, "{scope}");
        }
        let second = ledger.refresh(&first, "c", Some("read"), now).ok().unwrap();
        assert_eq!(second.scopes.to_parameter(), "read");
        let second = second.refresh_token.unwrap();
        assert_eq!(ledger.refresh(&second, "thief", None, now).err().unwrap().error, ErrorWord::InvalidGrant);
        // A narrower scope narrows one access token, never the grant (RFC 6749 section 6).
        assert_eq!(ledger.refresh(&second, "c", None, now).ok().unwrap().scopes.to_parameter(), "read write");
    }

    #[test]
    fn without_rotation_the_refresh_token_stays() {
        let (mut ledger, now) = (Ledger::new(Rotation::Off, LIFETIME), Instant::now());
        let token = ledger.mint("ada");
        for _ in 0..3 {
            assert!(ledger.refresh(&token, "c", None, now).ok().unwrap().refresh_token.is_none());
        }
        assert!(ledger.is_alive(0));
    }
}
