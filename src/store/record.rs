//! The records as both stores keep them: what stands in clear so that a store can decide, and what is sealed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    AttemptId, Purpose, StoreError,
    names::{Fingerprint, UnitName},
    seal::{Ring, SealError, Sealed, Seat},
};
use crate::{
    failure::{FailureCause, ProviderReport},
    grant::Bindings,
    name::{Scopes, Subject},
    secret::{ExposeSecret, SecretString},
    token::Generation,
};

pub use self::token::{SKEW, StoredToken, open_ended_token, open_token, seal_token};
pub(super) use self::token::{token_key, token_seat};

mod token;

/// The longest wait that is noted. A record that still wants a longer one was written before the store's clock was set
/// back; it is not believed, or it would stop the grant until the clock is there again.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);

/// How many attempts that wrote earlier revisions are remembered. An answer whose commit was stored without its process
/// hearing so is known by that when it comes again, and not taken for one that came too late.
pub const MAX_PAST: usize = 8;

/// The longest time until a dead grant is tried again. A record that wants a longer one is not believed, as with [`MAX_WAIT`].
pub const MAX_REVIVAL_WAIT: Duration = Duration::from_secs(2 * 86_400);

/// How much longer than its wait a refusal of a token is remembered, so that a next one waits for longer.
pub const REFUSAL_REMEMBERED: Duration = Duration::from_secs(600);

/// A grant as it is known after a look into the store.
#[derive(Clone, Debug)]
pub struct GrantRecord {
    /// The revision.
    pub revision: Generation,
    /// Whether it gives tokens.
    pub state: GrantState,
    /// What is sealed.
    pub secrets: GrantSecrets,
    /// A refresh token of this revision was, perhaps, sent.
    pub intent: Option<Intent>,
    /// The last failure since the last success.
    pub failure: Option<LastFailure>,
    /// The provider's words about that failure, as far as they are known.
    pub report: Option<ProviderReport>,
    /// How often in a row a token was rejected soon after it was allowed to be replaced.
    pub strikes: u32,
    /// An answer that came after another revision was stored.
    pub quarantine: Option<Quarantined>,
    /// What is known of its death, if it is dead.
    pub revival: Option<Revival>,
}

impl GrantSecrets {
    /// Whether the material belongs to one of these providers and clients.
    pub fn belong_to(&self, bindings: &Bindings) -> bool {
        bindings.include(&self.binding, self.issuer.as_deref())
    }

    /// All scopes of the grant, where they are known.
    pub fn granted(&self) -> Option<&Scopes> {
        Some(&self.scopes).filter(|scopes| self.scopes_known && !scopes.is_empty())
    }
}

impl GrantRecord {
    /// Whether the provider is not to be asked now for this purpose.
    pub fn is_resting(&self, purpose: Purpose) -> bool {
        let is_dead = self.state != GrantState::Active && !purpose.dead;
        is_dead || self.failure.is_some_and(|failure| purpose.waits_for(failure.wait, failure.early))
    }
}

/// What is known of a dead grant's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revival {
    /// How often the provider said that it is dead, since it last gave a token.
    pub deaths: u32,
    /// What is left until the broker may try it again by itself; `None`: that is left to an operator.
    pub wait: Option<Duration>,
}

/// The provider refused one token of a grant, for the scopes or resources that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Why.
    pub cause: FailureCause,
    /// How many in a row.
    pub count: u32,
    /// What is left of the wait until the next try.
    pub wait: Duration,
    /// As in [`LastFailure`].
    pub early: bool,
}

impl TokenRefusal {
    /// Whether the token is not to be asked for now for this purpose.
    pub fn holds(&self, purpose: Purpose) -> bool {
        purpose.waits_for(self.wait, self.early)
    }
}

/// An answer that came too late to be committed, with what may be the only living refresh token.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// The revision that it would have become.
    pub revision: Generation,
    /// What the grant would have been.
    pub secrets: GrantSecrets,
}

/// Whether a grant gives tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// It does, as far as is known.
    Active,
    /// It does not, until a new one is imported.
    Dead(FailureCause),
}

