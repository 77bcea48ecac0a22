//! `CallThrough`: bearerd makes the call; when the upstream rejects the token, it is replaced and the call is sent once
//! more. The caller never sees the token.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{
    Broker, Core, Credential, Error, Target,
    report::{About, Replaced},
};
use crate::{
    grant::{Grant, StaticForm},
    limit::Bodies,
    policy::{Called, GrantedLimit, Permit},
    rejection::{Evidence, Verdict},
    telemetry::CredentialLabels,
    token::{Token, Wanted},
    upstream::{Prepared, Resend, TargetError, UpstreamAnswer, headers, target},
};

/// What a call has beside its method and path, which the permit names.
#[derive(Clone, Debug)]
pub struct Call {
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The limit for the whole call, where it is shorter than the credential's.
    pub timeout: Option<Duration>,
    /// Whether it may be sent twice.
    pub replay: Replay,
    /// Where its bodies are counted; the one that it has is already.
    pub bodies: Arc<Bodies>,
}

/// How long a fresh token that was rejected is given before the call is sent once more with it.
const PROPAGATION: Duration = Duration::from_millis(500);

/// How long the body of a token rejection is waited for. The status and the challenge say all that bearerd needs.
const BODY_OF_REJECTION: Duration = Duration::from_secs(2);

/// Whether a call may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Once more after a token rejection, where the upstream refused the request before acting on it (RFC 9110 §9.2.2 allows
    /// a repetition where it is known that the first was not applied), or where repeating it does no harm.
    AfterRejection,
    /// Only where the upstream says that it did not process the request (RFC 9113 §8.7).
    Never,
}

/// The upstream's answer, or its status and fields if the body cannot be had.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer that came last.
    pub answer: UpstreamAnswer,
    /// The token that was used last.
    pub token: Arc<Token>,
    /// How often the request was sent.
    pub attempts: u32,
    /// Whether the token was replaced because the upstream rejected it.
    pub refreshed: bool,
}

impl Broker {
    /// Makes a call.
    ///
    /// # Errors
    ///
    /// [`Error`], when no call was made or no whole answer came. An answer of any status is no error.
    pub async fn call_through(&self, permit: Permit, call: Call) -> Result<Answered, Error> {
        let (timeout, replay) = (call.timeout, call.replay);
        let (called, limits_calls) = (permit.call().cloned().unwrap_or_default(), permit.limits_calls());
        let target = self.target(&permit)?;
        let prepared = prepare(&target.credential, &called, limits_calls, call)?;
        let longest = target.credential.call_timeout;
        let deadline = Instant::now() + timeout.map_or(longest, |wanted| wanted.min(longest));
        self.core.call(&target, permit.granted(), &prepared, replay, deadline).await
    }
}

fn prepare(credential: &Credential, called: &Called, limits_calls: bool, call: Call) -> Result<Prepared, TargetError> {
    let (base, fence) = (credential.base_url.as_ref().ok_or(TargetError::NoBaseUrl)?, &credential.fence);
    fence.body(call.body.len())?;
    Ok(Prepared {
        method: fence.method(&called.method)?,
        url: target::url(base, &called.path)?,
        headers: headers::from_caller(&call.headers, credential_field(&credential.grant), fence, limits_calls)
            .map_err(TargetError::Header)?,
        body: call.body,
        max_response_bytes: credential.max_response_bytes,
        bodies: call.bodies,
    })
}

/// A status below 400 says that the request was acted upon. A rule that calls it a rejection all the same looks at the body, which
/// others may have written, so only what is idempotent (RFC 9110 §9.2.2) or says that it can be repeated is sent again.
fn may_be_repeated(prepared: &Prepared, status: u16) -> bool {
    status >= 400 || prepared.method.is_idempotent() || prepared.headers.contains_key("idempotency-key")
}

fn credential_field(grant: &Grant) -> &str {
    match grant {
        Grant::Static { form: StaticForm::ApiKey { header }, first: _ } => header.as_str(),
        Grant::Static { form: StaticForm::Basic { .. } | StaticForm::Bearer, first: _ }
        | Grant::ClientCredentials(_)
        | Grant::RefreshToken { .. }
        | Grant::JwtBearer { .. } => "authorization",
    }
}

