//! The services of `proto/bearerd/v1`: decode, identity, policy, broker, encode. Decides nothing; with the command line,
//! which is its client, the only room that knows protobuf.

use std::{future::Future, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION};
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Span, debug, info_span, warn};

use self::{deadline::Deadline, status::Refusal};
use crate::{
    audit::{Audit, Entry},
    broker::Broker,
    caller::Caller,
    identity::{Identity, Remote},
    limit::{Damper, Excess, Limits, SHORT_WAIT},
    policy::{self, Denied, Permit, Policy, StorePermit},
    secret::SecretString,
    telemetry::{Counter, RequestLabels, Telemetry},
    trace::TraceId,
};

mod convert;
mod deadline;
mod grants;
mod live;
mod reseal;
mod status;
mod token;

pub use self::live::Live;

/// One use of bearerd: who calls, and what will be written down about it.
struct Use {
    rpc: &'static str,
    trace: TraceId,
    caller: Caller,
    entry: Entry,
}

impl Use {
    /// What the log says beside each line about it. It is made only for work that has something to say.
    fn span(&self) -> Span {
        info_span!("request", rpc = self.rpc, caller = self.caller.name(), trace = %self.trace)
    }
}

/// What nearly all requests are, and what comes of them; their counter is not looked up by its labels for each.
const USUAL: (&str, &str) = ("GetToken", "OK");

/// Serves both services.
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
        let (unproven, denied) = (Arc::default(), Arc::default());
        let (rpc, result) = USUAL;
        let usual = telemetry.requests.get_or_create_owned(&RequestLabels { rpc, result });
        Self { broker, identity, policy, limits, audit, telemetry, usual, unproven, denied }
    }

    /// What every rpc has in common: whether it is taken on, who calls, under which trace, and how the end is recorded,
    /// counted and told.
    async fn answer<Q, A, F>(
        &self,
        rpc: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Use, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>>,
    {
        let trace = trace(request.metadata());
        let entry = self.audit.begin(
            rpc,
            remote(&request).and_then(|remote| Some(Arc::clone(&remote.address.as_ref()?.shown))),
            trace,
        );
        let mut caller = None;
        let result = match (deadline::of(request.metadata()), self.limits.enter()) {
            // Its record says that the caller did not wait for the end.
            (Deadline::Over, _) => return Err(deadline::exceeded()),
            (_, Err(excess)) => Err(excess.into()),
            (Deadline::Malformed, Ok(_)) => Err(deadline::malformed().into()),
            (Deadline::Ahead, Ok(_slot)) => self.taken_on((rpc, trace), request, &entry, &mut caller, work).await,
        };
        let word = result.as_ref().map_or_else(|refusal| status::word(refusal.reason()), |_| "OK");
        entry.ends(word);
        self.count(rpc, word);
        result.map(Response::new).map_err(|refusal| {
            // The cause stays here; callers get the fixed text of the reason and the trace to ask about.
            let caller = caller.as_ref().map(Caller::name);
            info_span!("request", rpc, caller, %trace).in_scope(|| self.tell(&refusal));
            status::of(&refusal, trace)
        })
    }

    fn count(&self, rpc: &'static str, result: &'static str) {
        if (rpc, result) == USUAL {
            self.usual.inc();
        } else {
            self.telemetry.requests.get_or_create(&RequestLabels { rpc, result }).inc();
        }
    }

    /// Writes a refusal into the log. A line for each one that costs its sender nothing would make the load worse; all of
    /// them are counted.
    fn tell(&self, refusal: &Refusal) {
        let reason = status::word(refusal.reason());
        match refusal {
            Refusal::Overloaded(_) => debug!(reason, "refused"),
            Refusal::Unproven(_) => damped(&self.unproven, reason, refusal),
            Refusal::Denied => damped(&self.denied, reason, refusal),
            Refusal::Failed(_) => warn!(reason, cause = %refusal, "refused"),
        }
    }

    async fn taken_on<Q, A, F>(
        &self,
        (rpc, trace): (&'static str, TraceId),
        request: Request<Q>,
        entry: &Entry,
        caller: &mut Option<Caller>,
        work: impl FnOnce(Use, Q) -> F,
    ) -> Result<A, Refusal>
    where
        F: Future<Output = Result<A, Refusal>>,
    {
        let shown = authorization(request.metadata());
        let caller = caller.insert(self.identity.caller(remote(&request).map(|remote| &remote.peer), shown).await?);
        entry.calls(caller);
        let _counted = self.limits.count(caller.name())?;
        work(Use { rpc, trace, caller: caller.clone(), entry: entry.clone() }, request.into_inner()).await
    }

    /// Has the policy decide. What is done then is taken from the permit, so that it is what was decided on.
    fn permit(&self, by: &Use, asked: policy::Request) -> Result<Permit, Refusal> {
        by.entry.asks(&asked);
        match self.policy.permit(&by.caller, asked) {
            Ok(permit) => {
                by.entry.allowed(&permit);
                Ok(permit)
            }
            Err(Denied) => {
                by.entry.denied();
                Err(Refusal::Denied)
            }
        }
    }

    /// The same about the store as a whole.
    fn permit_store(&self, by: &Use) -> Result<StorePermit, Refusal> {
        by.entry.asks_for_the_store();
        match self.policy.permit_store(&by.caller) {
            Ok(permit) => {
                by.entry.allowed_the_store(&permit);
                Ok(permit)
            }
            Err(Denied) => {
                by.entry.denied();
                Err(Refusal::Denied)
            }
        }
    }
}

/// The answer to a request for which there is no room, before anybody looked at it.
pub fn overloaded() -> Status {
    status::of(&Refusal::Overloaded(Excess(SHORT_WAIT)), TraceId::random())
}

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Writes a refusal of which there can be very many into the log, if its turn has come.
fn damped(damper: &Damper, reason: &str, refusal: &Refusal) {
    match damper.line() {
        Some(left_out) => warn!(reason, cause = %refusal, left_out, "refused"),
        None => debug!(reason, cause = %refusal, "refused"),
    }
}

/// The caller's trace id, or a new one.
fn trace(metadata: &MetadataMap) -> TraceId {
    let parent = metadata.as_ref().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    parent.and_then(TraceId::of_parent).unwrap_or_else(TraceId::random)
}

fn remote<T>(request: &Request<T>) -> Option<&Remote> {
    request.extensions().get()
}

/// Everything that stands there as `authorization`. What is no text cannot be a token, and is a proof all the same.
fn authorization(metadata: &MetadataMap) -> Vec<SecretString> {
    let values = metadata.as_ref().get_all(AUTHORIZATION).iter();
    values.map(|value| SecretString::from(value.to_str().unwrap_or_default())).collect()
}
