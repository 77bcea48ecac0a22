//! Protobuf messages to the broker's values, and back.

use std::{
    ops::Deref,
    time::{Duration, SystemTime},
};

use crate::{
    broker::{Error, Evidence, Served},
    name::{CredentialName, NameError, Resources, Scopes, Subject},
    policy::{self, Action},
    proto,
    secret::ExposeSecret,
    token::Token,
};

/// Evidence beyond this is cut off: rules look at the beginning.
const MAX_EVIDENCE: usize = 64 * 1024;

/// No caller needs to ask for more than this.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a request asks for, for the policy to decide.
pub(super) fn asked(
    action: Action,
    (credential, subject): (&str, &str),
    (scopes, resources): (Vec<String>, Vec<String>),
) -> Result<policy::Request, Error> {
    Ok(policy::Request {
        action,
        credential: self::credential(credential)?,
        subject: self::subject(subject)?,
        scopes: self::scopes(scopes)?,
        resources: self::resources(resources)?,
        call: None,
    })
}

fn credential(text: &str) -> Result<CredentialName, Error> {
    CredentialName::new(text).map_err(|error| invalid("credential", error))
}

fn subject(text: &str) -> Result<Subject, Error> {
    Subject::new(text).map_err(|error| invalid("subject", error))
}

fn scopes(items: Vec<String>) -> Result<Scopes, Error> {
    Scopes::new(items).map_err(|error| invalid("scopes", error))
}

fn resources(items: Vec<String>) -> Result<Resources, Error> {
    Resources::new(items).map_err(|error| invalid("resources", error))
}

/// A span of a request: absent is `None`, a negative one is refused, an absurd one is cut.
pub(super) fn span(field: &'static str, given: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let read = |span: prost_types::Duration| {
        // Not `Duration::try_from`: it overflows on the most negative of spans.
        let (seconds, nanos) = (u64::try_from(span.seconds).ok(), u32::try_from(span.nanos).ok());
        let whole = seconds.zip(nanos.filter(|nanos| *nanos < 1_000_000_000));
        whole
            .map(|(seconds, nanos)| Duration::new(seconds, nanos).min(LONGEST))
            .ok_or_else(|| Error::InvalidRequest { field, problem: "has to be a span of zero or more".to_owned() })
    };
    given.map(read).transpose()
}

pub(super) fn evidence(rejection: proto::Rejection) -> Result<Evidence, Error> {
    let proto::Rejection { http_status, www_authenticate, body } = rejection;
    let status = u16::try_from(http_status).ok().filter(|status| (100..=599).contains(status));
    let status = status.ok_or_else(|| Error::InvalidRequest {
        field: "rejection.http_status",
        problem: "has to be a status code from 100 to 599".to_owned(),
    })?;
    let body = body.get(..body.len().min(MAX_EVIDENCE)).unwrap_or_default().to_vec();
    Ok(Evidence { status, www_authenticate, body })
}

pub(super) fn token<T: Deref<Target = Token>>(served: &Served<T>) -> proto::Token {
    let token = &*served.token;
    let (secret, (header, scheme)) = (token.value.expose_secret(), token.header());
    proto::Token {
        access_token: secret.to_owned(),
        token_type: token.kind.word().to_owned(),
        expires_at: served.expires_at.map(timestamp),
        generation: token.generation.get(),
        scopes: token.scopes.iter().map(str::to_owned).collect(),
        headers: vec![proto::Header { name: header.to_owned(), value: [scheme, secret].concat() }],
        degraded: served.degraded,
    }
}

pub(super) fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

fn invalid(field: &'static str, error: NameError) -> Error {
    Error::InvalidRequest { field, problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_bounded() {
        let proto = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(span("f", None).unwrap(), None);
        assert_eq!(span("f", proto(5, 0)).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(span("f", proto(i64::MAX, 0)).unwrap(), Some(LONGEST));
        for bad in [proto(-1, 0), proto(0, -1), proto(i64::MIN, i32::MIN)] {
            assert!(span("f", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn evidence_has_a_status_and_a_bounded_body() {
        let rejection = |http_status, size| proto::Rejection {
            http_status,
            www_authenticate: Vec::new(),
            body: vec![b'x'; size].into(),
        };
        assert_eq!(evidence(rejection(401, 100_000)).unwrap().body.len(), MAX_EVIDENCE);
        for bad in [0, 99, 600, 65_937] {
            assert!(evidence(rejection(bad, 0)).is_err(), "{bad}");
        }
    }
}
