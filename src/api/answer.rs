//! What every rpc has in common: whether it is taken on, who calls, under which trace, and how its end is recorded, counted and
//! told.

use std::{
    future::{Future, ready},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
};

use http::{HeaderName, header::AUTHORIZATION};
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument, Span, error_span, field::Empty};

use super::{
    Api,
    deadline::{self, Deadline},
    status::{self, Refusal},
};
use crate::{
    audit::{CANCELLED, Entry},
    caller::Caller,
    identity::{IdentityError, Proof, Remote},
    limit::{Bodies, Counted, Slot},
    policy::{self, Action, Denied, GrantedLimit, Permit, StorePermit},
    secret::SecretString,
    token::GrantKey,
    trace::TraceId,
};

/// An answer that is there already, or on its way.
pub(super) type Answer<A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

/// What the work of an rpc comes to.
pub(super) enum Work<A> {
    /// It is done, and nothing had to be waited for.
    Done(A),
    /// It goes on. The log says what the span does beside each line about it.
    Going(Pin<Box<dyn Future<Output = Result<A, Refusal>> + Send>>, Span),
}

/// The same, or why there is nothing to do.
pub(super) type Worked<A> = Result<Work<A>, Refusal>;

impl<A> Work<A> {
    /// Work that goes on, in a span.
    pub fn going(span: Span, work: impl Future<Output = Result<A, Refusal>> + Send + 'static) -> Worked<A> {
        Ok(Self::Going(Box::pin(work.instrument(span.clone())), span))
    }
}

/// One use of bearerd: of what is in force, by whom, and what will be written down about it. It has its place among those that
/// are under way as long as it is there.
pub(super) struct Use {
    pub api: Arc<Api>,
    pub entry: Entry,
    rpc: &'static str,
    trace: TraceId,
    caller: Caller,
    _place: Slot,
    counted: Counted,
}

impl Use {
    /// What the log says beside each line about it. It is made only for work that has something to say.
    pub fn span(&self, permit: &Permit) -> Span {
        self.span_about(permit.action(), permit.grant())
    }

    /// The same for what is done with the store as a whole.
    pub fn span_without_grant(&self) -> Span {
        span(self.rpc, Some(&self.caller), self.trace)
    }

    fn span_about(&self, action: Action, grant: &GrantKey) -> Span {
        let span = self.span_without_grant();
        self.api.broker.note_grant(&span, action.word(), grant);
        span
    }

    /// What the bodies of this caller's call will hold.
    pub fn bodies(&self) -> Bodies {
        self.api.limits.bodies(&self.counted)
    }

    /// Has the policy decide. What is done then is taken from the permit, so that it is what was decided on.
    pub fn permit(&self, asked: policy::Request) -> Result<Permit, Refusal> {
        self.entry.asks(&asked);
        let (action, grant) = (asked.action, grant(&asked));
        match self.api.policy.permit(&self.caller, asked) {
            Ok(permit) => {
                self.entry.allowed(&permit);
                Ok(permit)
            }
            Err(denied) => Err(self.denied(denied, action, &grant)),
        }
    }

    /// Notes that the policy does not allow it.
    pub fn denied(&self, denied: Denied, action: Action, grant: &GrantKey) -> Refusal {
        self.entry.denied(&denied);
        self.span_about(action, grant).in_scope(|| self.api.tell_denied(&denied));
        denied.into()
    }

    /// Whether the policy allows something beside what was asked for. It is not written down.
    pub fn allows(&self, asked: policy::Request) -> bool {
        self.may(asked).is_ok()
    }

    /// The same, with which scopes the token may have, or why it is denied.
    pub fn may(&self, asked: policy::Request) -> Result<GrantedLimit, Denied> {
        self.api.policy.permit(&self.caller, asked).map(|permit| permit.granted().clone())
    }

    /// The same about the store as a whole.
    pub fn permit_store(&self) -> Result<StorePermit, Refusal> {
        self.entry.asks_for_the_store();
        match self.api.policy.permit_store(&self.caller) {
            Ok(permit) => {
                self.entry.allowed_the_store(&permit);
                Ok(permit)
            }
            Err(denied) => {
                self.entry.denied(&denied);
                self.span_without_grant().in_scope(|| self.api.tell_denied(&denied));
                Err(denied.into())
            }
        }
    }
}

