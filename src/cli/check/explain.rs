//! `bearerd check --as`: what the policy says to a caller, and why.

use clap::{
    Args as ClapArgs,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;

use crate::{
    cli::output::{Exit, Failure, Streams},
    config::Config,
    name::{CredentialName, NameError, Resources, Scopes, Subject},
    policy::{Action, Called, Limit, Policy, Request, Row, RowId, Verdict},
};

/// A caller, and what it might ask for.
#[derive(ClapArgs)]
pub struct Question {
    /// Say what the policy allows this caller; see the audit log for callers' names
    #[arg(long = "as", value_name = "CALLER")]
    caller: Option<String>,
    /// Say whether it may use this credential, which row allows it, and what keeps each other row from it
    #[arg(long, value_name = "NAME", requires_all = ["caller", "action"])]
    credential: Option<String>,
    /// What the caller would do with it
    #[arg(long, requires = "credential", value_parser = actions())]
    action: Option<Action>,
    /// On whose behalf; without it the service itself
    #[arg(long, requires = "credential")]
    subject: Option<String>,
    /// A scope that the caller would name; can be repeated
    #[arg(long = "scope", value_name = "SCOPE", requires = "credential")]
    scopes: Vec<String>,
    /// A resource that the caller would name; can be repeated
    #[arg(long = "resource", value_name = "URI", requires = "credential")]
    resources: Vec<String>,
    /// The HTTP method of the call
    #[arg(long, requires = "credential", required_if_eq("action", "call"))]
    method: Option<String>,
    /// The path of the call, relative to the credential's base_url
    #[arg(long, requires = "credential", required_if_eq("action", "call"))]
    path: Option<String>,
}

fn actions() -> impl TypedValueParser<Value = Action> {
    PossibleValuesParser::new(Action::ALL.map(Action::word)).try_map(|word| {
        let found = Action::ALL.into_iter().find(|action| action.word() == word);
        found.ok_or("no such action")
    })
}

/// A row's answer in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    row: usize,
    name: Option<&'a str>,
    allows: bool,
    denies: bool,
    /// The settings that keep the row from allowing it.
    limits: Vec<&'static str>,
}

/// A row in JSON: its settings as they were written, `null` where nothing is limited.
#[derive(Serialize)]
struct Shown<'a> {
    row: usize,
    name: Option<&'a str>,
    denies: bool,
    settings: serde_json::Map<String, serde_json::Value>,
    /// Whether it lets its callers work on the store as a whole, as `bearerd keys` does.
    administers_store: bool,
}

impl Question {
    /// Answers, if a caller was named: 0 if something is allowed, 77 if nothing is.
    pub fn answer(&self, config: &Config, json: bool, streams: &mut Streams<'_>) -> Option<Result<Exit, Failure>> {
        let caller = self.caller.as_deref()?;
        let policy = config.policy();
        let request = match self.request() {
            Ok(request) => request,
            Err(failure) => return Some(Err(failure)),
        };
        if request.as_ref().is_some_and(|request| !config.credentials.contains_key(&request.credential)) {
            streams.note("there is no such credential: an allowed caller is told CREDENTIAL_NOT_FOUND");
        }
        Some(match request {
            _ if config.allow.is_empty() && !json => without_rows(&policy, caller, streams),
            None => overview(&policy, caller, json, streams),
            Some(request) => judge(&policy, caller, &request, json, streams),
        })
    }

    fn request(&self) -> Result<Option<Request>, Failure> {
        let (Some(credential), Some(action)) = (&self.credential, self.action) else { return Ok(None) };
        let wrong = |error: NameError| Failure::new(Exit::Usage, error.to_string());
        let call = self.method.clone().zip(self.path.clone()).map(|(method, path)| Called { method, path });
        Ok(Some(Request {
            action,
            credential: CredentialName::new(credential).map_err(wrong)?,
            subject: Subject::new(self.subject.as_deref().unwrap_or_default()).map_err(wrong)?,
            scopes: Scopes::new(self.scopes.iter().cloned()).map_err(wrong)?,
            resources: Resources::new(self.resources.iter().cloned()).map_err(wrong)?,
            call,
        }))
    }
}

/// There is nothing to list then, and nothing that one question is told differently from another.
fn without_rows(policy: &Policy, caller: &str, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let allowed = !policy.rows_for(caller).is_empty();
    streams.line(match allowed {
        true => "allowed: there is no [[allow]], so local callers may do everything",
        false => "denied: there is no [[allow]], so nobody but local callers may do anything",
    })?;
    Ok(if allowed { Exit::Success } else { Exit::NotAllowed })
}

