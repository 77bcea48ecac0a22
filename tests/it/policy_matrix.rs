//! Every rpc × every kind of caller × every kind of row. The rpcs come from the descriptors and the kinds of callers from
//! the type, so that a new one of either fails here until somebody has said what it may do.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::Pin,
};

use bearerd::{
    caller::Caller,
    policy::Action,
    proto::{
        CallThroughRequest, DESCRIPTORS, DescribeGrantRequest, GetTokenRequest, ImportGrantRequest,
        InvalidateTokenRequest, ResealRecordsRequest, RetryGrantRequest, import_grant_request::Secret,
        invalidate_token_request::Rejected,
    },
};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::visitor::{Visitor, kinds};
use crate::support::house::reason;

mod visitor;

const DENIED: &str = "CALLER_NOT_ALLOWED";

/// One rpc: the action that it needs, and how to ask for it with a credential.
struct Rpc {
    name: &'static str,
    action: Action,
    ask: for<'a> fn(&'a Visitor, &'a str) -> Asked<'a>,
}

/// Whether the answer has a token in it.
type Asked<'a> = Pin<Box<dyn Future<Output = Result<bool, Status>> + 'a>>;

const RPCS: [Rpc; 7] = [
    Rpc {
        name: "TokenService.GetToken",
        action: Action::Get,
        ask: |visitor, credential| Box::pin(get(visitor, credential)),
    },
    Rpc {
        name: "TokenService.InvalidateToken",
        action: Action::Invalidate,
        ask: |visitor, credential| Box::pin(invalidate(visitor, credential)),
    },
    Rpc {
        name: "TokenService.CallThrough",
        action: Action::Call,
        ask: |visitor, credential| Box::pin(call(visitor, credential)),
    },
    Rpc {
        name: "GrantAdmin.ImportGrant",
        action: Action::Administer,
        ask: |visitor, credential| Box::pin(import(visitor, credential)),
    },
    Rpc {
        name: "GrantAdmin.DescribeGrant",
        action: Action::Administer,
        ask: |visitor, credential| Box::pin(describe(visitor, credential)),
    },
    Rpc {
        name: "GrantAdmin.RetryGrant",
        action: Action::Administer,
        ask: |visitor, credential| Box::pin(retry(visitor, credential)),
    },
    Rpc {
        name: RESEAL,
        action: Action::Administer,
        // It is about the store as a whole, whatever credential there is.
        ask: |visitor, _| Box::pin(reseal(visitor)),
    },
];

const RESEAL: &str = "GrantAdmin.ResealRecords";

impl Rpc {
    /// Whether a row for some credentials is enough.
    fn is_about_a_credential(&self) -> bool {
        self.name != RESEAL
    }
}

async fn get(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let request = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() };
    visitor.tokens.clone().get_token(request).await.map(|answer| answer.into_inner().token.is_some())
}

async fn invalidate(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let rejected = Some(Rejected::AccessToken("unknown".to_owned()));
    let request =
        InvalidateTokenRequest { credential: credential.to_owned(), rejected, ..InvalidateTokenRequest::default() };
    let answer = visitor.tokens.clone().invalidate_token(request).await?.into_inner();
    assert!(answer.generation > 0, "the generation is always there");
    Ok(answer.token.is_some())
}

async fn call(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let request = CallThroughRequest {
        credential: credential.to_owned(),
        method: "GET".to_owned(),
        path: "/hello".to_owned(),
        ..CallThroughRequest::default()
    };
    visitor.tokens.clone().call_through(request).await.map(|_| false)
}

async fn import(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let secret = Some(Secret::StaticSecret("imported".to_owned()));
    let request = ImportGrantRequest { credential: credential.to_owned(), secret, ..ImportGrantRequest::default() };
    visitor.grants.clone().import_grant(request).await.map(|_| false)
}

async fn describe(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let request = DescribeGrantRequest { credential: credential.to_owned(), ..DescribeGrantRequest::default() };
    visitor.grants.clone().describe_grant(request).await.map(|_| false)
}

/// Nothing is dead here, and to be told so takes the same right.
async fn retry(visitor: &Visitor, credential: &str) -> Result<bool, Status> {
    let request = RetryGrantRequest { credential: credential.to_owned(), ..RetryGrantRequest::default() };
    match visitor.grants.clone().retry_grant(request).await {
        Err(status) if reason(&status).1 == "REAUTHORIZATION_REQUIRED" => Ok(false),
        answer => answer.map(|_| false),
    }
}

async fn reseal(visitor: &Visitor) -> Result<bool, Status> {
    visitor.grants.clone().reseal_records(ResealRecordsRequest::default()).await.map(|_| false)
}

/// The credential whose row has this action alone.
fn only(action: Action) -> String {
    format!("only-{}", action.word())
}

