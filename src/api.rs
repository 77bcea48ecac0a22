//! The services of `proto/bearerd/v1`: decode, identity, policy, broker, encode. Decides nothing; with the command line,
//! which is its client, the only room that knows protobuf.

use std::{future::Future, sync::Arc};

use tonic::{Request, Response, Status};
use tracing::{Instrument, info_span, warn};

use self::status::Refusal;
use crate::{
    broker::Broker,
    caller::Caller,
    identity,
    policy::{Action, Permit, Policy},
    telemetry::{RequestLabels, Telemetry},
};

mod convert;
mod grants;
mod live;
mod reseal;
mod status;
mod token;
mod trace;

pub use self::live::Live;

/// Serves both services.
#[derive(Clone)]
pub struct Api {
    broker: Broker,
    policy: Arc<Policy>,
    telemetry: Arc<Telemetry>,
}

impl Api {
    /// The services on a broker, under a policy.
    pub fn new(broker: Broker, policy: Policy, telemetry: Arc<Telemetry>) -> Self {
        Self { broker, policy: Arc::new(policy), telemetry }
    }

    /// What every rpc has in common: who calls, under which trace, and how the end is counted and told.
    async fn answer<Q, A, F>(
        &self,
        rpc: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Caller, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Refusal>>,
    {
        let caller = identity::of_peer(request.remote_addr());
        let trace = trace::id(request.metadata());
        let span = info_span!("request", rpc, %caller, trace);
        let result = work(caller, request.into_inner()).instrument(span.clone()).await;
        let word = result.as_ref().map_or_else(|refusal| status::word(refusal.reason()), |_| "OK");
        self.telemetry.requests.get_or_create(&RequestLabels { rpc, result: word }).inc();
        result.map(Response::new).map_err(|refusal| {
            // The cause stays here; callers get the fixed text of the reason and the trace to ask about.
            span.in_scope(|| warn!(reason = word, cause = %refusal, "refused"));
            status::of(&refusal, &trace)
        })
    }

    fn permit(&self, caller: &Caller, action: Action, credential: &str, subject: &str) -> Result<Permit, Refusal> {
        let credential = convert::credential(credential)?;
        let subject = convert::subject(subject)?;
        self.policy.permit(caller, action, credential, subject).map_err(|_| Refusal::Denied)
    }
}
