//! The services as they are at the moment a call comes in. Policy, credentials and callers' own tokens change together,
//! between two calls and never during one: no call is permitted by the rules of yesterday and served with the credentials
//! of today.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use super::{Api, Session};
use crate::{
    broker::Credential,
    identity::{Remote, StaticToken},
    name::CredentialName,
    policy::Policy,
};

/// The services with what is in force.
#[derive(Clone)]
pub struct Live {
    now: Arc<ArcSwap<Api>>,
}

impl Live {
    /// Begins with this.
    pub fn new(api: Api) -> Self {
        Self { now: Arc::new(ArcSwap::from_pointee(api)) }
    }

    /// Puts other credentials, another policy and other tokens of callers in force, for calls that come in from now on.
    pub fn change(&self, credentials: BTreeMap<CredentialName, Credential>, policy: Policy, tokens: Vec<StaticToken>) {
        let old = self.now();
        let (broker, identity) = (old.broker.with_credentials(credentials), old.identity.with_tokens(tokens));
        self.now.store(Arc::new(Api { broker, identity, policy: Arc::new(policy), ..Api::clone(&old) }));
    }

    /// The services as a connection from there reaches them.
    pub fn session(&self, remote: Remote) -> Session {
        Session::new(self.clone(), remote)
    }

    pub(super) fn now(&self) -> Arc<Api> {
        self.now.load_full()
    }
}