/// A row for each action alone, one for all the other callers, one for a credential that does not exist, and a
/// credential without any row.
fn configuration(caller: &Caller) -> String {
    let row = |caller: &str, credential: &str, actions: &[&str]| {
        format!("[[allow]]\ncaller = \"{caller}\"\ncredentials = [\"{credential}\"]\nactions = {actions:?}\n")
    };
    let credential = |name: &str| {
        format!(
            "[credentials.{name}]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = {{ env = \"API_KEY\" }}\n\
             base_url = \"{{api_url}}\"\n"
        )
    };
    let all = Action::ALL.map(Action::word);
    let mut rows: Vec<String> =
        Action::ALL.iter().map(|action| row(caller.name(), &only(*action), &[action.word()])).collect();
    rows.push(row(caller.name(), "absent", &all));
    rows.extend(kinds().iter().filter(|other| *other != caller).map(|other| row(other.name(), "others", &all)));
    let names = Action::ALL.into_iter().map(only).chain(["others".to_owned(), "nobodys".to_owned()]);
    rows.into_iter().chain(names.map(|name| credential(&name))).collect()
}

/// All that a caller sees of a refusal, but the trace id, which differs each time.
fn seen(status: &Status) -> String {
    let mut details = status.get_error_details();
    let info = details.error_info().cloned().expect("every error says its reason");
    let metadata: HashMap<_, _> = info.metadata.into_iter().filter(|(key, _)| key != "trace_id").collect();
    details.set_error_info(info.reason, info.domain, metadata);
    format!("{:?} {} {details:?}", status.code(), status.message())
}

#[test]
fn every_rpc_has_a_row_here() {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours = files.iter().filter(|file| file.package() == "bearerd.v1");
    let mut there = BTreeSet::new();
    for service in ours.flat_map(|file| &file.service) {
        there.extend(service.method.iter().map(|method| format!("{}.{}", service.name(), method.name())));
    }
    assert_eq!(there, RPCS.iter().map(|rpc| rpc.name.to_owned()).collect());
}

#[tokio::test]
async fn every_caller_may_do_with_every_rpc_what_a_row_says_and_nothing_else() {
    for caller in kinds() {
        let visitor = Visitor::new(&caller, &configuration(&caller)).await;
        let mut denials = BTreeSet::new();
        for rpc in &RPCS {
            let place = |credential: &str| format!("{} as {caller} with {credential}", rpc.name);
            for credential in Action::ALL {
                let name = only(credential);
                let answer = (rpc.ask)(&visitor, &name).await;
                // A token is in no answer but that of `GetToken`, and so is nobody's who may not get it.
                let seen_token = answer.as_ref().is_ok_and(|has_token| *has_token);
                assert_eq!(seen_token, answer.is_ok() && rpc.action == Action::Get, "{}", place(&name));
                // What else comes of it behind the policy is of no concern here.
                let denied = answer.err().filter(|status| reason(status).1 == DENIED);
                let allowed = credential == rpc.action && rpc.is_about_a_credential();
                assert_eq!(denied.is_none(), allowed, "{}: {denied:?}", place(&name));
                denials.extend(denied.as_ref().map(seen));
            }
            for name in ["others", "nobodys", "does-not-exist"] {
                denials.insert(seen(&(rpc.ask)(&visitor, name).await.expect_err(&place(name))));
            }
            let status = (rpc.ask)(&visitor, "absent").await.expect_err(&place("absent"));
            if !rpc.is_about_a_credential() {
                denials.insert(seen(&status));
                continue;
            }
            assert_eq!(
                reason(&status),
                (Code::NotFound, "CREDENTIAL_NOT_FOUND".to_owned(), None),
                "{}",
                place("absent")
            );
        }
        // Whatever was denied, and why ever, looks the same to the last letter.
        assert_eq!(denials.len(), 1, "{denials:?}");
        assert!(denials.iter().all(|denial| denial.contains(DENIED)), "{denials:?}");
    }
}

#[tokio::test]
async fn the_store_as_a_whole_is_for_those_who_may_administer_everything() {
    for caller in kinds() {
        for (credentials, action, limit, allowed) in [
            ("*", "administer", "", true),
            ("*", "get", "", false),
            ("d*", "administer", "", false),
            ("*", "administer", "subjects = [\"tenant-*\"]", false),
        ] {
            let row = format!("credentials = [\"{credentials}\"]\nactions = [\"{action}\"]\n{limit}\n");
            let lines = format!("[[allow]]\ncaller = \"{}\"\n{row}", caller.name());
            let visitor = Visitor::new(&caller, &lines).await;
            let answer = reseal(&visitor).await;
            assert_eq!(answer.is_ok(), allowed, "{caller} with {row}");
            if let Err(status) = answer {
                assert_eq!(reason(&status).1, DENIED);
            }
        }
    }
}
