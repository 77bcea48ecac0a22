//! `bearerd check`: reads the configuration and all secrets, can ask each provider for a token, and can say what the
//! policy allows whom.

use std::{path::PathBuf, time::SystemTime};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::{
    output::{Exit, Failure, Streams, counted},
    serve,
};
use crate::{
    broker::{Credential, Timing},
    config::{self, ConfigErrors},
    grant::{
        Grant,
        answer::{Answer, RefusalError},
        request::{self, Asked},
    },
    http,
    name::Subject,
    policy::{Action, Row},
    provider::{self, Provider, TokenEndpoint},
};

mod explain;

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd check --config bearerd.toml --probe\n  \
bearerd check --as spiffe://example.org/ns/billing/sa/api --credential salesforce --action get";

/// The arguments of `bearerd check`.
#[derive(ClapArgs)]
pub struct Args {
    /// The configuration file; without it ./bearerd.toml, then /etc/bearerd/bearerd.toml
    #[arg(long, value_name = "FILE", env = "BEARERD_CONFIG")]
    config: Option<PathBuf>,
    /// Ask each provider for a token, where asking spends nothing; the tokens are thrown away
    #[arg(long, conflicts_with = "caller")]
    probe: bool,
    /// Read no secret, for a place that does not have them, such as CI; everything else is checked
    #[arg(long, conflicts_with_all = ["caller", "probe"])]
    without_secrets: bool,
    #[command(flatten)]
    question: explain::Question,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What was found out about one credential.
#[derive(Serialize)]
struct Finding {
    credential: String,
    good: bool,
    text: String,
}

/// Checks the configuration: 0 if it is good, 78 if it is not, 1 if a probe failed, 77 if the policy denies what was
/// asked about.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    if args.without_secrets {
        return outline(&args, streams);
    }
    let config = match serve::read(args.config.as_deref()) {
        Ok(config) => config,
        Err(errors) => return mistakes(&errors, args.json, streams),
    };
    serve::tell_warnings(&config.warnings, streams);
    if let Some(answer) = args.question.answer(&config, args.json, streams) {
        return answer;
    }
    get_without_invalidate(&config, streams);
    let mut findings = Vec::new();
    for credential in config.credentials.values() {
        findings.push(if args.probe { probe(credential, &config.refresh).await? } else { loaded(credential) });
    }
    report(&findings, config.allow.len(), args.json, streams)?;
    if findings.iter().any(|finding| !finding.good) {
        return Ok(Exit::Failure);
    }
    let unasked = if args.probe { "" } else { "; whether providers accept the clients (--probe asks them)" };
    streams.note(&format!("not checked: whether the store answers, and whether [seal] opens its records{unasked}"));
    Ok(Exit::Success)
}

/// Names the rows whose callers may be denied where they refuse a generation. It is no warning of the configuration,
/// because such rows are good where callers only use tokens.
fn get_without_invalidate(config: &config::Config, streams: &mut Streams<'_>) {
    for (number, row) in (1..).zip(&config.allow) {
        let reports = |row: &Row| row.actions.contains(&Action::Invalidate);
        let may_report = config.allow.iter().any(|other| other.caller == row.caller && reports(other));
        if !row.deny && row.actions.contains(&Action::Get) && !may_report {
            streams.note(&format!(
                "note: row {number} (caller \"{}\") has \"get\" without \"invalidate\": its callers cannot report a rejected \
                 token, nor use refused_generation",
                row.caller
            ));
        }
    }
}

/// Tells the mistakes in the form that was asked for.
fn mistakes(errors: &ConfigErrors, json: bool, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    if json {
        return Err(Failure::new(Exit::Configuration, errors.render(false)));
    }
    serve::tell_mistakes(errors, streams);
    Ok(Exit::Configuration)
}