/// The sealed part of a grant.
#[derive(Clone, Debug, Default)]
pub struct GrantSecrets {
    /// What tokens are made from.
    pub material: Material,
    /// The scopes that were granted, as far as they were told; else those that the credential asks for.
    pub scopes: Scopes,
    /// Whether [`Self::scopes`] are all that was granted: the provider or an import said so.
    pub scopes_known: bool,
    /// On whose behalf; `None` in records of versions that did not keep it.
    pub subject: Option<Subject>,
    /// Token endpoint and client that the material belongs to (RFC 6749 §10.4: a refresh token goes nowhere else).
    pub binding: String,
    /// Issuer and client that the material belongs to, where the issuer was configured.
    pub issuer: Option<String>,
    /// The configured secrets that were taken over so far: each is taken over once, so that a replica with yesterday's
    /// file never brings yesterday's refresh token back.
    pub seeds: Vec<Fingerprint>,
    /// The refresh tokens that were presented or replaced so far, newest last: a second use of one may end the grant.
    pub presented: Vec<Fingerprint>,
    /// Whether the refresh token was handed over and has not given a token yet.
    pub untried: bool,
}

/// What tokens are made from.
#[derive(Clone, Debug, Default)]
pub enum Material {
    /// Nothing that has to be kept.
    #[default]
    Nothing,
    /// A refresh token.
    RefreshToken(SecretString),
    /// A static secret.
    Static(SecretString),
}

/// A refresh token was, perhaps, sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The last try that sent it.
    pub attempt: AttemptId,
    /// When it was first sent, by the store's clock.
    pub age: Duration,
    /// When it was last sent, likewise: whoever sent it may still be storing the answer.
    pub quiet: Duration,
    /// How many sends have an unknown outcome.
    pub sends: u32,
    /// Whether the last try itself said that it got no answer; else it may still be at work, or have died.
    pub settled: bool,
}

/// A failure that no success followed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// Why.
    pub cause: FailureCause,
    /// How many in a row.
    pub count: u32,
    /// What is left of the wait until the next try.
    pub wait: Duration,
    /// Whether all of them were tries ahead of time: then a token that is needed is asked for without this wait.
    pub early: bool,
}

/// A grant as it is stored. `rev` to `made_us` stand in clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantRow {
    /// The revision.
    pub rev: Generation,
    /// The cause of death.
    pub dead: Option<String>,
    /// Tokens that are older were made from a grant that was replaced.
    pub since: Generation,
    /// The attempt that wrote this revision.
    pub attempt: Option<String>,
    /// The attempts that wrote the revisions before, newest first, at most [`MAX_PAST`].
    pub past: Vec<String>,
    /// The last attempt that was settled.
    pub settled: Option<String>,
    /// The last attempt that sent the refresh token.
    pub intent: Option<String>,
    /// When the first of them did, in µs of the store's clock.
    pub intent_us: u64,
    /// When the last of them did, likewise.
    pub sent_us: u64,
    /// How many of them have an unknown outcome.
    pub sends: u32,
    /// The cause of the last failure.
    pub fail: Option<String>,
    /// How many failures in a row.
    pub failures: u32,
    /// When the next try is due, in µs of the store's clock.
    pub retry_us: u64,
    /// [`Self::retry_us`] as long as tries ahead of time alone failed. Another value counts for nothing: an older version of
    /// this program writes the one without the other.
    pub early_us: u64,
    /// When a dead grant may be tried again, likewise; zero: not without an operator.
    pub revive_us: u64,
    /// How often the provider said that the grant is dead, since it last gave a token.
    pub deaths: u32,
    /// When this revision was written, in µs of the store's clock.
    pub made_us: u64,
    /// How often in a row fresh tokens were rejected.
    pub strikes: u32,
    /// [`GrantSecrets`], sealed; absent as long as only a failure was noted.
    pub sealed: Option<Sealed>,
    /// The revision of [`Self::q_sealed`].
    pub q_rev: Generation,
    /// [`GrantSecrets`] in quarantine, sealed.
    pub q_sealed: Option<Sealed>,
    /// The revision of [`Self::report`].
    pub report_rev: Generation,
    /// The provider's words about the attempt in [`Self::settled`], sealed. An older version of this program leaves those
    /// of an earlier attempt.
    pub report: Option<Sealed>,
}

