//! Taking over a configured first secret: the refresh token or static secret that an operator put into a file.
//!
//! Each is taken over once. A refresh token in a file is outdated as soon as it was used, and replicas with yesterday's
//! file may run beside those with today's; what was taken over before is remembered by its fingerprint. And a refresh token
//! counts only while the store has no living grant: a variable that was set to a wrong value must not replace a good one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::{Core, Credential, Error, Target, candidate, quarantine, roster::Roster};
use crate::{
    grant::Grant,
    name::{CredentialName, Resources, Scopes, Subject},
    secret::SecretString,
    store::{AttemptId, GrantRecord, GrantSecrets, GrantState, Import, Loaded, Material, Written, names::Fingerprint},
    token::{GrantKey, TokenKey},
};

/// How many fingerprints are remembered; older ones go.
const REMEMBERED: usize = 16;

/// The configured refresh tokens that the operator was told are ignored, the last one of each credential.
#[derive(Default)]
pub(super) struct Ignored {
    told: Mutex<HashMap<CredentialName, Fingerprint>>,
}

impl Ignored {
    /// Whether this one was not told yet.
    fn is_news(&self, credential: &CredentialName, seed: &Fingerprint) -> bool {
        self.told.lock().insert(credential.clone(), seed.clone()).is_none_or(|told| told != *seed)
    }
}

/// What a configured secret means for a grant.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It becomes the grant's secret.
    TakeOver,
    /// It was taken over or replaced before.
    Known,
    /// The grant lives without it.
    Ignored,
}

/// Takes over the configured secret, if there is one that counts, and returns what the store holds then.
pub(super) async fn take_over(core: &Core, target: &Target, mut loaded: Loaded) -> Result<Loaded, Error> {
    let Some(first) = target.credential.first_secret(&target.slot.key) else { return Ok(loaded) };
    let seed = core.store.names().fingerprint(first);
    loop {
        match standing(&target.credential, loaded.record.as_ref(), &seed) {
            Standing::TakeOver => {}
            Standing::Known => return Ok(loaded),
            Standing::Ignored => {
                core.tell_ignored(&target.credential, &seed);
                return Ok(loaded);
            }
        }
        let secrets = GrantSecrets {
            material: material(&target.credential.grant, first.clone()),
            scopes: target.credential.scopes.clone(),
            scopes_known: false,
            subject: Some(target.slot.key.grant.subject.clone()),
            binding: target.credential.bindings().own().to_owned(),
            issuer: target.credential.bindings().issuer().map(str::to_owned),
            seeds: remember(loaded.record.as_ref(), seed.clone()),
            presented: candidate::presented_so_far(core.store.names(), loaded.record.as_ref()),
            untried: matches!(target.credential.grant, Grant::RefreshToken { .. }),
        };
        let import = Import {
            unit: &target.slot.place.unit,
            attempt: &AttemptId::random(),
            expected: loaded.revision(),
            next: loaded.next,
            secrets: &secrets,
        };
        match core.store.import(&import).await? {
            Written::Done => {
                core.lately.imported(&import);
                tell_taken_over(target, loaded.record.as_ref());
            }
            // Another replica was faster, most likely with the same secret: look again.
            Written::Moved => {}
        }
        loaded = core.load(target).await?.loaded;
    }
}

fn tell_taken_over(target: &Target, before: Option<&GrantRecord>) {
    let credential = &target.credential.name;
    match before.map(|record| record.state) {
        Some(GrantState::Dead(cause)) => {
            warn!(%credential, cause = cause.word(), "the configured secret replaced a dead grant");
        }
        Some(GrantState::Active) | None => info!(%credential, "the configured secret was taken over"),
    }
}

fn standing(credential: &Credential, record: Option<&GrantRecord>, seed: &Fingerprint) -> Standing {
    let Some(record) = record else { return Standing::TakeOver };
    if record.secrets.seeds.contains(seed) {
        return Standing::Known;
    }
    match &credential.grant {
        Grant::RefreshToken { .. } if is_living(record) => Standing::Ignored,
        // A late answer is tried before anything else: it may be the living refresh token of this very grant.
        Grant::RefreshToken { .. } if quarantine::remedy(record, &credential.bindings()).is_some() => Standing::Known,
        // A static secret is rotated by changing it in the configuration.
        Grant::RefreshToken { .. } | Grant::Static { .. } | Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => {
            Standing::TakeOver
        }
    }
}

/// Whether a record holds a refresh token that no provider refused, whichever token endpoint it belongs to.
pub(super) fn is_living(record: &GrantRecord) -> bool {
    let has_token = match &record.secrets.material {
        Material::RefreshToken(_) => true,
        Material::Nothing | Material::Static(_) => false,
    };
    has_token && record.state == GrantState::Active
}

impl Core {
    /// One warning for each configured refresh token that is ignored.
    fn tell_ignored(&self, credential: &Credential, seed: &Fingerprint) {
        let name = &credential.name;
        if self.ignored.is_news(name, seed) {
            warn!(
                credential = %name,
                "the configured refresh_token is ignored: the store has a living grant; to replace it on purpose, run \
                 `bearerd grant import {name}`",
            );
        }
    }
}

/// Looks, in the background, for configured refresh tokens that are ignored and for grants that belong elsewhere, so that an
/// operator hears of it when the configuration was read and not when the next token is due.
pub(super) fn look_at_stored_grants(core: &Arc<Core>, roster: &Arc<Roster>) {
    let (core, roster) = (Arc::clone(core), Arc::clone(roster));
    tokio::spawn(async move {
        for credential in roster.credentials() {
            let Grant::RefreshToken { endpoint: _, first } = &credential.grant else { continue };
            let grant = GrantKey { credential: credential.name.clone(), subject: Subject::default() };
            let key = TokenKey { grant, scopes: Scopes::default(), resources: Resources::default() };
            let Ok(target) = core.target_aside(&roster, &key) else { continue };
            // A store that is away is told of elsewhere, and this is looked at again when a token is needed.
            let Ok(known) = core.read(&target).await else { continue };
            let record = known.loaded.record.as_ref();
            core.tell_elsewhere(credential, record);
            let seed = first.as_ref().map(|first| core.store.names().fingerprint(first));
            if let Some(seed) = seed.filter(|seed| standing(credential, record, seed) == Standing::Ignored) {
                core.tell_ignored(credential, &seed);
            }
        }
    });
}

/// The fingerprints that are known once this one is taken over, newest last.
pub(super) fn remember(record: Option<&GrantRecord>, seed: Fingerprint) -> Vec<Fingerprint> {
    let known = record.map(|record| record.secrets.seeds.as_slice()).unwrap_or_default();
    with_newest(known, seed, REMEMBERED)
}

/// A list with this fingerprint as its newest; of more than `most`, the oldest go.
pub(super) fn with_newest(known: &[Fingerprint], newest: Fingerprint, most: usize) -> Vec<Fingerprint> {
    let mut list: Vec<Fingerprint> = known.iter().filter(|known| **known != newest).cloned().collect();
    list.push(newest);
    list.drain(..list.len().saturating_sub(most));
    list
}

/// What a grant of this kind keeps.
pub(super) fn material(grant: &Grant, secret: SecretString) -> Material {
    match grant {
        Grant::RefreshToken { .. } => Material::RefreshToken(secret),
        Grant::Static { .. } => Material::Static(secret),
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => Material::Nothing,
    }
}
