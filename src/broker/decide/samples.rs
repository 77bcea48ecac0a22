//! A grant and its record, as the tests of the decisions want them.

use crate::{
    grant::{Client, ClientAuth, Endpoint, Grant},
    store::{GrantRecord, GrantSecrets, GrantState, Intent, Material},
    token::Generation,
};

pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        token_url: "https://as.example/token".parse().unwrap(),
        client: Client { id: "c".into(), auth: ClientAuth::None },
        formerly: Vec::new(),
        issuer: None,
        parameters: Vec::new(),
    }
}

pub(in crate::broker) fn rotating() -> Grant {
    Grant::RefreshToken { endpoint: endpoint(), first: None }
}

pub(super) fn record(intent: Option<Intent>) -> GrantRecord {
    GrantRecord {
        revision: Generation::new(1),
        state: GrantState::Active,
        secrets: GrantSecrets {
            material: Material::RefreshToken("rt".into()),
            binding: "here".into(),
            ..GrantSecrets::default()
        },
        intent,
        failure: None,
        report: None,
        strikes: 0,
        quarantine: None,
        revival: None,
    }
}
