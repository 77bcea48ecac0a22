//! `GrantAdmin`: one function per rpc.

use super::{
    answer::{Use, Work, Worked},
    convert, reseal,
    status::Refusal,
};
use crate::{
    broker::{Description, Error, Home, Imported},
    policy::{Action, Permit},
    proto::{
        DescribeGrantRequest, DescribeGrantResponse, GrantState, ImportGrantRequest, ImportGrantResponse,
        ResealRecordsRequest, ResealRecordsResponse, import_grant_request::Secret,
    },
    store::{self, Material},
};

pub(super) fn import(by: Use, request: ImportGrantRequest) -> Worked<ImportGrantResponse> {
    let ImportGrantRequest { credential, subject, secret, scopes, no_verify } = request;
    let asked = convert::asked(Action::Administer, (&credential, &subject), (scopes, Vec::new()))?;
    let permit = by.permit(asked)?;
    let imported = imported(&permit, secret, !no_verify)?;
    Work::going(by.span(&permit), async move {
        let generation = by.api.broker.import_grant(permit, imported).await?;
        by.entry.used(generation.get());
        Ok(ImportGrantResponse { generation: generation.get() })
    })
}

pub(super) fn describe(by: Use, request: DescribeGrantRequest) -> Worked<DescribeGrantResponse> {
    let DescribeGrantRequest { credential, subject, scopes, resources } = request;
    let asked = convert::asked(Action::Administer, (&credential, &subject), (scopes, resources))?;
    let permit = by.permit(asked)?;
    Work::going(by.span(&permit), async move { Ok(described(by.api.broker.describe_grant(permit).await?)) })
}

pub(super) fn reseal(by: Use, request: ResealRecordsRequest) -> Worked<ResealRecordsResponse> {
    let permit = by.permit_store()?;
    let pass = reseal::pass(&request)?;
    Work::going(by.span_without_grant(), async move { Ok(reseal::page(by.api.broker.reseal(&permit, pass).await?)) })
}

fn imported(permit: &Permit, secret: Option<Secret>, verify: bool) -> Result<Imported, Refusal> {
    let material = match secret {
        Some(Secret::RefreshToken(token)) => Material::RefreshToken(token.into()),
        Some(Secret::StaticSecret(secret)) => Material::Static(secret.into()),
        None => {
            let problem = "hand over a refresh_token or a static_secret".to_owned();
            return Err(Error::InvalidRequest { field: "secret", problem }.into());
        }
    };
    Ok(Imported { material, scopes: permit.scopes().clone(), verify })
}

fn described(description: Description) -> DescribeGrantResponse {
    let state = match description.state {
        None if description.import_pending => GrantState::NotTried,
        None => GrantState::Absent,
        Some(store::GrantState::Active) if description.not_tried => GrantState::NotTried,
        Some(store::GrantState::Active) => GrantState::Active,
        Some(store::GrantState::Dead(_)) => GrantState::Dead,
    };
    let nowhere = || Home { token_url: String::new(), client_id: String::new() };
    let elsewhere = description.elsewhere.unwrap_or_else(nowhere);
    let report = description.provider_report.unwrap_or_default();
    DescribeGrantResponse {
        state: state.into(),
        generation: description.generation.get(),
        token_expires_at: description.token_expires_at.map(convert::timestamp),
        scopes: description.scopes.iter().map(str::to_owned).collect(),
        last_error: description.last_error.map(|cause| cause.word().to_owned()).unwrap_or_default(),
        next_attempt_at: description.next_attempt_at.map(convert::timestamp),
        outcome_unknown: description.outcome_unknown,
        import_pending: description.import_pending,
        stored_token_url: elsewhere.token_url,
        stored_client_id: elsewhere.client_id,
        provider_advice: if report.is_empty() { String::new() } else { report.to_string() },
        provider_status: report.status.unwrap_or_default().into(),
        provider_error: report.error.unwrap_or_default(),
        provider_error_description: report.description.unwrap_or_default(),
        provider_endpoint: report.endpoint,
    }
}
