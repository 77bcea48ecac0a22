//! Asking a provider that may know one of several client secrets, as while an operator replaces one by the next.
//!
//! `invalid_client` with one secret is followed by a request with the next, in the same attempt and under the same intent.
//! This is the only answer after which the same refresh token is sent again at once. It is safe because a provider that
//! did not accept the client did not act on its request (RFC 6749 §3.2.1, §5.2): the refresh token was not used. That is
//! why the intent does not have to be withdrawn and written anew: it says "perhaps sent" all the while, so whatever happens
//! to this process between the two requests, the next holder knows no less than it would after one. Before each further
//! request the store is asked whether the intent still stands and enough of the lease is left; if not, the refusal is what
//! came of the attempt. An answer of any other kind, a missing one above all, ends the attempt at once.

use std::collections::HashMap;

use parking_lot::Mutex;
use tracing::warn;

use super::{
    Core, FOR_ALL, Target,
    attempt::{self, Hold},
};
use crate::{
    clock::{Deadline, Moment},
    grant::{
        answer::{Answer, Refusal, RefusalError},
        request::{self, Asked, BuildError, TokenRequest},
    },
    name::CredentialName,
    provider::{self, SendError},
    secret::SecretString,
    telemetry::CredentialOnly,
};

/// The same request with each proof of the client (its number, the request), in the order in which they are sent.
pub(super) type Requests = Vec<(usize, TokenRequest)>;

/// Which proof a provider accepted last, where that is not the first one. In memory only: after a restart, one refusal
/// tells it again.
#[derive(Default)]
pub(super) struct Accepted {
    proofs: Mutex<HashMap<CredentialName, usize>>,
}

impl Accepted {
    fn of(&self, credential: &CredentialName) -> usize {
        self.proofs.lock().get(credential).copied().unwrap_or_default()
    }

    fn note(&self, credential: &CredentialName, proof: usize) {
        if self.of(credential) != proof {
            self.proofs.lock().insert(credential.clone(), proof);
        }
    }
}

/// Builds the requests, the one with the proof that was accepted last in front.
pub(super) fn requests(
    core: &Core,
    target: &Target,
    refresh_token: Option<&SecretString>,
) -> Result<Requests, BuildError> {
    let (key, credential) = (&target.slot.key, &target.credential);
    let proofs = credential.grant.endpoint().map_or(1, |endpoint| endpoint.client.auth.proofs());
    let first = core.accepted.of(&credential.name);
    let numbers = (0..proofs).map(|step| (first + step) % proofs);
    let build = |proof| {
        let asked = Asked {
            subject: &key.grant.subject,
            scopes: &key.scopes,
            resources: &key.resources,
            default_scopes: if credential.says_scopes { &FOR_ALL.0 } else { &credential.scopes },
            profile: &credential.profile,
            proof,
        };
        let request = request::build(&credential.grant, refresh_token, &asked, core.now().wall())?;
        Ok((proof, request))
    };
    numbers.map(build).collect()
}

/// Sends one request after the other until the client is accepted; the last answer, and when its request was sent. None is
/// sent once `send_by` has passed: others may have taken over and presented the refresh token themselves. Without a hold,
/// the credential has to be one for which asking twice is harmless.
pub(super) async fn ask(
    core: &Core,
    target: &Target,
    hold: Option<&Hold>,
    requests: Requests,
    mut send_by: Deadline,
) -> (Result<Answer, SendError>, Moment) {
    let mut left = requests.len();
    let mut outcome = (Err(SendError::NotSent("it is too late to begin".into())), core.now());
    for (proof, request) in requests {
        let sent = core.now();
        if send_by.has_passed(&sent) {
            warn!(credential = %target.credential.name, "this process stood still for too long; a request is not sent");
            break;
        }
        outcome = (send(core, target, request, &sent).await, sent);
        left -= 1;
        if matches!(outcome.0, Ok(Answer::Granted(_))) {
            core.accepted.note(&target.credential.name, proof);
        }
        // Read before the store is asked: what it says may be of use too late.
        send_by = core.now().after(core.timing.commit_budget);
        if !is_unproven(&outcome.0) || left == 0 || !may_ask_again(core, target, hold).await {
            break;
        }
        warn!(credential = %target.credential.name, proof, "the provider does not accept this client secret; trying the next");
    }
    outcome
}

fn is_unproven(answer: &Result<Answer, SendError>) -> bool {
    matches!(answer, Ok(Answer::Refused(Refusal { error: RefusalError::ClientUnproven, retry_after: None, .. })))
}

/// Sends one request, once, and notes how long it took.
async fn send(core: &Core, target: &Target, request: TokenRequest, sent: &Moment) -> Result<Answer, SendError> {
    let endpoint = request.reading.endpoint.clone();
    let answer = core.provider.ask(request, core.timing.http_timeout).await;
    let credential = target.credential.name.clone();
    let seconds = core.now().since(sent).as_secs_f64();
    core.telemetry.refresh_seconds.get_or_create(&CredentialOnly { credential }).observe(seconds);
    if let Some(report) = provider::report(&answer, &endpoint) {
        warn!(credential = %target.credential.name, "token request failed: {report}");
    }
    answer
}

async fn may_ask_again(core: &Core, target: &Target, hold: Option<&Hold>) -> bool {
    if target.credential.grant.repeating_is_harmless() {
        return true;
    }
    match hold {
        Some(hold) => matches!(attempt::dispatch(core, target, hold).await, Ok(true)),
        None => false,
    }
}
