//! Authorization servers, as strict as they come: what becomes of a refresh token that is used, and used again.

use std::{collections::HashMap, time::Duration};

use bearerd::{
    grant::{
        answer::{Answer, Granted, RefusalError},
        request::TokenRequest,
    },
    secret::ExposeSecret,
    token::TokenType,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The scopes of a request that names none.
pub const DEFAULT_SCOPES: &str = "read write";

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It is spent: a second use ends the grant (RFC 9700 §4.14.2).
    Strict,
    /// For this long it may be used again; then as above.
    Grace(Duration),
    /// Used again before its successor was, it gives the same successor; then as above.
    SamePair,
    /// There is a new one each time, and all of them stay good.
    OldSurvives,
    /// It stays, and there is no other.
    Never,
}

/// A refresh token and all that came and will come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family(usize);

struct Line {
    credential: String,
    subject: String,
    rotation: Rotation,
    lifetime: Duration,
    serial: u32,
    used: Option<Instant>,
    alive: bool,
}

/// An access token, as its issuer knows it.
#[derive(Clone, Debug)]
pub struct Issued {
    pub credential: String,
    pub subject: String,
    pub scopes: String,
    pub ends: Instant,
}

/// What a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The refresh token was replaced.
    Rotated(Family, u32),
    /// A token was issued; nothing was spent.
    Issued,
    /// A spent refresh token came again, and the grant has ended.
    Killed(Family, u32),
    /// The grant had ended before, or the refresh token was never one.
    Refused,
}

#[derive(Default)]
pub struct Providers(Mutex<State>);

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// By client.
    machines: HashMap<String, Duration>,
    issued: HashMap<String, Issued>,
}

impl Providers {
    /// A client that gets tokens for itself.
    pub fn register(&self, client: &str, lifetime: Duration) {
        self.0.lock().machines.insert(client.to_owned(), lifetime);
    }

    /// The first refresh token of a new grant.
    pub fn authorize(&self, credential: &str, subject: &str, rotation: Rotation, lifetime: Duration) -> String {
        let mut state = self.0.lock();
        state.lines.push(Line {
            credential: credential.to_owned(),
            subject: subject.to_owned(),
            rotation,
            lifetime,
            serial: 0,
            used: None,
            alive: true,
        });
        format!("rt-{}-0", state.lines.len() - 1)
    }

    /// Ends what a subject granted, as some servers do with what it granted before.
    pub fn revoke(&self, credential: &str, subject: &str) {
        let mut state = self.0.lock();
        let own = |line: &&mut Line| (&*line.credential, &*line.subject) == (credential, subject);
        state.lines.iter_mut().filter(own).for_each(|line| line.alive = false);
    }

    /// All that a subject ever granted to a client.
    pub fn families(&self, credential: &str, subject: &str) -> Vec<Family> {
        let state = self.0.lock();
        let lines = state.lines.iter().enumerate();
        let own = lines.filter(|(_, line)| (&*line.credential, &*line.subject) == (credential, subject));
        own.map(|(index, _)| Family(index)).collect()
    }

    /// What an access token is, if it is one.
    pub fn issued(&self, token: &str) -> Option<Issued> {
        self.0.lock().issued.get(token).cloned()
    }

    /// Whether this refresh token would be taken.
    pub fn takes(&self, refresh_token: &str) -> bool {
        let state = self.0.lock();
        family(refresh_token).is_some_and(|(Family(index), serial)| {
            let line = &state.lines[index];
            line.alive && (line.serial == serial || line.rotation == Rotation::OldSurvives)
        })
    }

    /// Acts on a request.
    pub fn act(&self, request: &TokenRequest) -> (Answer, Effect) {
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(request.body.expose_secret().as_bytes()).into_owned().collect();
        let scopes = form.get("scope").map_or(DEFAULT_SCOPES, String::as_str);
        let mut state = self.0.lock();
        match form.get("refresh_token") {
            None => {
                let client = &form["client_id"];
                let lifetime = state.machines[client];
                (state.issue(client, "", scopes, lifetime, None), Effect::Issued)
            }
            Some(token) => match family(token) {
                Some((family, serial)) => state.refresh(family, serial, scopes),
                None => (invalid_grant(), Effect::Refused),
            },
        }
    }
}

fn family(refresh_token: &str) -> Option<(Family, u32)> {
    let (index, serial) = refresh_token.strip_prefix("rt-")?.split_once('-')?;
    Some((Family(index.parse().ok()?), serial.parse().ok()?))
}

fn invalid_grant() -> Answer {
    Answer::Refused(RefusalError::InvalidGrant.into())
}

impl State {
    fn refresh(&mut self, family: Family, serial: u32, scopes: &str) -> (Answer, Effect) {
        let now = Instant::now();
        let line = &mut self.lines[family.0];
        if !line.alive {
            return (invalid_grant(), Effect::Refused);
        }
        let effect = match line.rotation {
            Rotation::Never => Effect::Issued,
            Rotation::OldSurvives => {
                line.serial += 1;
                Effect::Issued
            }
            _ if serial == line.serial => {
                line.serial += 1;
                line.used = Some(now);
                Effect::Rotated(family, serial)
            }
            Rotation::Grace(span) if serial + 1 == line.serial && line.used.is_some_and(|at| now - at <= span) => {
                Effect::Issued
            }
            Rotation::SamePair if serial + 1 == line.serial => Effect::Issued,
            Rotation::Strict | Rotation::Grace(_) | Rotation::SamePair => {
                line.alive = false;
                return (invalid_grant(), Effect::Killed(family, serial));
            }
        };
        let rotates = line.rotation != Rotation::Never;
        let successor = rotates.then(|| format!("rt-{}-{}", family.0, line.serial));
        let (credential, subject, lifetime) = (line.credential.clone(), line.subject.clone(), line.lifetime);
        (self.issue(&credential, &subject, scopes, lifetime, successor), effect)
    }

    fn issue(
        &mut self,
        credential: &str,
        subject: &str,
        scopes: &str,
        lifetime: Duration,
        refresh_token: Option<String>,
    ) -> Answer {
        let token = format!("at-{}", self.issued.len());
        self.issued.insert(
            token.clone(),
            Issued {
                credential: credential.to_owned(),
                subject: subject.to_owned(),
                scopes: scopes.to_owned(),
                ends: Instant::now() + lifetime,
            },
        );
        Answer::Granted(Granted {
            access_token: token.into(),
            kind: TokenType::Bearer,
            expires_in: Some(lifetime),
            refresh_token: refresh_token.map(Into::into),
            scopes: None,
        })
    }
}
