//! Taking over a configured first secret: the refresh token or static secret that an operator put into a file.
//!
//! Each is taken over once. A refresh token in a file is outdated as soon as it was used, and replicas with yesterday's
//! file may run beside those with today's; what was taken over before is remembered by its fingerprint.

use super::{Core, Error, Target};
use crate::{
    grant::Grant,
    secret::SecretString,
    store::{AttemptId, GrantRecord, GrantSecrets, Import, Loaded, Material, Written, names::Fingerprint},
};

/// How many fingerprints are remembered; older ones go.
const REMEMBERED: usize = 16;

/// Takes over the configured secret, if there is one that is new, and returns what the store holds then.
pub(super) async fn take_over(core: &Core, target: &Target, mut loaded: Loaded) -> Result<Loaded, Error> {
    let Some(first) = target.credential.first_secret(&target.slot.key) else { return Ok(loaded) };
    let seed = core.store.names().fingerprint(first);
    while !knows(loaded.record.as_ref(), &seed) {
        let secrets = GrantSecrets {
            material: material(&target.credential.grant, first.clone()),
            scopes: target.credential.scopes.clone(),
            binding: target.credential.binding(),
            seeds: remember(loaded.record.as_ref(), seed.clone()),
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
                tracing::info!(credential = %target.credential.name, "the configured secret was taken over");
            }
            // Another replica was faster, most likely with the same secret: look again.
            Written::Moved => {}
        }
        loaded = core.load(target).await?.loaded;
    }
    Ok(loaded)
}

fn knows(record: Option<&GrantRecord>, seed: &Fingerprint) -> bool {
    record.is_some_and(|record| record.secrets.seeds.contains(seed))
}

/// The fingerprints that are known once this one is taken over, newest last.
pub(super) fn remember(record: Option<&GrantRecord>, seed: Fingerprint) -> Vec<Fingerprint> {
    let known = record.map(|record| record.secrets.seeds.as_slice()).unwrap_or_default();
    let mut seeds: Vec<Fingerprint> = known.iter().filter(|known| **known != seed).cloned().collect();
    seeds.push(seed);
    seeds.drain(..seeds.len().saturating_sub(REMEMBERED));
    seeds
}

/// What a grant of this kind keeps.
pub(super) fn material(grant: &Grant, secret: SecretString) -> Material {
    match grant {
        Grant::RefreshToken { .. } => Material::RefreshToken(secret),
        Grant::Static { .. } => Material::Static(secret),
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => Material::Nothing,
    }
}
