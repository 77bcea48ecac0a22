//! One line of the audit log. Its fields are a schema that others read: `docs/security.md` describes it, and what is
//! there is never taken away or given another meaning under the same `schema`.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use super::{Configured, line::Line};
use crate::{
    caller::Caller,
    name::{CredentialName, Resources, Scopes},
    policy::{Action, Denied, Limit, Permit, Request, RowId},
    store::Names,
    trace::TraceId,
};

const SCHEMA: &str = "bearerd.audit.v1";

/// The result of an rpc whose caller did not wait for it.
pub const CANCELLED: &str = "CANCELLED";

/// The most bytes of a caller's own text: enough for any real one, so that a record cannot be made huge.
const LONGEST_TEXT: usize = 8 * 1024;

/// The same in the record of a refusal, which costs its sender nothing, and of all its scopes or resources together.
const LONGEST_REFUSED: usize = 1024;

/// What stands at the end of a text that was cut.
const CUT: &str = "…";

/// What was done, by whom, and what came of it. It has no place for a token, a header field, a query or a body.
pub(super) struct Record {
    time: SystemTime,
    trace: TraceId,
    rpc: &'static str,
    caller: Option<Caller>,
    peer: Option<Arc<str>>,
    action: Option<Action>,
    credential: Option<CredentialName>,
    subject: Option<String>,
    scopes: Scopes,
    resources: Resources,
    decision: Decision,
    row: Option<RowId>,
    limits: Vec<Limit>,
    pub result: &'static str,
    pub generation: Option<u64>,
    method: Option<String>,
    path: Option<String>,
    pub status: Option<u16>,
    pub attempts: Option<u32>,
}

/// What the policy said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// It was not asked: the request was malformed, or one too many.
    None,
    Allowed,
    Denied,
}

impl Decision {
    const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

impl Record {
    pub fn new(rpc: &'static str, peer: Option<Arc<str>>, trace: TraceId) -> Self {
        Self {
            time: SystemTime::now(),
            trace,
            rpc,
            caller: None,
            peer,
            action: None,
            credential: None,
            subject: None,
            scopes: Scopes::default(),
            resources: Resources::default(),
            decision: Decision::None,
            row: None,
            limits: Vec::new(),
            result: CANCELLED,
            generation: None,
            method: None,
            path: None,
            status: None,
            attempts: None,
        }
    }

    pub fn caller(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
    }

    pub fn asked(&mut self, request: &Request, names: &Names) {
        let Request { action, credential, subject, scopes, resources, call } = request;
        self.action = Some(*action);
        self.credential = Some(credential.clone());
        self.subject = (!subject.is_service()).then(|| names.subject(credential, subject));
        (self.scopes, self.resources) = (scopes.clone(), resources.clone());
        self.method = call.as_ref().map(|call| cut(&call.method, LONGEST_TEXT).into_owned());
        self.path = call.as_ref().map(|call| cut(call.plain_path(), LONGEST_TEXT).into_owned());
    }

    /// What is done with the store as a whole is done with no credential.
    pub fn asked_for_the_store(&mut self) {
        self.action = Some(Action::Administer);
    }

    pub fn allowed_by(&mut self, row: &RowId) {
        self.decision = Decision::Allowed;
        self.row = Some(row.clone());
    }

    pub fn allowed(&mut self, permit: &Permit) {
        self.allowed_by(permit.row());
        // Where the request named none: what the credential has of its own.
        (self.scopes, self.resources) = (permit.scopes().clone(), permit.resources().clone());
    }

    /// With the row that denies it, or the one that covers the most of it and what it does not cover.
    pub fn denied(&mut self, denied: &Denied) {
        self.decision = Decision::Denied;
        match denied {
            Denied::NoRow => (self.row, self.limits) = (None, Vec::new()),
            Denied::ByRow(row) => (self.row, self.limits) = (Some(row.clone()), Vec::new()),
            Denied::Limited { row, limits } => (self.row, self.limits) = (Some(row.clone()), limits.clone()),
        }
    }

    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allowed
    }

    /// The name of a caller who has shown who it is.
    pub fn proven(&self) -> Option<&str> {
        self.caller.as_ref().filter(|caller| **caller != Caller::Anonymous).map(Caller::name)
    }

