//! The services of `proto/bearerd/v1`: decode, identity, policy, broker, encode. Decides nothing; with the command line,
//! which is its client, the only room that knows protobuf.

use std::{future::Future, sync::Arc};

use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument, field, info_span, warn};

use self::status::Refusal;
use crate::{
    broker::Broker,
    caller::Caller,
    identity::{Identity, Peer},
    policy::{Action, Permit, Policy},
    secret::SecretString,
    telemetry::{RequestLabels, Telemetry},
};

mod convert;
mod grants;
mod status;
mod token;
mod trace;

/// Serves both services.
#[derive(Clone)]
pub struct Api {
    broker: Broker,
    identity: Identity,
    policy: Arc<Policy>,
    telemetry: Arc<Telemetry>,
}

impl Api {
    /// The services on a broker, for callers that `identity` tells apart, under a policy.
    pub fn new(broker: Broker, identity: Identity, policy: Policy, telemetry: Arc<Telemetry>) -> Self {
        Self { broker, identity, policy: Arc::new(policy), telemetry }
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
        let trace = trace::id(request.metadata());
        let span = info_span!("request", rpc, caller = field::Empty, trace);
        let result = async {
            let shown = authorization(request.metadata());
            let caller = self.identity.caller(request.extensions().get::<Peer>(), shown).await?;
            span.record("caller", field::display(&caller));
            work(caller, request.into_inner()).await
        };
        let result = result.instrument(span.clone()).await;
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

/// Everything that stands there as `authorization`. What is no text cannot be a token, and is a proof all the same.
fn authorization(metadata: &MetadataMap) -> Vec<SecretString> {
    let values = metadata.get_all("authorization").iter();
    values.map(|value| SecretString::from(value.to_str().unwrap_or_default())).collect()
}
