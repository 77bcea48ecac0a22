//! What is asked for in a run: a few credentials of different temper, and the tokens of each.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use bearerd::{
    broker::{Credential, StoreOutage},
    caller::Caller,
    grant::{
        Client, ClientAuth, Endpoint, Grant, answer::RefusalError, lifetime::Lifetimes, profile::ProviderProfile,
        rotation::RotationProfile,
    },
    name::{CredentialName, Resources, Scopes, Subject},
    policy::{Action, Permit, Policy, Request},
    rejection::Rules,
    store::{Names, Place, Unit},
    token::{GrantKey, TokenKey},
    upstream::Fence,
};

use super::{
    chance::Chance,
    provider::{DEFAULT_SCOPES, Habit, Providers, Rotation, UNCONSENTED},
    run::{LEASE, TAKEOVER, TIMING},
};

/// What a broker keeps of a grace period for the way to the provider.
const MARGIN: Duration = Duration::from_secs(5);

/// Narrower than [`DEFAULT_SCOPES`].
const NARROW_SCOPES: &str = "read";

/// A credential and its provider's temper; `None` for client credentials.
#[derive(Clone, Debug)]
pub struct Temper {
    pub credential: String,
    pub rotation: Option<Rotation>,
    /// As the operator says that it is.
    pub profile: RotationProfile,
    pub lifetime: Duration,
    pub min_age: Duration,
    /// Where it is long, a token outlives an attempt to replace it whose answer was lost.
    pub ahead: Duration,
    pub habit: Habit,
}

/// One token that callers want.
#[derive(Clone)]
pub struct Key {
    pub credential: String,
    pub subject: &'static str,
    pub scopes: String,
    pub place: Place,
    pub permit: Permit,
    /// To try a dead grant again.
    pub retry: Permit,
}

impl Key {
    /// Whether no person consented to it.
    pub fn is_unconsented(&self) -> bool {
        self.scopes == UNCONSENTED
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.credential, self.subject, self.scopes)
    }
}

impl Temper {
    /// Two or three of all.
    pub fn draw(chance: &Chance) -> Vec<Self> {
        let window = chance.millis(10_000..180_000);
        // Django's server, for one, gives the same pair for as long as nobody used it.
        let long = RotationProfile::Grace { window: Duration::from_secs(3_600) };
        let all = [
            ("strict", Some(Rotation::Strict), RotationProfile::Strict),
            ("grace", Some(Rotation::Grace(window)), RotationProfile::Grace { window }),
            ("survives", Some(Rotation::OldSurvives), RotationProfile::OldSurvives),
            ("pair", Some(Rotation::SamePair), long),
            ("fixed", Some(Rotation::Never), RotationProfile::None),
            ("machine", None, RotationProfile::Strict),
        ];
        let first = chance.number(0..all.len());
        let number = chance.number(2..4);
        (0..number).map(|n| Self::of(chance, all[(first + n) % all.len()])).collect()
    }

    fn of(chance: &Chance, (name, rotation, profile): (&str, Option<Rotation>, RotationProfile)) -> Self {
        let unknown = chance.one_in(4);
        Self {
            credential: name.to_owned(),
            rotation,
            profile: if unknown { RotationProfile::Strict } else { profile },
            lifetime: chance.millis(40_000..240_000),
            min_age: Duration::from_secs(*chance.pick(&[0, 3, 10])),
            ahead: Duration::from_secs(*chance.pick(&[30, 100])),
            habit: Habit {
                refuses_with: *chance.pick(&[RefusalError::Scope, RefusalError::InvalidGrant]),
                names_scopes: chance.one_in(2),
            },
        }
    }

    /// How soon after a send another replica may ask again whose sender did not settle it.
    pub fn takeover(&self) -> Duration {
        let in_a_lease = TIMING.http_timeout + TIMING.commit_budget;
        match self.profile {
            _ if self.rotation.is_none() => LEASE,
            RotationProfile::Strict => TAKEOVER,
            // What is left of a short window is used.
            RotationProfile::Grace { window } if window >= TAKEOVER * 2 + MARGIN => TAKEOVER,
            RotationProfile::Grace { window: _ } | RotationProfile::OldSurvives | RotationProfile::None => in_a_lease,
        }
    }

