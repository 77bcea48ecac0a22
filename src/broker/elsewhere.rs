//! Stored grants that belong to another token endpoint or client than the configured ones. Their refresh tokens are not sent
//! (RFC 6749 §10.4), and the operator is told why.

use std::collections::HashSet;

use parking_lot::Mutex;
use tracing::warn;

use super::{Core, Credential};
use crate::{
    grant::Grant,
    name::CredentialName,
    store::{GrantRecord, Material},
};

/// How many pairs of credential and stored binding are remembered; after that all are forgotten.
const MOST: usize = 1_024;

/// What the operator was told of: credential, configured and stored binding.
#[derive(Default)]
pub(super) struct Told(Mutex<HashSet<(CredentialName, String, String)>>);

/// The token endpoint and client that a stored grant belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The endpoint's URL.
    pub token_url: String,
    /// The client identifier.
    pub client_id: String,
}

/// Where a stored grant belongs, if the credential is configured for another place.
pub(super) fn home(credential: &Credential, record: Option<&GrantRecord>) -> Option<Home> {
    let secrets = &record?.secrets;
    let is_refreshed = matches!(credential.grant, Grant::RefreshToken { .. });
    if !is_refreshed
        || !matches!(secrets.material, Material::RefreshToken(_))
        || secrets.belong_to(&credential.bindings())
    {
        return None;
    }
    // A serialized URL has no space in it.
    let (token_url, client_id) = secrets.binding.split_once(' ')?;
    Some(Home { token_url: token_url.to_owned(), client_id: client_id.to_owned() })
}

impl Core {
    /// One warning for each change of the configuration that leaves stored grants behind.
    pub(super) fn tell_elsewhere(&self, credential: &Credential, record: Option<&GrantRecord>) {
        let Some(Home { token_url, client_id }) = home(credential, record) else { return };
        let name = &credential.name;
        let stored = record.map(|record| record.secrets.binding.clone()).unwrap_or_default();
        let mut told = self.elsewhere.0.lock();
        if told.len() >= MOST {
            told.clear();
        }
        if told.insert((name.clone(), credential.bindings().own().to_owned(), stored)) {
            warn!(
                credential = %name,
                token_url,
                client_id,
                "the stored grant belongs to another token_url or client_id than the configured one; its refresh token is not \
                 sent. If it is the same provider, name the former token_url in `formerly`; else run `bearerd grant import \
                 {name}`",
            );
        }
    }
}
