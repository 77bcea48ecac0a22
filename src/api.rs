//! The services of `proto/bearerd/v1`: decode, identity, policy, broker, encode. Decides nothing; with the command line,
//! which is its client, the only room that knows protobuf.

use std::sync::Arc;

use tonic::Status;
use tracing::{debug, warn};

use self::status::Refusal;
use crate::{
    audit::Audit,
    broker::{Broker, Error, Reason},
    identity::Identity,
    limit::{Damper, Excess, Limits, SHORT_WAIT},
    policy::{Denied, Policy},
    telemetry::{Counter, RequestLabels, Telemetry},
    trace::TraceId,
};

mod answer;
mod convert;
mod deadline;
mod grants;
mod live;
mod reseal;
mod retry;
mod session;
mod status;
mod token;

pub use self::{live::Live, session::Session};

/// What nearly all requests are, and what comes of them; their counter is not looked up by its labels for each.
const USUAL: (&str, &str) = ("GetToken", "OK");

/// What both services work with.
#[derive(Clone)]
pub struct Api {
    broker: Broker,
    identity: Identity,
    policy: Arc<Policy>,
    limits: Arc<Limits>,
    audit: Audit,
    telemetry: Arc<Telemetry>,
    /// How often it went as nearly always.
    usual: Counter,
    /// Of proofs that do not hold: nobody is known whose requests could be counted.
    unproven: Arc<Damper>,
    /// Of denials, which cost their sender nothing either; each has its record in the audit log.
    denied: Arc<Damper>,
    /// Of requests that can be carried out for nobody. Some are refused before anybody knows or counts who sends them.
    malformed: Arc<Damper>,
}

impl Api {
    /// The services on a broker, for callers that `identity` tells apart, under a policy and limits, with a record of each
    /// use.
    pub fn new(
        broker: Broker,
        identity: Identity,
        policy: Policy,
        limits: Limits,
        audit: Audit,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let (policy, limits) = (Arc::new(policy), Arc::new(limits));
        let (unproven, denied, malformed) = (Arc::default(), Arc::default(), Arc::default());
        let (rpc, result) = USUAL;
        let usual = telemetry.requests.get_or_create_owned(&RequestLabels { rpc, result });
        Self { broker, identity, policy, limits, audit, telemetry, usual, unproven, denied, malformed }
    }

    fn count(&self, rpc: &'static str, result: &'static str) {
        if (rpc, result) == USUAL {
            self.usual.inc();
        } else {
            self.telemetry.requests.get_or_create(&RequestLabels { rpc, result }).inc();
        }
    }

    /// Writes a refusal into the log. A line for each one that costs its sender nothing would make the load worse; all of
    /// them are counted. A denial was told where its grant was known.
    fn tell(&self, refusal: &Refusal) {
        let reason = status::word(refusal.reason());
        match refusal {
            Refusal::Overloaded(_) | Refusal::Unaudited => debug!(reason, "request refused: {refusal}"),
            Refusal::Unproven(_) => damped(&self.unproven, reason, refusal),
            Refusal::Denied(_) => {}
            Refusal::Failed(Error::ScopesNotCovered(_)) => damped(&self.denied, reason, refusal),
            Refusal::Failed(Error::InvalidRequest { .. } | Error::Target(_)) => {
                damped(&self.malformed, reason, refusal);
            }
            Refusal::Failed(error) => warn!(reason, "request failed{}", because(&error.to_string(), reason)),
        }
    }

    /// Writes a denial into the log.
    fn tell_denied(&self, denied: &Denied) {
        damped(&self.denied, status::word(Reason::CallerNotAllowed), &Refusal::Denied(denied.clone()));
    }
}

/// A cause, where it says more than the reason.
fn because(cause: &str, reason: &str) -> String {
    if cause == reason { String::new() } else { format!(": {cause}") }
}

/// The answer to a request for which there is no room, before anybody looked at it.
pub fn overloaded() -> Status {
    status::of(&Refusal::Overloaded(Excess(SHORT_WAIT)), TraceId::random())
}

/// The answer to a message that is larger than `max_message_bytes`, before anybody looked at it.
pub fn too_large(max_message_bytes: usize) -> Status {
    let problem = format!("larger than server.max_message_bytes ({max_message_bytes} bytes)");
    status::of(&Error::InvalidRequest { field: "message", problem }.into(), TraceId::random())
}

/// Writes a refusal of which there can be very many into the log, if its turn has come.
fn damped(damper: &Damper, reason: &str, refusal: &Refusal) {
    match damper.line() {
        Some(0) => warn!(reason, "request refused: {refusal}"),
        Some(left_out) => warn!(reason, left_out, "request refused: {refusal}"),
        None => debug!(reason, "request refused: {refusal}"),
    }
}