    /// Whether asking again may end a grant.
    pub fn is_risky(&self) -> bool {
        let risky = matches!(self.profile, RotationProfile::Strict | RotationProfile::Grace { .. });
        self.rotation.is_some() && risky
    }

    /// Whether a refresh token whose answer is missing may be presented again only when a token is needed.
    pub fn waits_for_need(&self) -> bool {
        self.rotation.is_some() && self.profile == RotationProfile::Strict
    }

    /// The credential as it is configured. The service's own refresh token stands in the configuration.
    pub fn credential(&self, providers: &Providers) -> Credential {
        let (name, endpoint) = (&self.credential, self.endpoint());
        let grant = match self.rotation {
            Some(rotation) => {
                providers.speaks(name, self.habit);
                let first = providers.authorize(name, "", rotation, self.lifetime);
                Grant::RefreshToken { endpoint, first: Some(first.into()) }
            }
            None => {
                providers.register(name, self.lifetime);
                Grant::ClientCredentials(endpoint)
            }
        };
        Credential {
            name: CredentialName::new(name).unwrap(),
            grant,
            profile: ProviderProfile {
                rotation: self.profile,
                scope_bound: self.habit.refuses_with == RefusalError::Scope,
                ..ProviderProfile::default()
            },
            says_scopes: false,
            scopes: Scopes::new(DEFAULT_SCOPES.split(' ')).unwrap(),
            resources: Resources::default(),
            base_url: None,
            rejected_when: Rules::default(),
            lifetimes: Lifetimes::default(),
            min_age: self.min_age,
            refresh_ahead: self.ahead,
            keep_alive: false,
            store_outage: StoreOutage::Fail,
            fence: Fence::default(),
            call_timeout: Duration::from_secs(30),
            max_response_bytes: 1 << 20,
            found: OnceLock::new(),
        }
    }

    fn endpoint(&self) -> Endpoint {
        let client = Client { id: self.credential.clone(), auth: ClientAuth::None };
        let token_url = "https://provider.example/token".parse().unwrap();
        Endpoint { token_url, client, formerly: Vec::new(), issuer: None, parameters: Vec::new() }
    }

    /// Its tokens. Those of the subject come from a grant that has to be imported.
    pub fn keys(&self, names: &Names) -> Vec<Key> {
        let subjects = if self.rotation.is_some() { &["", "jane"][..] } else { &[""] };
        let pairs =
            subjects.iter().flat_map(|subject| [DEFAULT_SCOPES, NARROW_SCOPES].map(|scopes| (*subject, scopes)));
        pairs.map(|(subject, scopes)| self.key(names, subject, scopes)).collect()
    }

    /// Tokens that nobody consented to.
    pub fn unconsented(&self, names: &Names) -> Vec<Key> {
        let subjects = if self.rotation.is_some() { &["", "jane"][..] } else { &[] };
        subjects.iter().map(|subject| self.key(names, subject, UNCONSENTED)).collect()
    }

    fn key(&self, names: &Names, subject: &'static str, scopes: &str) -> Key {
        let credential = CredentialName::new(&self.credential).unwrap();
        let grant = GrantKey { credential: credential.clone(), subject: Subject::new(subject).unwrap() };
        let token = TokenKey {
            grant: grant.clone(),
            scopes: Scopes::new(scopes.split(' ')).unwrap(),
            resources: Resources::default(),
        };
        let bindings = Grant::ClientCredentials(self.endpoint()).bindings();
        let binding = bindings.own();
        let unit = if self.rotation.is_some() { Unit::Grant(&grant) } else { Unit::Token { key: &token, binding } };
        let request = Request::new(Action::Get, credential.clone(), grant.subject.clone());
        let request = Request { scopes: token.scopes.clone(), ..request };
        let permit = |request| Policy::local_only().permit(&Caller::Local, request).unwrap();
        let retry = permit(Request::new(Action::Administer, credential, grant.subject.clone()));
        Key {
            credential: self.credential.clone(),
            subject,
            scopes: scopes.to_owned(),
            place: names.place(unit, &token),
            permit: permit(request),
            retry,
        }
    }
}

/// All credentials of a run, by name.
pub fn credentials(tempers: &[Temper], providers: &Providers) -> BTreeMap<CredentialName, Credential> {
    let credentials = tempers.iter().map(|temper| temper.credential(providers));
    credentials.map(|credential| (credential.name.clone(), credential)).collect()
}