/// Checks all but the secrets.
fn outline(args: &Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let outline = match config::load_without_secrets(args.config.as_deref()) {
        Ok(outline) => outline,
        Err(errors) => return mistakes(&errors, args.json, streams),
    };
    serve::tell_warnings(&outline.warnings, streams);
    let findings = outline.credentials.into_iter();
    let findings: Vec<_> = findings.map(|(credential, text)| Finding { credential, good: true, text }).collect();
    report(&findings, outline.rows, args.json, streams)?;
    streams.note("not checked: the secrets, the store, and the providers");
    Ok(Exit::Success)
}

/// Prints what was found out, and that the configuration is good if all of it is.
fn report(findings: &[Finding], rows: usize, json: bool, streams: &mut Streams<'_>) -> Result<(), Failure> {
    if json {
        return streams.json(&findings);
    }
    for finding in findings {
        streams.line(&format!("{}: {}", finding.credential, finding.text))?;
    }
    let bad = findings.iter().filter(|finding| !finding.good).count();
    if bad > 0 {
        let credentials = counted(findings.len() as u64, "credential");
        return streams.line(&format!("the configuration can be read, but {bad} of {credentials} got no token"));
    }
    if findings.is_empty() {
        return streams.line("the configuration has no mistakes and no credentials: add [credentials.NAME]");
    }
    let (credentials, rows) = (counted(findings.len() as u64, "credential"), counted(rows as u64, "policy row"));
    streams.line(&format!("the configuration is good: {credentials}, {rows}"))
}

fn loaded(credential: &Credential) -> Finding {
    let text = match &credential.grant {
        Grant::ClientCredentials(_) => "client_credentials",
        Grant::RefreshToken { .. } => "refresh_token",
        Grant::JwtBearer { .. } => "jwt_bearer",
        Grant::Static { .. } => "static",
    };
    Finding { credential: credential.name.to_string(), good: true, text: text.to_owned() }
}

async fn probe(credential: &Credential, timing: &Timing) -> Result<Finding, Failure> {
    let (good, text) = match &credential.grant {
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => ask(credential, timing).await?,
        Grant::RefreshToken { .. } => (true, "not probed: it would spend the refresh token".to_owned()),
        Grant::Static { .. } => (true, "static: there is no provider to ask".to_owned()),
    };
    Ok(Finding { credential: credential.name.to_string(), good, text })
}

async fn ask(credential: &Credential, timing: &Timing) -> Result<(bool, String), Failure> {
    let client = http::for_token_endpoints()
        .map_err(|error| Failure::new(Exit::Failure, format!("the HTTP client cannot be made: {error}")))?;
    let asked = Asked {
        subject: &Subject::default(),
        scopes: &credential.scopes,
        resources: &credential.resources,
        default_scopes: &credential.scopes,
        profile: &credential.profile,
        proof: 0,
    };
    let provider = Provider::new(client);
    let mut proofs = 0..credential.grant.endpoint().map_or(1, |endpoint| endpoint.client.auth.proofs());
    let (report, outcome) = loop {
        let asked = Asked { proof: proofs.next().unwrap_or_default(), ..asked };
        let request = match request::build(&credential.grant, None, &asked, SystemTime::now()) {
            Ok(request) => request,
            Err(error) => return Ok((false, error.to_string())),
        };
        let endpoint = request.reading.endpoint.clone();
        let outcome = provider.ask(request, timing.http_timeout).await;
        // As the service does: while a client secret is replaced, the provider may know the next one.
        let unproven =
            matches!(&outcome, Ok(Answer::Refused(refusal)) if refusal.error == RefusalError::ClientUnproven);
        if !unproven || proofs.is_empty() {
            break (provider::report(&outcome, &endpoint), outcome);
        }
    };
    Ok(match outcome {
        Ok(Answer::Granted(granted)) => (
            true,
            granted.expires_in.map_or_else(
                || "a token was granted; the provider does not say for how long (default_lifetime helps)".to_owned(),
                |life| format!("a token was granted for {} s", life.as_secs()),
            ),
        ),
        Ok(Answer::Refused(_) | Answer::Unusable(_)) | Err(_) => {
            (false, report.map(|report| report.to_string()).unwrap_or_default())
        }
    })
}