/// Answers an rpc. What is there at once is worked out at once, and the answer holds nothing but itself.
pub(super) fn answer<Q, A>(
    api: Arc<Api>,
    remote: &Remote,
    rpc: &'static str,
    request: Request<Q>,
    work: fn(Use, Q) -> Worked<A>,
) -> Answer<A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    let (metadata, _extensions, message) = request.into_parts();
    let trace = trace(&metadata);
    let entry = api.audit.begin(rpc, remote.address.as_ref(), trace);
    let mut call = Rpc { api, rpc, trace, caller: None, entry, ended: false };
    let (left, place) = match (deadline::of(&metadata), call.api.limits.enter()) {
        (Deadline::Over, _) => return Box::pin(ready(Err(deadline::exceeded()))),
        (_, Err(excess)) => return call.refused(excess),
        (Deadline::Malformed, Ok(_)) => return call.refused(deadline::malformed()),
        (Deadline::Ahead(left), Ok(place)) => (left, place),
    };
    if call.api.audit.refuses() {
        return call.refused(Refusal::Unaudited);
    }
    let from = remote.address.as_ref().map(|address| address.ip);
    match call.api.identity.proof(&remote.peer, authorization(&metadata)) {
        Ok(Proof::Shown(caller)) => match call.take_on(caller, place, message, work) {
            Ok(Work::Done(answer)) => Box::pin(ready(call.ends(Ok(answer), None))),
            Ok(Work::Going(going, span)) => {
                Box::pin(deadline::within(left, async move { call.ends(going.await, Some(span)) }))
            }
            Err(refusal) => call.refused(refusal),
        },
        Ok(Proof::Issued(token)) => Box::pin(deadline::within(left, async move {
            match call.vouched_for(&token, from, place, message, work).await {
                Ok(Work::Done(answer)) => call.ends(Ok(answer), None),
                Ok(Work::Going(going, span)) => call.ends(going.await, Some(span)),
                Err(refusal) => call.ends(Err(refusal), None),
            }
        })),
        Err(error) => {
            let refusal = call.unproven(error, from);
            call.refused(refusal)
        }
    }
}

/// An rpc that came in, until its end, or until nobody waits for that any more.
struct Rpc {
    api: Arc<Api>,
    rpc: &'static str,
    trace: TraceId,
    /// Who calls, as soon as that is known.
    caller: Option<Caller>,
    entry: Entry,
    ended: bool,
}

/// Its record says so too, by itself.
impl Drop for Rpc {
    fn drop(&mut self) {
        if !self.ended {
            self.api.count(self.rpc, CANCELLED);
        }
    }
}

impl Rpc {
    fn take_on<Q, A>(&mut self, caller: Caller, place: Slot, message: Q, work: fn(Use, Q) -> Worked<A>) -> Worked<A> {
        self.entry.calls(&caller);
        self.caller = Some(caller.clone());
        let counted = self.api.limits.count(caller.name())?;
        let (api, entry) = (Arc::clone(&self.api), self.entry.clone());
        work(Use { api, entry, rpc: self.rpc, trace: self.trace, caller, _place: place, counted }, message)
    }

    /// The same for a caller whose token an issuer has to vouch for.
    async fn vouched_for<Q, A>(
        &mut self,
        token: &SecretString,
        from: Option<IpAddr>,
        place: Slot,
        message: Q,
        work: fn(Use, Q) -> Worked<A>,
    ) -> Worked<A> {
        let vouched_for = self.api.identity.vouched_for(token).await;
        let caller = vouched_for.map_err(|error| self.unproven(error, from))?;
        self.take_on(caller, place, message, work)
    }

    /// A proof that does not hold, or one too many of this address. A proof is looked at all the same, so that a caller who shares
    /// the address and has a good one is served.
    fn unproven(&self, error: IdentityError, from: Option<IpAddr>) -> Refusal {
        let counted = from.filter(|_| error.is_the_callers()).map(|address| self.api.limits.proof_failed(address));
        match counted {
            Some(Err(excess)) => Refusal::Overloaded(excess),
            Some(Ok(())) | None => Refusal::Unproven(error),
        }
    }

    fn ends<A>(mut self, result: Result<A, Refusal>, within: Option<Span>) -> Result<Response<A>, Status> {
        let word = result.as_ref().map_or_else(|refusal| status::word(refusal.reason()), |_| "OK");
        self.ended = true;
        self.entry.ends(word);
        self.api.count(self.rpc, word);
        result.map(Response::new).map_err(|refusal| {
            // The cause stays here; callers get the fixed text of the reason and the trace to ask about.
            let within = within.unwrap_or_else(|| span(self.rpc, self.caller.as_ref(), self.trace));
            within.in_scope(|| self.api.tell(&refusal));
            status::of(&refusal, self.trace)
        })
    }

    fn refused<A: Send + 'static>(self, refusal: impl Into<Refusal>) -> Answer<A> {
        Box::pin(ready(self.ends(Err(refusal.into()), None)))
    }
}

/// The span of a request. It is there at every level of the log, so that each line has its fields; those of its grant are
/// put in once they are known.
fn span(rpc: &'static str, caller: Option<&Caller>, trace: TraceId) -> Span {
    let caller = caller.map(Caller::name);
    error_span!("request", rpc, action = Empty, credential = Empty, subject = Empty, caller, trace_id = %trace)
}

fn grant(asked: &policy::Request) -> GrantKey {
    GrantKey { credential: asked.credential.clone(), subject: asked.subject.clone() }
}

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's trace id, or a new one.
fn trace(metadata: &MetadataMap) -> TraceId {
    let parent = metadata.as_ref().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    parent.and_then(TraceId::of_parent).unwrap_or_else(TraceId::random)
}

/// Everything that stands there as `authorization`. What is no text cannot be a token, and is a proof all the same.
fn authorization(metadata: &MetadataMap) -> Vec<SecretString> {
    let values = metadata.as_ref().get_all(AUTHORIZATION).iter();
    values.map(|value| SecretString::from(value.to_str().unwrap_or_default())).collect()
}