    pub fn line(&self) -> Vec<u8> {
        let longest = if self.is_allowed() { LONGEST_TEXT } else { LONGEST_REFUSED };
        let mut line = Line::new(SCHEMA, "use", self.time);
        line.plain("\"trace_id\":", self.trace.as_str());
        line.plain("\"rpc\":", self.rpc);
        line.maybe_text("\"caller\":", self.caller.as_ref().map(|caller| cut(caller.name(), LONGEST_TEXT)).as_deref());
        line.maybe_plain("\"caller_kind\":", self.caller.as_ref().map(kind));
        line.maybe_plain("\"peer\":", self.peer.as_deref());
        line.maybe_plain("\"action\":", self.action.map(Action::word));
        line.maybe_plain("\"credential\":", self.credential.as_ref().map(CredentialName::as_str));
        line.maybe_plain("\"subject\":", self.subject.as_deref());
        line.texts("\"scopes\":", within(self.scopes.iter(), longest));
        line.texts("\"resources\":", within(self.resources.iter(), longest));
        line.plain("\"decision\":", self.decision.word());
        line.maybe_number("\"row\":", self.row.as_ref().map(|row| row.number as u64));
        line.maybe_text("\"row_name\":", self.row.as_ref().and_then(|row| row.name.as_deref()));
        line.texts("\"limits\":", self.limits.iter().map(|limit| limit.setting()));
        line.plain("\"result\":", self.result);
        line.maybe_number("\"generation\":", self.generation);
        line.maybe_text("\"method\":", self.method.as_deref().map(|method| cut(method, longest)).as_deref());
        line.maybe_text("\"path\":", self.path.as_deref().map(|path| cut(path, longest)).as_deref());
        line.maybe_number("\"status\":", self.status.map(u64::from));
        line.maybe_number("\"attempts\":", self.attempts.map(u64::from));
        line.end()
    }
}

/// The line that says how many are missing here.
pub(super) fn lost(records: u64) -> Vec<u8> {
    let mut line = Line::new(SCHEMA, "lost", SystemTime::now());
    line.maybe_number("\"records\":", Some(records));
    line.end()
}

/// The line that says how many refusals of one sender have no record of their own.
pub(super) fn refused(since: SystemTime, caller: Option<&str>, peer: Option<&str>, records: u64) -> Vec<u8> {
    let mut line = Line::new(SCHEMA, "refused", since);
    line.maybe_text("\"caller\":", caller.map(|caller| cut(caller, LONGEST_TEXT)).as_deref());
    line.maybe_plain("\"peer\":", peer);
    line.maybe_number("\"records\":", Some(records));
    line.end()
}

/// The line that says which configuration is in force.
pub(super) fn configured(what: Configured, digest: Option<&str>) -> Vec<u8> {
    let mut line = Line::new(SCHEMA, "configuration", SystemTime::now());
    let result = match what {
        Configured::Started => "started",
        Configured::Reloaded => "reloaded",
        Configured::Refused => "refused",
    };
    line.plain("\"result\":", result);
    line.maybe_plain("\"sha256\":", digest);
    line.end()
}

/// How a caller has shown who it is.
fn kind(caller: &Caller) -> &'static str {
    match caller {
        Caller::Local => "local",
        Caller::Anonymous => "anonymous",
        Caller::Spiffe(_) => "certificate",
        Caller::ServiceAccount(_) => "service_account",
        Caller::Token(_) => "token",
        Caller::UnixUser(_) => "unix_user",
    }
}

fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return text.into();
    }
    let end = text.floor_char_boundary(longest.saturating_sub(CUT.len()));
    [text.get(..end).unwrap_or_default(), CUT].concat().into()
}