impl Core {
    async fn call(
        self: &Arc<Self>,
        target: &Target,
        granted: &GrantedLimit,
        prepared: &Prepared,
        replay: Replay,
        deadline: Instant,
    ) -> Result<Answered, Error> {
        let token = self.token(target, Wanted::default(), deadline).await?;
        Error::unless_covered(granted, &token.scopes)?;
        let (first, rejected) = self.send(target, prepared, token, replay, deadline).await?;
        if !rejected {
            return self.finished(target, first);
        }
        // Whether or not this caller wants its call repeated, the next one shall find a better token.
        let rejected = About::Generation(first.token.generation);
        let (newer, refreshed) = match self.report(target, rejected, deadline).await {
            Ok(Replaced::With(_, newer)) => (newer, true),
            // The provider has no other token, so the upstream would say the same again.
            Ok(Replaced::Unchanged(_)) => return self.finished(target, first),
            // Some providers need a moment until a new token is known everywhere.
            Ok(Replaced::HeldBack(_)) => {
                sleep_until((Instant::now() + PROPAGATION).min(deadline)).await;
                (Arc::clone(&first.token), false)
            }
            // No other token can be had, and the upstream's own answer says the most about why.
            Err(error) => {
                tracing::warn!(credential = %target.credential.name, %error, "a rejected token was not replaced");
                return self.finished(target, first);
            }
        };
        match replay {
            Replay::AfterRejection if may_be_repeated(prepared, first.answer.status) => {
                Error::unless_covered(granted, &newer.scopes)?;
                let (second, _) = self.send(target, prepared, newer, replay, deadline).await?;
                let attempts = first.attempts + second.attempts;
                self.finished(target, Answered { attempts, refreshed, ..second })
            }
            Replay::Never | Replay::AfterRejection => self.finished(target, Answered { refreshed, ..first }),
        }
    }

    /// Sends the request with this token. Says, too, whether the upstream rejected the token.
    async fn send(
        &self,
        target: &Target,
        prepared: &Prepared,
        token: Arc<Token>,
        replay: Replay,
        deadline: Instant,
    ) -> Result<(Answered, bool), Error> {
        let resend = match replay {
            Replay::AfterRejection if prepared.method.is_idempotent() => Resend::Idempotent,
            Replay::AfterRejection | Replay::Never => Resend::Unprocessed,
        };
        let arrived = self.upstream.send(&target.credential.fence, prepared, &token, resend, deadline).await?;
        // Before the body: whatever is wrong with it, the next call needs a better token.
        let by_head = self.rejects(target, arrived.status(), arrived.challenges(), b"");
        let longest = if by_head { deadline.min(Instant::now() + BODY_OF_REJECTION) } else { deadline };
        let answer = arrived.read(longest).await;
        let rejected = by_head || self.rejects(target, answer.status, &answer.challenges, &answer.body);
        let attempts = answer.attempts;
        Ok((Answered { answer, token, attempts, refreshed: false }, rejected))
    }

    fn rejects(&self, target: &Target, status: u16, challenges: &[String], body: &[u8]) -> bool {
        let www_authenticate = challenges.iter().map(String::as_str).collect();
        let evidence = Evidence { status, www_authenticate, body };
        match target.credential.rejected_when.judge(&evidence) {
            Verdict::TokenRejected => true,
            Verdict::NotTokenRejected(_) => false,
        }
    }

    fn finished(&self, target: &Target, answered: Answered) -> Result<Answered, Error> {
        let mut answered = self.counted(target, answered);
        match answered.answer.problem.take() {
            None => Ok(answered),
            Some(problem) => {
                answered.answer.body = Bytes::new();
                Err(Error::NoBody { problem, answered: Box::new(answered) })
            }
        }
    }

    fn counted(&self, target: &Target, answered: Answered) -> Answered {
        let result = match answered.answer.status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let credential = target.credential.name.clone();
        self.telemetry.calls.get_or_create(&CredentialLabels { credential, result }).inc();
        answered
    }
}