impl GrantRow {
    /// Every sealed value of the row, with the seat that it was sealed for.
    pub(super) fn sealed_values<'a>(
        &'a mut self,
        unit: &'a UnitName,
    ) -> impl Iterator<Item = (Seat<'a>, &'a mut Sealed)> {
        let grant = (grant_seat(unit, self.rev), self.sealed.as_mut());
        let quarantine = (quarantine_seat(unit, self.q_rev), self.q_sealed.as_mut());
        let report = (report_seat(unit, self.report_rev), self.report.as_mut());
        [grant, quarantine, report].into_iter().filter_map(|(seat, sealed)| sealed.map(|sealed| (seat, sealed)))
    }

    /// The attempts that wrote this revision and those before it, for the next one.
    pub(super) fn written_before(&self) -> Vec<String> {
        self.attempt.iter().chain(&self.past).take(MAX_PAST).cloned().collect()
    }

    /// Withdraws one send of this attempt; what became of those before it is as unknown as it was.
    pub(super) fn withdraw(&mut self, attempt: &str) {
        if self.intent.as_deref() == Some(attempt) {
            self.sends = self.sends.saturating_sub(1);
            if self.sends == 0 {
                self.intent = None;
            }
        }
    }

    /// Opens the sealed part and reads the times against the store's clock.
    pub fn open(self, ring: &Ring, unit: &UnitName, now_us: u64) -> Result<GrantRecord, StoreError> {
        if self.rev > Generation::MAX {
            return Err(StoreError::Unreadable(format!("{unit:?} has a revision beyond every clock")));
        }
        let secrets = match &self.sealed {
            None => GrantSecrets::default(),
            Some(sealed) => open_secrets(ring, unit, self.rev, sealed)?,
        };
        let quarantine = self.q_sealed.as_ref().map(|sealed| {
            let secrets = open_at(ring, &quarantine_seat(unit, self.q_rev), sealed)?;
            Ok(Quarantined { revision: self.q_rev, secrets })
        });
        Ok(GrantRecord {
            revision: self.rev,
            state: self.state(unit)?,
            intent: self.intent(now_us),
            failure: self.failure(unit, now_us)?,
            report: self.provider_report(ring, unit),
            strikes: self.strikes,
            quarantine: quarantine.transpose()?,
            revival: self.revival(now_us),
            secrets,
        })
    }

    fn state(&self, unit: &UnitName) -> Result<GrantState, StoreError> {
        match &self.dead {
            None => Ok(GrantState::Active),
            Some(word) => cause(unit, word).map(GrantState::Dead),
        }
    }

    fn intent(&self, now_us: u64) -> Option<Intent> {
        let attempt = AttemptId::from(self.intent.clone()?);
        let since = |us| Duration::from_micros(now_us.saturating_sub(us));
        let (age, quiet) = (since(self.intent_us), since(self.sent_us));
        Some(Intent { attempt, age, quiet, sends: self.sends.max(1), settled: self.settled == self.intent })
    }

    fn failure(&self, unit: &UnitName, now_us: u64) -> Result<Option<LastFailure>, StoreError> {
        let Some(word) = &self.fail else { return Ok(None) };
        let (wait, early) = (left(self.retry_us, now_us, MAX_WAIT), self.is_early());
        Ok(Some(LastFailure { cause: cause(unit, word)?, count: self.failures, wait, early }))
    }

    /// No decision rests on it, so one that cannot be read is none.
    fn provider_report(&self, ring: &Ring, unit: &UnitName) -> Option<ProviderReport> {
        let payload: ReportPayload = open(ring, &report_seat(unit, self.report_rev), self.report.as_ref()?).ok()?;
        (self.fail.is_some() && self.settled.as_ref() == Some(&payload.attempt)).then_some(payload.report)
    }

    /// Whether nothing but tries ahead of time failed.
    pub(super) fn is_early(&self) -> bool {
        self.retry_us != 0 && self.early_us == self.retry_us
    }

    fn revival(&self, now_us: u64) -> Option<Revival> {
        let wait = (self.revive_us != 0).then(|| left(self.revive_us, now_us, MAX_REVIVAL_WAIT));
        self.dead.is_some().then_some(Revival { deaths: self.deaths, wait })
    }
}

/// What is left until a moment; nothing, if that is more than there can be.
pub fn left(at_us: u64, now_us: u64, most: Duration) -> Duration {
    let left = Duration::from_micros(at_us.saturating_sub(now_us));
    if left > most { Duration::ZERO } else { left }
}

/// A span in µs.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn cause(unit: &UnitName, word: &str) -> Result<FailureCause, StoreError> {
    word.parse().map_err(|_| StoreError::Unreadable(format!("{unit:?} names a cause of failure that does not exist")))
}

/// The sealed payload of a grant.
#[derive(Serialize, Deserialize)]
struct SecretsPayload {
    v: u8,
    refresh_token: Option<String>,
    static_secret: Option<String>,
    scopes: Scopes,
    binding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    seeds: Vec<String>,
    #[serde(default)]
    scopes_known: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    presented: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    untried: bool,
}

impl Drop for SecretsPayload {
    fn drop(&mut self) {
        self.refresh_token.zeroize();
        self.static_secret.zeroize();
        self.subject.zeroize();
    }
}

/// The sealed payload of a report.
#[derive(Serialize, Deserialize)]
struct ReportPayload {
    v: u8,
    attempt: String,
    report: ProviderReport,
}