fn judge(
    policy: &Policy,
    caller: &str,
    request: &Request,
    json: bool,
    streams: &mut Streams<'_>,
) -> Result<Exit, Failure> {
    let verdicts = policy.explain(caller, request);
    let meets = |deny| verdicts.iter().find(|verdict| verdict.row.deny == deny && verdict.limits.is_empty());
    let denying = meets(true);
    let allowing = meets(false).filter(|_| denying.is_none());
    if json {
        streams.json(&verdicts.iter().map(answer).collect::<Vec<_>>())?;
    } else {
        let said = match (denying, allowing) {
            (Some(verdict), _) => format!("denied by {}", verdict.id),
            (None, Some(verdict)) => format!("allowed by {}", verdict.id),
            (None, None) => "denied: no row allows it".to_owned(),
        };
        streams.line(&said)?;
        for verdict in &verdicts {
            streams.line(&format!("  {}: {}", verdict.id, reasons(verdict)))?;
        }
    }
    Ok(if allowing.is_some() { Exit::Success } else { Exit::NotAllowed })
}

fn answer<'a>(verdict: &'a Verdict<'a>) -> Answer<'a> {
    Answer {
        row: verdict.id.number,
        name: verdict.id.name.as_deref(),
        allows: verdict.limits.is_empty() && !verdict.row.deny,
        denies: verdict.limits.is_empty() && verdict.row.deny,
        limits: verdict.limits.iter().map(|limit| limit.setting()).collect(),
    }
}

fn reasons(verdict: &Verdict<'_>) -> String {
    if verdict.limits.is_empty() {
        return if verdict.row.deny { "denies it" } else { "allows it" }.to_owned();
    }
    let written = |limit: &Limit| match verdict.row.written(*limit) {
        Some(written) => format!("{} = {written}", limit.setting()),
        None => format!("{} (absent: {})", limit.setting(), absent(verdict.row, *limit)),
    };
    format!("does not, because of {}", verdict.limits.iter().map(written).collect::<Vec<_>>().join(" and "))
}

fn overview(policy: &Policy, caller: &str, json: bool, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let rows = policy.rows_for(caller);
    if json {
        streams.json(&rows.iter().map(|(id, row)| shown(id, row)).collect::<Vec<_>>())?;
    } else if rows.is_empty() {
        streams.line("denied: no row is for this caller")?;
    } else {
        for (id, row) in &rows {
            streams.line(&if row.deny { format!("{id} (denies)") } else { id.to_string() })?;
            for setting in Limit::ALL {
                let written = row.written(setting).unwrap_or_else(|| absent(row, setting).to_owned());
                streams.line(&format!("  {}: {written}", setting.setting()))?;
            }
        }
        let whole = rows.iter().find(|(_, row)| row.administers_everything());
        let said = whole.map_or_else(|| "denied".to_owned(), |(id, _)| format!("allowed by {}", id));
        streams.line(&format!("the store as a whole (bearerd keys): {said}"))?;
    }
    Ok(if rows.is_empty() { Exit::NotAllowed } else { Exit::Success })
}

fn shown<'a>(id: &'a RowId, row: &Row) -> Shown<'a> {
    let settings = Limit::ALL.map(|setting| (setting.setting().to_owned(), row.written(setting).into()));
    Shown {
        row: id.number,
        name: id.name.as_deref(),
        denies: row.deny,
        settings: settings.into_iter().collect(),
        administers_store: row.administers_everything(),
    }
}

