//! What the log says beside each line about the work on a grant.

use tracing::Span;

use super::{Broker, Core};
use crate::token::GrantKey;

impl Broker {
    /// Puts into a span what is done and with which grant: the fields `action`, `credential` and `subject`.
    pub fn note_grant(&self, span: &Span, action: &'static str, grant: &GrantKey) {
        self.core.note_grant(span, action, grant);
    }
}

impl Core {
    /// A subject can be a person's e-mail address, so it stands there by the name that the audit log has for it.
    pub(super) fn note_grant(&self, span: &Span, action: &'static str, grant: &GrantKey) {
        span.record("action", action);
        span.record("credential", grant.credential.as_str());
        if !grant.subject.is_service() {
            span.record("subject", self.store.names().subject(&grant.credential, &grant.subject).as_str());
        }
    }
}