/// As many of the texts as fit, and a sign if there are more.
fn within<'t>(texts: impl Iterator<Item = &'t str>, longest: usize) -> impl Iterator<Item = &'t str> {
    let mut left = Some(longest);
    texts.map_while(move |text| {
        let before = left?;
        left = before.checked_sub(text.len());
        Some(if left.is_some() { text } else { CUT })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{CredentialName, Subject},
        policy::{Called, Policy},
    };

    fn trace() -> TraceId {
        TraceId::random()
    }

    fn names() -> Names {
        Names::new(&[7; 32])
    }

    fn request(path: &str) -> Request {
        let named = (CredentialName::new("crm").unwrap(), Subject::new("jane@example.org").unwrap());
        let call = Some(Called { method: "GET".to_owned(), path: path.to_owned() });
        Request { call, ..Request::new(Action::Call, named.0, named.1) }
    }

    fn json(record: &Record) -> serde_json::Value {
        let line = record.line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line is one record");
        serde_json::from_slice(&line).unwrap()
    }

    /// Exactly these fields, in this order: others read them.
    #[test]
    fn the_schema_is_this() {
        let mut record = Record::new("CallThrough", Some("127.0.0.1:7".into()), trace());
        record.caller(&Caller::Local);
        record.asked(&request("/v1/x?token=secret"), &names());
        record.allowed(&Policy::local_only().permit(&Caller::Local, request("/v1/x")).unwrap());
        record.result = "OK";
        (record.generation, record.status, record.attempts) = (Some(7), Some(200), Some(1));
        let text = String::from_utf8(record.line()).unwrap();
        let subject = names().subject(&request("/").credential, &request("/").subject);
        let expected = format!(
            "{{\"schema\":\"bearerd.audit.v1\",\"event\":\"use\",\"time\":\"{}\",\"trace_id\":\"{}\",\
             \"rpc\":\"CallThrough\",\"caller\":\"local\",\"caller_kind\":\"local\",\"peer\":\"127.0.0.1:7\",\
             \"action\":\"call\",\"credential\":\"crm\",\"subject\":\"{subject}\",\"scopes\":[],\"resources\":[],\
             \"decision\":\"allowed\",\"row\":0,\"row_name\":null,\"limits\":[],\"result\":\"OK\",\"generation\":7,\
             \"method\":\"GET\",\"path\":\"/v1/x\",\"status\":200,\"attempts\":1}}\n",
            humantime::format_rfc3339_micros(record.time),
            record.trace
        );
        assert_eq!(text, expected);
        assert!(!text.contains("jane") && !text.contains("secret"));
    }

    #[test]
    fn what_never_ended_was_cancelled() {
        let record = Record::new("GetToken", None, trace());
        assert_eq!(
            (json(&record)["result"].as_str(), json(&record)["decision"].as_str()),
            (Some("CANCELLED"), Some("none"))
        );
    }

    #[test]
    fn a_callers_text_makes_no_line_of_its_own_and_is_bounded() {
        let mut record = Record::new("CallThrough", None, trace());
        let forged = "/x\n{\"schema\":\"bearerd.audit.v1\"}\r\u{2028}\u{85}\"";
        record.asked(&request(forged), &names());
        assert_eq!(json(&record)["path"], forged);
        for (path, longest) in
            [("ä".repeat(100_000), LONGEST_REFUSED), ("x".repeat(LONGEST_REFUSED + 1), LONGEST_REFUSED)]
        {
            record.asked(&request(&path), &names());
            let written = json(&record)["path"].as_str().unwrap().to_owned();
            assert!((longest - 1..=longest).contains(&written.len()) && written.ends_with(CUT), "{}", written.len());
        }
        record.scopes = Scopes::new((0..100).map(|number| format!("{number}{}", "s".repeat(78)))).unwrap();
        assert!(record.line().len() < 3 * LONGEST_REFUSED, "a refusal is small, whatever was asked for");
        record.asked(&request(&"x".repeat(LONGEST_TEXT)), &names());
        record.allowed(&Policy::local_only().permit(&Caller::Local, request("/v1/x")).unwrap());
        assert_eq!(json(&record)["path"].as_str().unwrap().len(), LONGEST_TEXT, "what was done is told whole");
    }

    /// LOW 22.
    #[test]
    fn a_configuration_is_named_by_its_digest() {
        let line: serde_json::Value = serde_json::from_slice(&configured(Configured::Reloaded, Some("ab"))).unwrap();
        assert_eq!((line["event"].as_str(), line["result"].as_str()), (Some("configuration"), Some("reloaded")));
        assert_eq!(line["sha256"], "ab");
    }

    #[test]
    fn a_gap_says_how_large_it_is() {
        let gap: serde_json::Value = serde_json::from_slice(&lost(7)).unwrap();
        assert_eq!((gap["event"].as_str(), gap["records"].as_u64()), (Some("lost"), Some(7)));
    }
}