const PAYLOAD_VERSION: u8 = 1;

/// Seals the secrets of a grant for the revision that they become.
pub fn seal_secrets(
    ring: &Ring,
    unit: &UnitName,
    revision: Generation,
    secrets: &GrantSecrets,
) -> Result<Sealed, StoreError> {
    seal_at(ring, &grant_seat(unit, revision), secrets)
}

/// Seals the secrets of an answer that came too late, for the revision that they would have become.
pub fn seal_quarantine(
    ring: &Ring,
    unit: &UnitName,
    revision: Generation,
    secrets: &GrantSecrets,
) -> Result<Sealed, StoreError> {
    seal_at(ring, &quarantine_seat(unit, revision), secrets)
}

/// Seals the provider's words about an attempt that was made from this revision.
pub fn seal_report(
    ring: &Ring,
    unit: &UnitName,
    revision: Generation,
    attempt: &AttemptId,
    report: &ProviderReport,
) -> Result<Sealed, StoreError> {
    let (attempt, report) = (attempt.as_str().to_owned(), report.clone());
    seal(ring, &report_seat(unit, revision), &ReportPayload { v: PAYLOAD_VERSION, attempt, report })
}

fn seal_at(ring: &Ring, seat: &Seat<'_>, secrets: &GrantSecrets) -> Result<Sealed, StoreError> {
    let (refresh_token, static_secret) = match &secrets.material {
        Material::Nothing => (None, None),
        Material::RefreshToken(token) => (Some(token.expose_secret().to_owned()), None),
        Material::Static(secret) => (None, Some(secret.expose_secret().to_owned())),
    };
    let payload = SecretsPayload {
        v: PAYLOAD_VERSION,
        refresh_token,
        static_secret,
        scopes: secrets.scopes.clone(),
        scopes_known: secrets.scopes_known,
        subject: secrets.subject.as_ref().map(|subject| subject.as_str().to_owned()),
        binding: secrets.binding.clone(),
        issuer: secrets.issuer.clone(),
        seeds: texts(&secrets.seeds),
        presented: texts(&secrets.presented),
        untried: secrets.untried,
    };
    seal(ring, seat, &payload)
}

fn texts(fingerprints: &[Fingerprint]) -> Vec<String> {
    fingerprints.iter().map(|fingerprint| fingerprint.as_str().to_owned()).collect()
}

fn fingerprints(texts: &[String]) -> Vec<Fingerprint> {
    texts.iter().cloned().map(Fingerprint::from).collect()
}

/// Opens the secrets of a grant of this revision.
pub fn open_secrets(
    ring: &Ring,
    unit: &UnitName,
    revision: Generation,
    sealed: &Sealed,
) -> Result<GrantSecrets, StoreError> {
    open_at(ring, &grant_seat(unit, revision), sealed)
}

fn open_at(ring: &Ring, seat: &Seat<'_>, sealed: &Sealed) -> Result<GrantSecrets, StoreError> {
    let mut payload: SecretsPayload = open(ring, seat, sealed)?;
    let material = match (payload.refresh_token.take(), payload.static_secret.take()) {
        (Some(token), _) => Material::RefreshToken(token.into()),
        (None, Some(secret)) => Material::Static(secret.into()),
        (None, None) => Material::Nothing,
    };
    Ok(GrantSecrets {
        material,
        scopes: payload.scopes.clone(),
        scopes_known: payload.scopes_known,
        subject: payload.subject.as_deref().and_then(|subject| Subject::new(subject).ok()),
        binding: payload.binding.clone(),
        issuer: payload.issuer.clone(),
        seeds: fingerprints(&payload.seeds),
        presented: fingerprints(&payload.presented),
        untried: payload.untried,
    })
}

pub(super) fn grant_seat(unit: &UnitName, revision: Generation) -> Seat<'_> {
    Seat { key: unit.as_str(), field: "grant", revision }
}

fn report_seat(unit: &UnitName, revision: Generation) -> Seat<'_> {
    Seat { key: unit.as_str(), field: "report", revision }
}

fn quarantine_seat(unit: &UnitName, revision: Generation) -> Seat<'_> {
    Seat { key: unit.as_str(), field: "quarantine", revision }
}

fn seal<T: Serialize>(ring: &Ring, seat: &Seat<'_>, payload: &T) -> Result<Sealed, StoreError> {
    let mut plain = Zeroizing::new(Vec::with_capacity(8 * 1024));
    serde_json::to_writer(&mut *plain, payload).map_err(|_| unreadable(seat, &SealError::Damaged))?;
    ring.seal(seat, &plain).map_err(|error| unreadable(seat, &error))
}

