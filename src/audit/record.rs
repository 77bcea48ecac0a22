//! One line of the audit log. Its fields are a schema that others read: `docs/security.md` describes it, and what is
//! there is never taken away or given another meaning under the same `schema`.

use std::{net::SocketAddr, time::SystemTime};

use serde::Serialize;

use crate::{
    caller::Caller,
    policy::{Action, Permit, Request, RowId},
    store::{Names, Unit},
    token::GrantKey,
};

const SCHEMA: &str = "bearerd.audit.v1";

/// The result of an rpc whose caller did not wait for it.
const CANCELLED: &str = "CANCELLED";

/// The most bytes of a caller's own text: enough for any real one, so that a record cannot be made huge.
const LONGEST_TEXT: usize = 2048;

/// What was done, by whom, and what came of it. It has no place for a token, a header field, a query or a body.
#[derive(Serialize)]
pub(super) struct Record {
    schema: &'static str,
    event: &'static str,
    time: String,
    trace_id: String,
    rpc: &'static str,
    caller: Option<String>,
    caller_kind: Option<&'static str>,
    peer: Option<SocketAddr>,
    action: Option<&'static str>,
    credential: Option<String>,
    subject: Option<String>,
    scopes: Vec<String>,
    resources: Vec<String>,
    decision: Decision,
    row: Option<usize>,
    row_name: Option<String>,
    pub result: &'static str,
    pub generation: Option<u64>,
    method: Option<String>,
    path: Option<String>,
    pub status: Option<u16>,
    pub attempts: Option<u32>,
}

/// What the policy said.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    /// It was not asked: the request was malformed, or one too many.
    None,
    Allowed,
    Denied,
}

/// The line that stands where others are missing.
#[derive(Serialize)]
struct Lost {
    schema: &'static str,
    event: &'static str,
    time: String,
    records: u64,
}

impl Record {
    pub fn new(rpc: &'static str, peer: Option<SocketAddr>, trace: &str) -> Self {
        Self {
            schema: SCHEMA,
            event: "use",
            time: now(),
            trace_id: trace.to_owned(),
            rpc,
            caller: None,
            caller_kind: None,
            peer,
            action: None,
            credential: None,
            subject: None,
            scopes: Vec::new(),
            resources: Vec::new(),
            decision: Decision::None,
            row: None,
            row_name: None,
            result: CANCELLED,
            generation: None,
            method: None,
            path: None,
            status: None,
            attempts: None,
        }
    }

    pub fn caller(&mut self, caller: &Caller) {
        self.caller = Some(cut(caller.name()));
        self.caller_kind = Some(kind(caller));
    }

    pub fn asked(&mut self, request: &Request, names: &Names) {
        let Request { action, credential, subject, scopes, resources, call } = request;
        self.action = Some(action.word());
        self.credential = Some(credential.to_string());
        self.subject = (!subject.is_service()).then(|| {
            let grant = GrantKey { credential: credential.clone(), subject: subject.clone() };
            hash(names, &grant)
        });
        self.scopes = scopes.iter().map(str::to_owned).collect();
        self.resources = resources.iter().map(str::to_owned).collect();
        self.method = call.as_ref().map(|call| cut(&call.method));
        self.path = call.as_ref().map(|call| cut(call.plain_path()));
    }

    /// What is done with the store as a whole is done with no credential.
    pub fn asked_for_the_store(&mut self) {
        self.action = Some(Action::Administer.word());
    }

    pub fn allowed_by(&mut self, row: &RowId) {
        let RowId { number, name } = row;
        self.decision = Decision::Allowed;
        self.row = Some(*number);
        self.row_name = name.as_deref().map(str::to_owned);
    }

    pub fn allowed(&mut self, permit: &Permit) {
        self.allowed_by(permit.row());
        // Where the request named none: what the credential has of its own.
        self.scopes = permit.scopes().iter().map(str::to_owned).collect();
        self.resources = permit.resources().iter().map(str::to_owned).collect();
    }

    pub fn denied(&mut self) {
        self.decision = Decision::Denied;
    }

    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allowed
    }

    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// The line that says how many are missing here.
pub(super) fn lost(records: u64) -> Vec<u8> {
    line(&Lost { schema: SCHEMA, event: "lost", time: now(), records })
}

/// JSON has no raw line ends in it, so whatever a caller wrote, a line stays one line.
fn line(of: &impl Serialize) -> Vec<u8> {
    // Texts and numbers can always be written as JSON.
    let mut line = serde_json::to_vec(of).unwrap_or_default();
    line.push(b'\n');
    line
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

/// The keyed hash of a grant's subject, as it stands in the names of the store.
fn hash(names: &Names, grant: &GrantKey) -> String {
    let name = names.unit(Unit::Grant(grant));
    name.as_str().rsplit('/').next().unwrap_or_default().to_owned()
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().to_owned()
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        name::{CredentialName, Subject},
        policy::{Called, Policy},
    };

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
        let mut record = Record::new("CallThrough", Some("127.0.0.1:7".parse().unwrap()), "abc");
        record.caller(&Caller::Local);
        record.asked(&request("/v1/x?token=secret"), &names());
        record.allowed(&Policy::local_only().permit(&Caller::Local, request("/v1/x")).unwrap());
        record.result = "OK";
        (record.generation, record.status, record.attempts) = (Some(7), Some(200), Some(1));
        let text = String::from_utf8(record.line()).unwrap();
        let subject = hash(&names(), &GrantKey { credential: request("/").credential, subject: request("/").subject });
        let expected = format!(
            "{{\"schema\":\"bearerd.audit.v1\",\"event\":\"use\",\"time\":\"{}\",\"trace_id\":\"abc\",\
             \"rpc\":\"CallThrough\",\"caller\":\"local\",\"caller_kind\":\"local\",\"peer\":\"127.0.0.1:7\",\
             \"action\":\"call\",\"credential\":\"crm\",\"subject\":\"{subject}\",\"scopes\":[],\"resources\":[],\
             \"decision\":\"allowed\",\"row\":0,\"row_name\":null,\"result\":\"OK\",\"generation\":7,\
             \"method\":\"GET\",\"path\":\"/v1/x\",\"status\":200,\"attempts\":1}}\n",
            record.time
        );
        assert_eq!(text, expected);
        assert!(!text.contains("jane") && !text.contains("secret"));
    }

    #[test]
    fn what_never_ended_was_cancelled() {
        let record = Record::new("GetToken", None, "abc");
        assert_eq!(
            (json(&record)["result"].as_str(), json(&record)["decision"].as_str()),
            (Some("CANCELLED"), Some("none"))
        );
    }

    #[test]
    fn a_callers_text_makes_no_line_of_its_own_and_is_bounded() {
        let mut record = Record::new("CallThrough", None, "abc");
        let forged = "/x\n{\"schema\":\"bearerd.audit.v1\"}\r\u{2028}\u{85}\"";
        record.asked(&request(forged), &names());
        assert_eq!(json(&record)["path"], forged);
        record.asked(&request(&"ä".repeat(100_000)), &names());
        assert_eq!(json(&record)["path"].as_str().unwrap().len(), LONGEST_TEXT);
    }

    #[test]
    fn a_gap_says_how_large_it_is() {
        let gap: serde_json::Value = serde_json::from_slice(&lost(7)).unwrap();
        assert_eq!((gap["event"].as_str(), gap["records"].as_u64()), (Some("lost"), Some(7)));
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let written = humantime::parse_rfc3339(&Record::new("GetToken", None, "").time).unwrap();
        assert!(SystemTime::now().duration_since(written).unwrap() < Duration::from_secs(60));
    }
}
