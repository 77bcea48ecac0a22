//! `GrantAdmin`: one method per rpc.

use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{Api, convert, reseal, status::Refusal};
use crate::{
    broker::{Description, Error, Imported},
    policy::{Action, Permit},
    proto::{
        DescribeGrantRequest, DescribeGrantResponse, GrantState, ImportGrantRequest, ImportGrantResponse,
        ResealRecordsRequest, ResealRecordsResponse, import_grant_request::Secret,
    },
    store::{self, Material},
};

impl Api {
    pub(super) async fn import_grant(
        &self,
        request: Request<ImportGrantRequest>,
    ) -> Result<Response<ImportGrantResponse>, Status> {
        self.answer("ImportGrant", request, async |by, request| {
            let ImportGrantRequest { credential, subject, secret, scopes } = request;
            let asked = convert::asked(Action::Administer, (&credential, &subject), (scopes, Vec::new()))?;
            let permit = self.permit(&by, asked)?;
            let imported = import(&permit, secret)?;
            let generation = self.broker.import_grant(permit, imported).instrument(by.span()).await?;
            by.entry.used(generation.get());
            Ok(ImportGrantResponse { generation: generation.get() })
        })
        .await
    }

    pub(super) async fn describe_grant(
        &self,
        request: Request<DescribeGrantRequest>,
    ) -> Result<Response<DescribeGrantResponse>, Status> {
        self.answer("DescribeGrant", request, async |by, request| {
            let DescribeGrantRequest { credential, subject, scopes, resources } = request;
            let asked = convert::asked(Action::Administer, (&credential, &subject), (scopes, resources))?;
            let permit = self.permit(&by, asked)?;
            Ok(describe(self.broker.describe_grant(permit).instrument(by.span()).await?))
        })
        .await
    }

    pub(super) async fn reseal_records(
        &self,
        request: Request<ResealRecordsRequest>,
    ) -> Result<Response<ResealRecordsResponse>, Status> {
        self.answer("ResealRecords", request, async |by, request| {
            let permit = self.permit_store(&by)?;
            Ok(reseal::page(self.broker.reseal(&permit, reseal::pass(&request)?).instrument(by.span()).await?))
        })
        .await
    }
}

fn import(permit: &Permit, secret: Option<Secret>) -> Result<Imported, Refusal> {
    let material = match secret {
        Some(Secret::RefreshToken(token)) => Material::RefreshToken(token.into()),
        Some(Secret::StaticSecret(secret)) => Material::Static(secret.into()),
        None => {
            let problem = "hand over a refresh_token or a static_secret".to_owned();
            return Err(Error::InvalidRequest { field: "secret", problem }.into());
        }
    };
    Ok(Imported { material, scopes: permit.scopes().clone() })
}

fn describe(description: Description) -> DescribeGrantResponse {
    let state = match description.state {
        None => GrantState::Absent,
        Some(store::GrantState::Active) => GrantState::Active,
        Some(store::GrantState::Dead(_)) => GrantState::Dead,
    };
    DescribeGrantResponse {
        state: state.into(),
        generation: description.generation.get(),
        token_expires_at: description.token_expires_at.map(convert::timestamp),
        scopes: description.scopes.iter().map(str::to_owned).collect(),
        last_error: description.last_error.map(|cause| cause.word().to_owned()).unwrap_or_default(),
        next_attempt_at: description.next_attempt_at.map(convert::timestamp),
        outcome_unknown: description.outcome_unknown,
    }
}