fn open<T: for<'de> Deserialize<'de>>(ring: &Ring, seat: &Seat<'_>, sealed: &Sealed) -> Result<T, StoreError> {
    let plain = ring.open(seat, sealed).map_err(|error| unreadable(seat, &error))?;
    // serde_json's own message can quote the text, so it is not passed on.
    serde_json::from_slice(&plain).map_err(|_| unreadable(seat, &SealError::Damaged))
}

fn unreadable(seat: &Seat<'_>, error: &SealError) -> StoreError {
    StoreError::Unreadable(format!("{} ({}): {error}", seat.key, seat.field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Ring {
        Ring::new([("k", [3_u8; 32].as_slice())]).unwrap()
    }

    #[test]
    fn a_grant_is_read_back_and_its_clear_part_is_silent() {
        let unit = UnitName::from("crm/abc");
        let secrets = GrantSecrets {
            material: Material::RefreshToken("rt-canary".into()),
            scopes: Scopes::new(["api"]).unwrap(),
            scopes_known: true,
            subject: Some(Subject::new("jane").unwrap()),
            binding: "https://as.example/token client".into(),
            issuer: Some("https://as.example client".into()),
            seeds: vec![Fingerprint::from("f".to_owned())],
            presented: vec![Fingerprint::from("p".to_owned())],
            untried: true,
        };
        let rev = Generation::new(9);
        let sealed = seal_secrets(&ring(), &unit, rev, &secrets).unwrap();
        let row = GrantRow { rev, sealed: Some(sealed), ..GrantRow::default() };
        assert!(!serde_json::to_string(&row).unwrap().contains("canary"));
        let record = row.open(&ring(), &unit, 0).unwrap();
        let Material::RefreshToken(token) = &record.secrets.material else { panic!("{record:?}") };
        assert_eq!(token.expose_secret(), "rt-canary");
        assert_eq!(record.secrets.seeds, secrets.seeds);
        assert_eq!((record.secrets.granted(), &record.secrets.subject), (Some(&secrets.scopes), &secrets.subject));
        assert_eq!((&record.secrets.presented, record.secrets.untried), (&secrets.presented, secrets.untried));
        assert!(!format!("{record:?}").contains("canary"));
    }

    #[test]
    fn a_row_that_lies_about_its_revision_does_not_open() {
        let unit = UnitName::from("crm/abc");
        let sealed = seal_secrets(&ring(), &unit, Generation::new(9), &GrantSecrets::default()).unwrap();
        for rev in [8, 10, u64::MAX] {
            let row = GrantRow { rev: Generation::new(rev), sealed: Some(sealed.clone()), ..GrantRow::default() };
            assert!(matches!(row.open(&ring(), &unit, 0), Err(StoreError::Unreadable(_))), "{rev}");
        }
    }

    #[test]
    fn a_quarantine_is_sealed_for_its_own_field_and_revision() {
        let (unit, rev) = (UnitName::from("crm/abc"), Generation::new(9));
        let sealed = seal_quarantine(&ring(), &unit, rev, &GrantSecrets::default()).unwrap();
        let row = |rev, q_rev, sealed: &Sealed| {
            let row = GrantRow { rev, q_rev, q_sealed: Some(sealed.clone()), ..GrantRow::default() };
            row.open(&ring(), &unit, 0).map(|record| record.quarantine.map(|kept| kept.revision))
        };
        assert_eq!(row(Generation::new(10), rev, &sealed).unwrap(), Some(rev));
        assert!(row(rev, Generation::new(10), &sealed).is_err());
        let grant = seal_secrets(&ring(), &unit, rev, &GrantSecrets::default()).unwrap();
        assert!(row(rev, rev, &grant).is_err());
    }

    #[test]
    fn waits_are_what_is_left_and_believable() {
        let unit = UnitName::from("crm/abc");
        let row = |retry_us| GrantRow {
            fail: Some("PROVIDER_UNAVAILABLE".into()),
            failures: 2,
            retry_us,
            ..GrantRow::default()
        };
        let wait = |retry_us, now| row(retry_us).open(&ring(), &unit, now).unwrap().failure.unwrap().wait;
        assert_eq!(wait(5_000_000, 2_000_000), Duration::from_secs(3));
        assert_eq!(wait(1, 2), Duration::ZERO);
        assert_eq!(wait(3_600_000_000, 0), MAX_WAIT);
        assert_eq!(wait(3_600_000_001, 0), Duration::ZERO);
        assert_eq!(wait(u64::MAX, 0), Duration::ZERO);
    }
}
