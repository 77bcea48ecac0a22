//! Authorization servers, as strict as they come: what becomes of a refresh token that is used, and used again.

use std::{collections::HashMap, time::Duration};

use bearerd::{
    grant::{
        answer::{Answer, Granted, RefusalError},
        request::TokenRequest,
    },
    name::Scopes,
    secret::ExposeSecret,
    token::TokenType,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The scopes of a request that names none.
pub const DEFAULT_SCOPES: &str = "read write";

/// A scope that no person consented to.
pub const UNCONSENTED: &str = "admin";

/// How a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habit {
    /// What it says to a request for [`UNCONSENTED`]: some say `invalid_scope`, and Entra `invalid_grant`.
    pub refuses_with: RefusalError,
    /// Whether it names the scopes of a refresh that names none.
    pub names_scopes: bool,
}

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
    /// Nobody consented to what was asked for; nothing was done.
    NotConsented,
    /// It is ill, and calls a good refresh token invalid; nothing was done.
    Ill,
}

#[derive(Default)]
pub struct Providers(Mutex<State>);

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// By client.
    machines: HashMap<String, Duration>,
    /// By credential.
    habits: HashMap<String, Habit>,
    /// By credential: until when its provider is ill.
    ill: HashMap<String, Instant>,
    issued: HashMap<String, Issued>,
}

impl Providers {
    /// A client that gets tokens for itself.
    pub fn register(&self, client: &str, lifetime: Duration) {
        self.0.lock().machines.insert(client.to_owned(), lifetime);
    }

    /// How the provider of a credential speaks.
    pub fn speaks(&self, credential: &str, habit: Habit) {
        self.0.lock().habits.insert(credential.to_owned(), habit);
    }

    /// The provider of a credential calls every refresh token invalid for a while.
    pub fn falls_ill(&self, credential: &str, span: Duration) {
        self.0.lock().ill.insert(credential.to_owned(), Instant::now() + span);
    }

    /// All of them are well again.
    pub fn heal(&self) {
        self.0.lock().ill.clear();
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
        let asked = form.get("scope").map(String::as_str);
        let scopes = asked.unwrap_or(DEFAULT_SCOPES);
        let mut state = self.0.lock();
        match form.get("refresh_token") {
            None => {
                let client = &form["client_id"];
                let lifetime = state.machines[client];
                (state.issue(client, "", scopes, lifetime, (None, None)), Effect::Issued)
            }
            Some(token) => match family(token) {
                Some((family, serial)) => state.refresh(family, serial, asked),
                None => (refusal(RefusalError::InvalidGrant), Effect::Refused),
            },
        }
    }
}

fn family(refresh_token: &str) -> Option<(Family, u32)> {
    let (index, serial) = refresh_token.strip_prefix("rt-")?.split_once('-')?;
    Some((Family(index.parse().ok()?), serial.parse().ok()?))
}

fn refusal(error: RefusalError) -> Answer {
    Answer::Refused(error.into())
}

impl State {
    fn refresh(&mut self, family: Family, serial: u32, asked: Option<&str>) -> (Answer, Effect) {
        let now = Instant::now();
        let line = &mut self.lines[family.0];
        let habit = self.habits[&line.credential];
        if self.ill.get(&line.credential).is_some_and(|until| *until > now) {
            return (refusal(RefusalError::InvalidGrant), Effect::Ill);
        }
        if !line.alive {
            return (refusal(RefusalError::InvalidGrant), Effect::Refused);
        }
        if asked.is_some_and(|asked| asked.split(' ').any(|scope| scope == UNCONSENTED)) {
            return (refusal(habit.refuses_with), Effect::NotConsented);
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
                return (refusal(RefusalError::InvalidGrant), Effect::Killed(family, serial));
            }
        };
        let rotates = line.rotation != Rotation::Never;
        let successor = rotates.then(|| format!("rt-{}-{}", family.0, line.serial));
        let (credential, subject, lifetime) = (line.credential.clone(), line.subject.clone(), line.lifetime);
        let named = (asked.is_none() && habit.names_scopes).then_some(DEFAULT_SCOPES);
        let scopes = asked.unwrap_or(DEFAULT_SCOPES);
        (self.issue(&credential, &subject, scopes, lifetime, (successor, named)), effect)
    }

    fn issue(
        &mut self,
        credential: &str,
        subject: &str,
        scopes: &str,
        lifetime: Duration,
        (refresh_token, named): (Option<String>, Option<&str>),
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
            scopes: named.map(|named| Scopes::granted(named.split(' '))),
        })
    }
}
