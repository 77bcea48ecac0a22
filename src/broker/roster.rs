//! The credentials of one state of the configuration.

use std::{collections::BTreeMap, sync::Arc};

use super::Credential;
use crate::{
    cache::{Edition, Slot},
    grant::Grant,
    name::CredentialName,
    secret::{self, ExposeSecret, SecretString},
};

/// All credentials, each with its edition.
pub(super) struct Roster {
    members: BTreeMap<CredentialName, (Arc<Credential>, Edition)>,
    /// What a credential gets that is new or whose tokens are others; never given twice, so that a name which is taken
    /// away and comes back is not mistaken for what it was before.
    next: Edition,
}

impl Roster {
    /// The first one of a process.
    pub(super) fn new(credentials: BTreeMap<CredentialName, Credential>) -> Self {
        Self { members: BTreeMap::new(), next: Edition(0) }.renewed(credentials)
    }

    /// The one that comes after this one.
    pub(super) fn renewed(&self, credentials: BTreeMap<CredentialName, Credential>) -> Self {
        let edition = |new: &Credential| match self.members.get(&new.name) {
            Some((old, edition)) if gets_the_same_tokens(old, new) => *edition,
            Some(_) | None => self.next,
        };
        let members = credentials.into_iter().map(|(name, new)| {
            let edition = edition(&new);
            (name, (Arc::new(new), edition))
        });
        Self { members: members.collect(), next: Edition(self.next.0 + 1) }
    }

    /// A credential by its name.
    pub(super) fn get(&self, name: &CredentialName) -> Option<(&Arc<Credential>, Edition)> {
        self.members.get(name).map(|(credential, edition)| (credential, *edition))
    }

    /// All credentials.
    pub(super) fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.members.values().map(|(credential, _)| credential)
    }

    /// Whether a slot's token may still be served.
    pub(super) fn is_current(&self, slot: &Slot) -> bool {
        self.get(&slot.key.grant.credential).is_some_and(|(_, edition)| edition == slot.edition)
    }
}

/// Whether what the one got may be served for the other. A new client secret or a new first refresh token changes
/// nothing in that; another identity or fixed secret does.
fn gets_the_same_tokens(old: &Credential, new: &Credential) -> bool {
    let same_secret = match (&old.grant, &new.grant) {
        (Grant::Static { form: _, first }, Grant::Static { form: _, first: new }) => same(first.as_ref(), new.as_ref()),
        (
            Grant::ClientCredentials(_) | Grant::RefreshToken { .. } | Grant::JwtBearer { .. } | Grant::Static { .. },
            _,
        ) => true,
    };
    same_secret && old.grant.identity() == new.grant.identity()
}

fn same(old: Option<&SecretString>, new: Option<&SecretString>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => secret::same(old.expose_secret(), new.expose_secret()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