/// What a setting that is absent stands for.
fn absent(row: &Row, setting: Limit) -> &'static str {
    match setting {
        Limit::Subject if !row.deny => "any; of jwt_bearer credentials the service itself",
        Limit::Scope | Limit::Resource if !row.deny => "the credential's own",
        Limit::Subject | Limit::Scope | Limit::Resource => "any",
        Limit::Caller | Limit::Credential | Limit::Action | Limit::Method | Limit::Path => "any",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::cli::{output::Exit, testing::run_alone};

    const CONFIG: &str = "
        [[allow]]
        name = \"billing\"
        caller = \"spiffe://acme/billing/*\"
        credentials = [\"key\"]
        actions = [\"call\"]
        methods = [\"GET\"]
        paths = [\"/v1\"]

        [[allow]]
        caller = \"oncall\"
        credentials = [\"*\"]
        actions = [\"administer\"]

        [credentials.key]
        grant = \"static\"
        scheme = \"bearer\"
    ";

    async fn check(config: &str, args: &[&str]) -> (Exit, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bearerd.toml");
        fs::write(&path, config).unwrap();
        let run = run_alone(&[&["check", "--config", path.to_str().unwrap()], args].concat(), "").await;
        (run.exit, run.out, run.err)
    }

    const CALL: [&str; 4] = ["--credential", "key", "--action", "call"];

    #[tokio::test]
    async fn a_request_is_judged_row_by_row() {
        for (caller, call, exit, out) in [
            (
                "spiffe://acme/billing/api",
                ["--method", "GET", "--path", "/v1/x"],
                Exit::Success,
                "allowed by row 1 (billing)\n  row 1 (billing): allows it\n  row 2: does not, because of \
                 caller = \"oncall\" and actions = [\"administer\"]\n",
            ),
            (
                "oncall",
                ["--method", "POST", "--path", "/v2"],
                Exit::NotAllowed,
                "denied: no row allows it\n  row 1 (billing): does not, because of caller = \
                 \"spiffe://acme/billing/*\" and methods = [\"GET\"] and paths = [\"/v1\"]\n  row 2: does not, \
                 because of actions = [\"administer\"]\n",
            ),
        ] {
            let asked = check(CONFIG, &[&["--as", caller][..], &CALL, &call].concat()).await;
            assert_eq!(asked, (exit, out.to_owned(), String::new()));
        }
        let json =
            check(CONFIG, &["--as", "oncall", "--credential", "other", "--action", "administer", "--json"]).await;
        let row = |number, name, allows, limits| {
            format!("{{\"row\":{number},\"name\":{name},\"allows\":{allows},\"denies\":false,\"limits\":[{limits}]}}")
        };
        let rows = [row(1, "\"billing\"", false, "\"caller\",\"credentials\",\"actions\""), row(2, "null", true, "")];
        assert_eq!((json.0, json.1), (Exit::Success, format!("[{}]\n", rows.join(","))));
        assert!(json.2.contains("CREDENTIAL_NOT_FOUND"), "{}", json.2);
    }

    #[tokio::test]
    async fn a_caller_alone_is_told_its_rows() {
        let (exit, out, _) = check(CONFIG, &["--as", "oncall"]).await;
        let row = "row 2\n  caller: \"oncall\"\n  credentials: [\"*\"]\n  actions: [\"administer\"]\n  subjects: any; of jwt_bearer credentials the service itself\n";
        assert!(exit == Exit::Success && out.starts_with(row), "{out}");
        assert!(out.ends_with("\nthe store as a whole (bearerd keys): allowed by row 2\n"), "{out}");
        let (_, out, _) = check(CONFIG, &["--as", "spiffe://acme/billing/api"]).await;
        assert!(out.ends_with("\nthe store as a whole (bearerd keys): denied\n"), "{out}");
        let (exit, out, _) = check(CONFIG, &["--as", "nobody"]).await;
        assert_eq!((exit, out.as_str()), (Exit::NotAllowed, "denied: no row is for this caller\n"));
        let (exit, out, _) = check(CONFIG, &["--as", "oncall", "--json"]).await;
        assert!(out.contains("\"actions\":\"[\\\"administer\\\"]\"") && out.contains("\"subjects\":null"), "{out}");
        assert!(out.ends_with(",\"administers_store\":true}]\n"), "{out}");
        assert_eq!(exit, Exit::Success);
    }

    #[tokio::test]
    async fn without_rows_there_is_still_an_answer() {
        let config = "[credentials.key]\ngrant = \"static\"\nscheme = \"bearer\"\n";
        let all = "allowed: there is no [[allow]], so local callers may do everything\n";
        let none = "denied: there is no [[allow]], so nobody but local callers may do anything\n";
        for (caller, exit, out) in [("local", Exit::Success, all), ("anonymous", Exit::NotAllowed, none)] {
            for question in [&["--credential", "key", "--action", "get"][..], &[]] {
                let asked = check(config, &[&["--as", caller], question].concat()).await;
                assert_eq!((asked.0, asked.1.as_str()), (exit, out), "{question:?}");
            }
        }
        let json = check(config, &["--as", "local", "--json"]).await;
        assert!(json.0 == Exit::Success && json.1.starts_with("[{\"row\":0,"), "{}", json.1);
    }

    #[tokio::test]
    async fn questions_that_cannot_be_judged_are_wrong_usage() {
        for args in [
            &["--as", "a", "--credential", "key"][..],
            &["--as", "a", "--action", "get"],
            &["--credential", "key", "--action", "get"],
            &["--as", "a", "--credential", "key", "--action", "call", "--method", "GET"],
            &["--as", "a", "--credential", "key", "--action", "take"],
            &["--as", "a", "--credential", "Key", "--action", "get"],
            &["--as", "a", "--credential", "key", "--action", "get", "--scope", "a b"],
        ] {
            assert_eq!(check(CONFIG, args).await.0, Exit::Usage, "{args:?}");
        }
    }
}
